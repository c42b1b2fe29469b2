"""Checkpoints of the field's trainers, made to their layouts: recognised, reported, loaded into the encoder alone."""

import functools
import re

import numpy as np
import pytest
import timm
import torch
from segmentation_models_pytorch.encoders import TimmViTEncoder, get_encoder

from maskmatch.common.errors import UserError
from maskmatch.models.encoder_weights import load_encoder_weights
from maskmatch.models.weight_files import read_weights

DEEP, PLAIN, VIT = "resnet50s", "resnet50", "vit_small_patch14_dinov2"


@functools.cache
def encoder_state(name, seed):
    """An encoder's tensors as its pretraining publishes them, without the classifier."""
    torch.manual_seed(seed)
    weights = timm.create_model(name).state_dict()
    return {key: tensor for key, tensor in weights.items() if not key.startswith("fc.")}


def prefixed(prefix, weights):
    return {prefix + key: tensor for key, tensor in weights.items()}


def with_heads(encoder_prefix, weights, *heads):
    return prefixed(encoder_prefix, weights) | {f"module.{head}": torch.zeros(3, 4) for head in heads}


def unimatch(name, seed=1):
    """supervised.py and unimatch.py: DeepLabV3+ with head, reduce, fuse and classifier beside the backbone."""
    heads = ("head.b0.0.weight", "reduce.0.weight", "fuse.0.weight", "classifier.weight", "classifier.bias")
    return {
        "model": with_heads("module.backbone.", encoder_state(name, seed), *heads),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "params": [0]}]},
        "epoch": 79,
        "previous_best": np.float64(76.5),  # what their evaluation returns
    }


def unimatch_v2(name, seed=1):
    """unimatch_v2.py: DPT on DINOv2; the moving average stands beside the model."""
    heads = ("head.projects.0.weight", "head.scratch.output_conv.weight")
    vit = encoder_state(name, seed + 1) | {"mask_token": torch.zeros(1, 384)}
    average = encoder_state(name, seed) | {"mask_token": torch.zeros(1, 384)}
    return {
        "model": with_heads("module.backbone.", vit, *heads),
        "model_ema": with_heads("module.backbone.", average, *heads),
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 59,
        "previous_best": np.float64(86.0),
        "previous_best_ema": np.float64(86.5),
        "best_epoch": 50,
        "best_epoch_ema": 51,
    }


def u2pl(name, seed=1, heads=("decoder.aspp.conv1.0.weight", "decoder.representation.0.weight", "auxor.conv.weight")):
    """train_semi.py: model and teacher, each with encoder, decoder and, in U2PL, more heads."""
    return {
        "epoch": 200,
        "model_state": with_heads("module.encoder.", encoder_state(name, seed + 1), *heads),
        "optimizer_state": {"state": {}, "param_groups": []},
        "teacher_state": with_heads("module.encoder.", encoder_state(name, seed), *heads),
        "best_miou": np.float64(0.79),
    }


def augseg(name, seed=1):
    return u2pl(name, seed, heads=("decoder.aspp.conv1.0.weight", "decoder.classifier.weight"))


def bare(name, seed=1):
    return encoder_state(name, seed) | {"fc.weight": torch.zeros(1000, 4), "fc.bias": torch.zeros(1000)}


LAYOUTS = {
    unimatch: "model of a UniMatch checkpoint, epoch 79",
    u2pl: "teacher_state of a U2PL checkpoint, epoch 200",
    augseg: "teacher_state of an AugSeg checkpoint, epoch 200",
    bare: "",
}


@pytest.fixture(scope="module")
def encoders():
    """One of each stem; tests load over what is in it."""
    return {DEEP: get_encoder(f"tu-{DEEP}", weights=None), PLAIN: get_encoder(PLAIN, weights=None)}


@pytest.mark.parametrize(
    ("layout", "name", "stem"),
    [
        *((layout, DEEP, "deep stem") for layout in LAYOUTS),
        *((layout, PLAIN, "torchvision's stem") for layout in (unimatch, bare)),
    ],
)
def test_resnets_of_both_stems(encoders, layout, name, stem, tmp_path):
    torch.save(layout(name), tmp_path / "best.pth")
    encoder = encoders[name]
    report = load_encoder_weights(encoder, name, str(tmp_path / "best.pth"))
    assert LAYOUTS[layout] in report and stem in report and "left over" in report and "\n" not in report
    tensors = (encoder.model if name == DEEP else encoder).state_dict()
    expected = encoder_state(name, seed=1)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_the_moving_average_of_unimatch_v2(tmp_path):
    torch.save(unimatch_v2(VIT), tmp_path / "best.pth")
    encoder = TimmViTEncoder(VIT, pretrained=False)
    report = load_encoder_weights(encoder, VIT, str(tmp_path / "best.pth"))
    assert "model_ema of a UniMatch V2 checkpoint, epoch 59" in report
    expected = encoder_state(VIT, seed=1)
    for key, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


def test_the_other_stem_is_refused(encoders, tmp_path):
    torch.save(u2pl(DEEP), tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"its stem is deep .*--model.encoder tu-resnet50s") as error:
        load_encoder_weights(encoders[PLAIN], PLAIN, str(tmp_path / "best.pth"))
    assert LAYOUTS[u2pl] in str(error.value)


def test_other_objects_in_a_checkpoint_are_refused(tmp_path):
    torch.save(unimatch(DEEP) | {"args": re.compile("x")}, tmp_path / "best.pth")
    with pytest.raises(UserError, match="cannot be read"):
        read_weights(tmp_path / "best.pth", "model.encoder_weights")
