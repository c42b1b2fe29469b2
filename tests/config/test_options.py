"""Whatever an option is given is accepted, or refused in one line: generated from the configuration itself."""

from __future__ import annotations

import copy
import math
import re
from typing import get_args, get_origin
from unittest import mock

import pytest
import torch
from torch import nn

from maskmatch.commands import command_line
from maskmatch.commands.command_line import parse_train
from maskmatch.common.errors import UserError
from maskmatch.config import Config, TrainConfig, each_option, validate
from maskmatch.config.rules import numbers
from maskmatch.training.schedules import make_optimizer, resolve, set_learning_rate

OPTIONS = {option.name: option for option in each_option(Config())}
TYPED = [name for name in OPTIONS if name not in ("fused", "loader_from_file")]
NUMERIC = [name for name, option in OPTIONS.items() if re.search(r"\b(int|float)\b", str(option.type))]
TEXTS = {"wrong type": "what?", "negative": "-1", "huge": "9" * 40, "not a number": ".nan"}
VALUES = {
    "wrong type": ["what?", {"a": [1]}, [[]], None, "", ["a", "b"], True, object(), 1j, b"x", ("a", 1), 1.5],
    "negative": [-1, -0.5, [-1, 2], (-1.0, -1.0), [-1.0] * 4],
    "huge": [10**30, 1e300, [10**30], (10**30, 10**30), [1e300], 10**400],
    "not a number": [math.nan, -math.inf, [math.nan], (math.nan, 1.0), (1.0, math.inf), [0.1, 0.1, 0.1, math.nan]],
}


@pytest.fixture(scope="module")
def parser():
    """That of the command line, made once."""
    made = command_line.train_parser()
    with mock.patch.object(command_line, "train_parser", return_value=made):
        yield made


def get(config: Config, name: str) -> object:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def changed(name: str, value: object) -> Config:
    config = copy.deepcopy(Config())
    *path, last = name.split(".")
    section = config
    for part in path:
        section = getattr(section, part)
    setattr(section, last, value)
    return config


def typed(name: str, text: str) -> str:
    """The text in the place of every number, where the option takes several."""
    kinds = [kind for kind in (OPTIONS[name].type, *get_args(OPTIONS[name].type)) if get_origin(kind) in (list, tuple)]
    several = len(get_args(kinds[0])) if kinds else 0
    return f"[{','.join([text] * several)}]" if several else text


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", TYPED)
def test_typed(name: str, kind: str, parser, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the real parser: one line that names the option, or a value that is what it may be."""
    try:
        config = parse_train([f"--{name}={typed(name, TEXTS[kind])}"])
    except SystemExit:
        said = capsys.readouterr().err.strip().removeprefix("maskmatch.train: error: ")
    except UserError as error:
        said = str(error)
    else:
        assert all(0 <= number < 2**129 for number in numbers(get(config, name))) or name.endswith("_values")
        return
    assert_names(name, said)
    assert "Parser key" not in said and "class '" not in said, said


def assert_names(name: str, said: str) -> None:
    """One line on the option."""
    assert len(said.splitlines()) == 1 and len(said) < 700, said
    assert said.startswith((name, "CutMix pairs images: train.batch_size")), said
    assert "got" in said, said


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("name", OPTIONS)
def test_set_in_python(name: str, kind: str) -> None:
    for value in VALUES[kind]:
        config = changed(name, value)
        try:
            validate(config)
        except UserError as error:
            assert_names(name, str(error))
        else:
            found = list(numbers(value))
            assert all(math.isfinite(number) and abs(number) < 2**129 for number in found), value


@pytest.mark.parametrize("name", NUMERIC)
def test_numbers_are_refused(name: str) -> None:
    """No option takes a NaN, an infinity or, but for what masks store, a negative number."""
    values = [math.nan, math.inf, [math.nan], [math.inf], (1.0, math.nan), 10**400]
    for value in values if name.endswith("_values") else [*values, -1, -0.5, [-0.5], (-1, -1), [0.1, 0.1, 0.1, -0.1]]:
        finite = all(map(math.isfinite, numbers(value))) if value != 10**400 else True
        with pytest.raises(UserError, match=rf"^{name}" + ("" if finite else r"(: expected .*| must be finite), got")):
            validate(changed(name, value))


@pytest.mark.parametrize("name", OPTIONS)
def test_the_default_is_allowed_and_explained(name: str, parser) -> None:
    OPTIONS[name].check()
    helps = {action.dest: action.help for action in parser._actions}
    if name != "loader_from_file":
        assert len(helps[name] or "") > 10


BOUNDARIES = [0, 1, 2, 2**31 - 1, 5e-324, 1e-45, 1e-38, 0.5, 1e30, 3.4e38]


def allowed(name: str) -> list[object]:
    """What validation accepts of BOUNDARIES."""
    found = []
    for value in BOUNDARIES:
        try:
            next(one for one in each_option(changed(name, value)) if one.name == name).check()
        except UserError:
            continue
        found.append(value)
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", [name for name in NUMERIC if name.startswith("train.")])
def test_what_is_accepted_takes_a_step(name: str, optimizer: str) -> None:
    assert allowed(name)
    for value in allowed(name):
        config = changed(name, value)
        config.train.optimizer = optimizer
        take_step(config)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("pick", [min, max])
def test_every_option_at_its_limit_takes_a_step(pick, optimizer: str) -> None:
    names = ("lr", "lr_batch_size", "head_lr_multiplier", "weight_decay", "batch_size", "accumulate", "steps")
    values = {name: pick(allowed(f"train.{name}")) for name in names}
    take_step(Config(train=TrainConfig(**values, optimizer=optimizer)))  # type: ignore[arg-type]


def take_step(config: Config) -> None:
    """As the training takes its first and its last one."""
    config = resolve(config, images=400, processes=8)
    network = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    made = make_optimizer(network, config.train, processes=8)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert config.train.steps
    for step in (0, config.train.steps - 1):
        set_learning_rate(made, step, config.train)
        made.step()
