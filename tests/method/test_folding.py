"""The teacher with its BatchNorms in its convolutions: the same answers, or nothing is folded."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import weight_norm

from maskmatch.config import ModelConfig
from maskmatch.method.folding import Fold, FoldedNetwork, find_folds
from maskmatch.models import build_student


def trained(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and weights of BatchNorms as a training might leave them, drawn anew by each seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, _BatchNorm) and norm.track_running_stats:
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 2)
                if norm.affine:
                    norm.weight.uniform_(0.5, 1.5)
                    norm.bias.normal_(0, 0.1)
    return network.eval().requires_grad_(False)


NETWORKS = {  # and how many of their BatchNorms stay: behind an addition, a concatenation, or nothing
    ("deeplabv3plus", "resnet18"): 0,
    ("deeplabv3plus", "efficientnet-b0"): 1,
    ("unet", "tu-test_resnet"): 0,
    ("fpn", "tu-test_efficientnet"): 0,
}


@pytest.mark.parametrize(("arch", "encoder"), NETWORKS)
def test_answers_are_the_same(arch, encoder):
    student = build_student(ModelConfig(arch=arch, encoder=encoder, encoder_weights="none"), 5)
    drawn = torch.get_rng_state()
    before = copy.deepcopy(student.network.state_dict())
    folds = find_folds(student.network, student.padded_size(64))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in student.network.state_dict().items())
    norms = sum(isinstance(module, _BatchNorm) for module in student.network.modules())
    assert len(folds) == norms - NETWORKS[arch, encoder]

    original = trained(student.network.to(memory_format=torch.channels_last))
    folded = FoldedNetwork(original, folds)
    for seed in (1, 2):
        trained(original, seed)
        state = copy.deepcopy(original.state_dict())
        folded.refresh()
        side = student.padded_size(64 + 32 * seed)
        images = torch.randn(2, 3, side, side)
        expected = original(images).softmax(1)
        torch.testing.assert_close(folded.network(images).softmax(1), expected, rtol=0, atol=1e-5)
        assert original.state_dict().keys() == before.keys()
        assert all(torch.equal(value, state[name]) for name, value in original.state_dict().items())
    trained(original, 3)
    assert not torch.allclose(folded.network(images).softmax(1), original(images).softmax(1), rtol=0, atol=1e-3)


class Standardized(nn.Conv2d):
    """A convolution whose weights have mean 0, whatever they are."""

    def forward(self, features):
        return self._conv_forward(features, self.weight - self.weight.mean(), self.bias)


class Layers(nn.Module):
    """Two pairs of convolution and BatchNorm, of which subclasses do something unusual with the second."""

    convolution = nn.Conv2d

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.other = self.convolution(6, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6, affine=False)

    def forward(self, images):
        return self.other(self.second(self.norm(self.first(images)).relu()))


class Twice(Layers):
    def forward(self, images):
        features = self.second(super().forward(images))
        return features + self.other(features)


class UsedBeside(Layers):
    def forward(self, images):
        features = self.second(self.norm(self.first(images)).relu())
        return self.other(features) + features


class Between(Layers):
    def forward(self, images):
        return self.other(self.second(self.norm(self.first(images)).relu()) * 2)


class Tied(Layers):
    def forward(self, images):
        return super().forward(images) + self.second.weight.mean()


class WithStandardized(Layers):
    convolution = Standardized


class Normed(Layers):
    def __init__(self):
        super().__init__()
        self.second = weight_norm(self.second)


class Float32(Layers):
    def forward(self, images):
        return super().forward(images.float())


class Drawn(Layers):
    def forward(self, images):
        return super().forward(images) + torch.rand(())


class WithoutStatistics(Layers):
    def __init__(self):
        super().__init__()
        self.other = nn.BatchNorm2d(6, track_running_stats=False)


FIRST, SECOND = Fold("first", "norm"), Fold("second", "other")


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (Layers, [FIRST, SECOND]),
        (Twice, [FIRST]),
        (UsedBeside, []),
        (Between, [FIRST]),
        (Tied, []),
        (WithStandardized, []),
        (Normed, [FIRST]),
        (Float32, []),
        (Drawn, []),
        (WithoutStatistics, [FIRST]),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)), []),
    ],
)
def test_what_can_be_folded(network, expected):
    original = network()
    folds = find_folds(original, 16)
    assert folds == expected
    if folds:
        folded = FoldedNetwork(trained(original), folds)
        folded.refresh()
        images = torch.randn(2, 3, 20, 24)
        torch.testing.assert_close(folded.network(images), original(images), rtol=1e-4, atol=1e-5)
