"""L_r against its formula, and that nothing of it is left in the network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskmatch.common.errors import UserError
from maskmatch.config import AblationConfig, MethodConfig
from maskmatch.method import DIVISORS, MaskMatch
from maskmatch.method.reconstruction import head_for, with_head
from maskmatch.ops import patch_mask

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Network(nn.Module):
    """Encoder, decoder and head, as the networks of segmentation_models.pytorch."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 4, stride=4)
        self.decoder = nn.Conv2d(8, 6, 3, padding=1)
        self.segmentation_head = nn.Sequential(nn.Conv2d(6, 4, 1), nn.Identity())

    def forward(self, images):
        return self.segmentation_head(torch.relu(self.decoder(self.encoder(images))))


@pytest.fixture
def parts():
    torch.manual_seed(0)
    network = Network()
    return network, head_for(network)


def method(ablation=None, **options):
    defaults = {"warmup_steps": 0, "ramp_steps": 0, "patch_size": 8, "mask_ratio": 0.5}
    variant = AblationConfig(**{"reconstruction": True} | (ablation or {}))
    return MaskMatch(MethodConfig(**{**defaults, **options}, ablation=variant), mean=MEAN, std=STD)


def normalized(images):
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, STD))
    return (images.double() / 255 - mean) / std


@pytest.mark.parametrize("view", ["weak", "strong"])
def test_loss(parts, batch, view):
    network, head = parts
    matching = method({"masked_view": view})
    branch = matching.branch("loss_r", batch, None)
    (logits,) = matching.logits(with_head(network, head), [branch])
    loss = matching.loss(logits, branch, dict(zip(DIVISORS, matching.divisors(batch), strict=True))["loss_r"])

    images = getattr(batch, view)
    _, grid = patch_mask(images, 8, mask_ratio=0.5, seeds=batch.seeds, mean=MEAN, std=STD)
    hidden = F.interpolate(grid[:, None].double(), scale_factor=8)[:, 0, :32, :40] * batch.valid
    masked = normalized(images) * (1 - F.interpolate(grid[:, None].double(), scale_factor=8)[:, :, :32, :40])
    features = copy.deepcopy(network).double()
    features = torch.relu(features.decoder(features.encoder(masked)))
    painted = F.interpolate(copy.deepcopy(head).double()(features), (32, 40), mode="bilinear", align_corners=False)
    errors = (painted - normalized(images)).square().mean(1)
    expected = (errors * hidden).sum() / hidden.sum()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)

    loss.backward()
    assert (
        network.encoder.weight.grad.any() and network.decoder.weight.grad.any() and head.convolution.weight.grad.any()
    )
    assert not network.segmentation_head[0].weight.grad.any()


def test_the_network_stays_what_it_is(parts):
    network, head = parts
    names, images = list(network.state_dict()), torch.randn(2, 3, 16, 16)
    logits = network(images)
    both = with_head(network, head)(images)
    assert both.shape[1] == logits.shape[1] + 3
    assert torch.equal(both[:, :4], logits)
    assert list(network.state_dict()) == names and torch.equal(network(images), logits)


def test_all_else_is_shared():
    """Weights of the network's own, and modules that it also knows by another way, as well."""

    class Listed(Network):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.register_buffer("offset", torch.zeros(4, 1, 1))
            self.layers = [self.encoder, self.decoder]

        def forward(self, images):
            encoder, decoder = self.layers
            return self.segmentation_head(decoder(encoder(images)) * self.scale)

    network = Listed()
    head = head_for(network)
    both = with_head(network, head)
    mine = {id(tensor) for tensor in (*network.parameters(), *network.buffers(), *head.parameters())}
    assert {id(tensor) for tensor in (*both.parameters(), *both.buffers())} == mine
    both(torch.randn(1, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in (*network.parameters(), *head.parameters()))


def test_the_other_losses_do_not_see_it(parts, batch):
    network, head = parts
    with_it, without = method(), method({"reconstruction": False})
    branch = without.branch("loss_x", batch, None)
    divisor = without.divisors(batch)[0]
    losses = [
        with_it.loss(with_head(network, head)(branch.images), branch, divisor),
        without.loss(network(branch.images), branch, divisor),
    ]
    torch.testing.assert_close(*losses)


def test_in_the_place_of_lcr():
    assert list(method(lcr=False).ramp_up.weights(0)) == ["loss_x", "loss_u", "loss_r"]
    assert method({"lambda_r": 0.3}).ramp_up.weights(0)["loss_r"] == 0.3
    assert "loss_r" not in method({"reconstruction": False}).ramp_up.weights(0)
    assert "loss_r" not in method(warmup_steps=1).ramp_up.weights(0)


def test_a_network_without_a_segmentation_head_is_refused():
    with pytest.raises(UserError, match="segmentation_head"):
        head_for(nn.Conv2d(3, 3, 1))
