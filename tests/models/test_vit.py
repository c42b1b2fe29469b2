"""ViT encoders that see the visible patches alone."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.utils.flop_counter import FlopCounterMode

from maskmatch.common.errors import UserError
from maskmatch.config import ModelConfig
from maskmatch.models import build_student, check_patches, from_module
from maskmatch.ops import patch_mask

ENCODERS = {
    "tu-test_vit": 1,
    "tu-vit_small_patch16_dinov3": 5,
}  # and their prefix tokens; the second has rotary positions


@pytest.fixture(scope="module", params=ENCODERS)
def student(request):
    torch.manual_seed(0)
    return build_student(ModelConfig(arch="dpt", encoder=request.param), 4)


def masked(ratio, size=96, patch=32, count=2):
    torch.manual_seed(1)
    images = torch.rand(count, 3, size, size)
    images, grid = patch_mask(images, patch, mask_ratio=ratio, seeds=torch.arange(count))
    return images, (grid, int((~grid[0]).sum()))


def test_nothing_hidden_is_the_ordinary_forward(student):
    network = student.network.eval()
    images, hidden = masked(0.0)
    with torch.no_grad():
        torch.testing.assert_close(network(images, hidden=hidden), network(images), rtol=1e-4, atol=1e-5)


def test_network_is_the_bare_one(student):
    bare = smp.DPT(
        student.network.encoder.name and f"tu-{student.network.encoder.name}", encoder_weights=None, classes=4
    )
    mine = {name: tensor.shape for name, tensor in student.network.state_dict().items()}
    assert mine == {name: tensor.shape for name, tensor in bare.state_dict().items()}


def test_hidden_pixels_reach_nothing(student):
    network = student.network.eval()
    images, hidden = masked(0.5)
    pixels = hidden[0].repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    with torch.no_grad():
        assert torch.equal(
            network(images, hidden=hidden),
            network(torch.where(pixels, torch.randn_like(images), images), hidden=hidden),
        )
        assert not torch.equal(network(images, hidden=hidden), network(images))


def test_tokens_are_those_of_attention_over_the_visible(student):
    """Against the whole model with an attention mask that keeps visible tokens from hidden ones."""
    encoder = copy.deepcopy(student.network.encoder).eval()
    images, (grid, visible) = masked(0.5)
    encoder.model.patch_drop.visible = None
    tokens = grid.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)  # True is hidden
    prefix = encoder.model.num_prefix_tokens
    seen = torch.cat([torch.ones(2, prefix, dtype=torch.bool), ~tokens], 1)
    with torch.no_grad():
        expected = encoder.model.forward_intermediates(
            images, indices=[len(encoder.model.blocks) - 1], intermediates_only=True, attn_mask=seen[:, None, None, :]
        )[0]
        network = copy.deepcopy(student.network).eval()
        captured = []
        network.decoder.register_forward_pre_hook(lambda module, inputs: captured.append(inputs[0][-1]))
        network(images, hidden=(grid, visible))
    shown = ~tokens.view(2, 1, 6, 6)
    torch.testing.assert_close(captured[0], torch.where(shown, expected, 0), rtol=1e-3, atol=1e-4)


def test_gradient_flows_to_every_parameter_of_the_encoder(student):
    network = copy.deepcopy(student.network).train()
    images, hidden = masked(0.7)
    network(images, hidden=hidden).square().sum().backward()
    bare = copy.deepcopy(student.network).train()
    bare(images).square().sum().backward()
    for (name, parameter), (_, other) in zip(network.named_parameters(), bare.named_parameters(), strict=True):
        assert (parameter.grad is None) == (other.grad is None), name
        assert parameter.grad is None or parameter.grad.isfinite().all()
    assert network.encoder.model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_cost_at_70_percent_hidden(student):
    """Multiplications of the encoder, forward and backward, against those of all patches."""
    encoder = student.network.encoder
    images, hidden = masked(0.7, size=320, count=1)
    counted = []
    for chosen in (hidden, None):
        network = copy.deepcopy(student.network)
        network.decoder.forward = lambda features, prefixes: torch.cat([f.flatten() for f in features]).sum()
        network.segmentation_head = torch.nn.Identity()
        with FlopCounterMode(display=False) as counter:
            network(images, hidden=chosen).backward()
        counted.append(counter.get_total_flops())
    assert encoder.model.patch_drop.visible is None
    assert counted[0] <= 0.4 * counted[1]


def test_dinov2_with_patches_of_14_pixels():
    torch.manual_seed(0)
    student = build_student(ModelConfig(arch="dpt", encoder="tu-vit_small_patch14_dinov2"), 4)
    assert (student.token_size, student.size_multiple) == (14, 28)
    images, hidden = masked(0.5, size=84, patch=28)
    logits = student.network(images, hidden=hidden)
    assert logits.shape == (2, 4, 48, 48)


@pytest.mark.parametrize(
    ("patch", "crop", "said"),
    [
        (24, (96, 96), "method.patch_size must be a multiple of 16, .* got 24: the nearest is 32"),
        (8, (96, 96), "got 8: the nearest is 16"),
        (32, (96, 80), "data.crop_size must be a multiple of .* 32, .* got 96,80: the nearest is 96,96"),
        (48, (64, 64), "the nearest is 96,96"),
    ],
)
def test_what_does_not_fit_is_refused(student, patch, crop, said):
    with pytest.raises(UserError, match=said):
        check_patches(student, crop, patch)
    check_patches(student, (96, 192), 32)
    check_patches(from_module(torch.nn.Identity()), crop, patch)


@pytest.mark.slow
def test_compiles_in_one_graph():
    torch.manual_seed(0)
    network = build_student(ModelConfig(arch="dpt", encoder="tu-test_vit"), 4).network.eval()
    images, hidden = masked(0.5)
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
    for options in ({"hidden": hidden}, {}, {"hidden": hidden}):
        torch.testing.assert_close(compiled(images, **options), network(images, **options), rtol=1e-4, atol=1e-4)
