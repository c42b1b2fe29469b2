"""A configuration as a whole: its options one by one, whether they can be, and what they follow from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from maskmatch.common.declared_types import expected, is_of
from maskmatch.common.errors import UserError
from maskmatch.config.fields import Config
from maskmatch.config.rules import FINITE, FLOAT32, INT32, About

Section = TypeVar("Section")
CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
"""How jsonargparse's files name a class to be imported, which no option of ours is."""


@dataclass(frozen=True)
class Option:
    """One option with its value."""

    name: str  # as on the command line, train.lr
    value: Any
    type: Any  # the declared one
    about: About

    def check(self) -> None:
        """Refuse, as a UserError, what is not of its type or breaks one of its rules."""
        if not is_of(self.value, self.type):
            raise UserError(f"{self.name}: expected {expected(self.type, self.value)}, got {self.value}")
        for rule in (FINITE, *self.about.rules, INT32, FLOAT32) if self.value is not None else ():
            if not rule.holds(self.value):
                raise UserError(f"{self.name} must be {rule.expected}, got {self.value}")


def each_option(section: Any, prefix: str = "") -> Iterator[Option]:
    """Every option of a configuration, or of one of its sections, in order."""
    types = get_type_hints(type(section))
    for field in fields(section):
        value, name = getattr(section, field.name), prefix + field.name
        if is_dataclass(types[field.name]):
            yield from each_option(value, f"{name}.")
        else:
            yield Option(name, value, types[field.name], field.metadata["about"])


def validate(config: Config) -> None:
    """Refuse values that no run can have.

    Raises:
        UserError: names the option, what it takes and what it got.
    """
    for option in each_option(config):
        option.check()
    method, train = config.method, config.train
    if train.steps is not None and train.epochs is not None:
        raise UserError(f"train.steps and train.epochs exclude each other, got {train.steps} and {train.epochs}")
    if method.cutmix and method.consistency and not method.supervised_only and train.batch_size % 2:
        raise UserError(
            f"CutMix pairs images: train.batch_size must be even, or method.cutmix false; got {train.batch_size}"
        )


def check_sections(options: dict[str, Any], section: type = Config, prefix: str = "") -> dict[str, Any]:
    """A file's options by section, without the sections in which nothing is set; UserError where one is no section."""
    types, found = get_type_hints(section), dict[str, Any]()
    for name, value in options.items():
        if CLASS_KEYS & set(str(name).split(".")):  # jsonargparse would import what it names
            raise UserError(f"expected options, got {prefix}{name}: {value}")
        if not is_dataclass(types.get(name)):
            found[name] = check_sections(value, object, f"{prefix}{name}.") if isinstance(value, dict) else value
        elif isinstance(value, dict):
            found[name] = check_sections(value, types[name], f"{prefix}{name}.")
        elif value is not None:
            raise UserError(f"{prefix}{name}: expected options, got {value}")
    return found


def filled_in(section: Section, steps: int) -> Section:
    """The same with everything that is left open and follows from the number of steps."""
    found: dict[str, Any] = {}
    for field in fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if is_dataclass(value):
            found[field.name] = filled_in(value, steps)
        elif value is None and (follows := field.metadata["about"].follows):
            found[field.name] = follows(steps)
    return replace(section, **found)  # type: ignore[type-var]


def flat(config: Config) -> dict[str, Any]:
    """`section.option` -> value, of what makes a run."""
    return {option.name: option.value for option in each_option(config) if option.about.saved}


def saved(config: Config) -> dict[str, Any]:
    """The same by section, as the files of a run have it."""
    return nested(flat(config))


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    sections: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        section = sections
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return sections
