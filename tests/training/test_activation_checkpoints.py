"""Activation checkpointing changes what is kept, and nothing else."""

import copy

import pytest
import torch

from maskmatch.config import ModelConfig
from maskmatch.models import build_student
from maskmatch.training.activation_checkpoints import checkpoint_activations


@pytest.mark.parametrize(("arch", "encoder", "blocks"), [("DeepLabV3Plus", "resnet18", 8), ("DPT", "tu-test_vit3", 1)])
def test_gradients_and_statistics_are_those_without(arch, encoder, blocks):
    torch.manual_seed(0)
    plain = build_student(ModelConfig(arch, encoder), 3).network.train()
    checkpointed = copy.deepcopy(plain)
    assert checkpoint_activations(checkpointed) >= blocks
    images = torch.randn(2, 3, 64, 64)
    kept = []
    for network in (plain, checkpointed):
        stored = 0

        def pack(tensor):
            nonlocal stored
            stored += tensor.numel()
            return tensor

        torch.manual_seed(1)  # of the dropout
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(images).square().mean()
        kept.append(stored)
        loss.backward()
    assert kept[1] < 0.8 * kept[0]
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)  # DPT has some that are unused
    assert plain.state_dict().keys() == checkpointed.state_dict().keys()
    for (name, a), b in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_a_single_layer_is_not_worth_it():
    assert checkpoint_activations(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.ReLU())) == 0
