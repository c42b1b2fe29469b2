"""Whether a value is of a declared type, and how to call that type in a message."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin


def is_of(value: Any, declared: Any) -> bool:
    """Whether a value read from YAML, or set in Python, is of a type such as `list[float] | None`."""
    kind, parts = get_origin(declared), get_args(declared)
    if kind in (Union, UnionType):
        return any(is_of(value, part) for part in parts)
    if kind is Literal:
        return any(value == part and type(value) is type(part) for part in parts)
    if kind is list:
        return isinstance(value, list | tuple) and all(is_of(one, parts[0]) for one in value)
    if kind is tuple:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(parts)
            and all(is_of(one, part) for one, part in zip(value, parts, strict=True))
        )
    if declared is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, declared) and (declared is bool or not isinstance(value, bool))


def expected(declared: Any, got: Any) -> str:
    """What was expected where something else was `got`: `int or null`, `one of a, b`, `list of float`."""
    kinds = _alternatives(declared)
    lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
    if lists and not isinstance(got, list | tuple) and is_of(got, lists[0]):
        return f"{' or '.join(map(_name, kinds))}, such as [a] or [a,b]"
    if lists:
        elements = " or ".join(map(_name, _alternatives(lists[0])))
        return " or ".join(f"list of {elements}" if get_origin(kind) is list else _name(kind) for kind in kinds)
    if get_origin(kinds[0]) is tuple:
        return f"tuple, such as [{','.join('abcdefgh'[: len(get_args(kinds[0]))])}]"
    return " or ".join(map(_name, kinds))


def _alternatives(declared: Any) -> tuple[Any, ...]:
    return get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    return "null" if kind is NoneType else (get_origin(kind) or kind).__name__
