import pytest
from torch import nn

from maskmatch.config import Config, MethodConfig, TrainConfig
from maskmatch.training.schedules import lr_report, make_optimizer, resolve, set_learning_rate


def test_open_values_follow_from_the_steps():
    config = resolve(Config(train=TrainConfig(steps=1000)), images=400)
    assert (config.method.warmup_steps, config.method.ramp_steps) == (100, 100)
    assert (config.train.validate_every, config.train.checkpoint_every) == (100, 100)
    assert config.method.ema_momentum == 0.99


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_shortest_runs_resolve(steps):
    config = resolve(Config(train=TrainConfig(steps=steps)), images=400)
    assert config.train.validate_every >= 1 and config.train.checkpoint_every >= 1
    assert 0 <= config.method.ema_momentum < 1


def test_what_is_set_stays():
    method = MethodConfig(warmup_steps=0, ramp_steps=7, ema_momentum=0.5)
    config = resolve(Config(method=method, train=TrainConfig(steps=100, validate_every=3)), images=400)
    assert config.method == method and config.train.validate_every == 3


def test_epochs_are_rounded_up_to_whole_steps():
    assert resolve(Config(train=TrainConfig(epochs=3, batch_size=8)), images=13).train.steps == 5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_poly_schedule_and_head_multiplier(optimizer):
    network = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)})
    config = TrainConfig(steps=10, lr=0.1, head_lr_multiplier=5, optimizer=optimizer)
    made = make_optimizer(network, config)
    set_learning_rate(made, 4, config)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.1 * 0.6**0.9, 0.5 * 0.6**0.9])
    assert [len(group["params"]) for group in made.param_groups] == [2, 2]


@pytest.mark.parametrize(
    ("optimizer", "batch", "said"),
    [
        ("sgd", 8, "lr 0.1"),
        ("sgd", 32, "lr 0.4 = 0.1 x 32/8 for 32 images a step"),
        ("adamw", 2, "lr 0.05 = 0.1 x sqrt(2/8) for 2 images a step"),
    ],
)
def test_a_scaled_learning_rate_is_said(optimizer, batch, said):
    config = TrainConfig(optimizer=optimizer, lr=0.1, lr_batch_size=8, batch_size=batch)
    assert lr_report(config, batch) == said
    lr = make_optimizer(nn.Linear(2, 2), config).param_groups[0]["lr"]
    assert lr == pytest.approx(float(said.split()[1]))
