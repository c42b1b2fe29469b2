"""What `load` returns is what training saved, and predicts alike whatever form the image has."""

import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from maskmatch import load
from maskmatch.common.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)


@pytest.mark.parametrize(("checkpoint", "step"), [("best", 2), ("last", 4)])
@pytest.mark.parametrize("weights", ["teacher", "student"])
def test_the_weights_are_those_of_the_checkpoint(run, checkpoint, step, weights):
    saved = safetensors.torch.load_file(run / f"checkpoints/step_{step}/{weights}.safetensors")
    for name in (checkpoint, run / "checkpoints" / f"step_{step}"):
        loaded = load(run, checkpoint=name, weights=weights).network.state_dict()
        assert all(torch.equal(loaded[key], saved[key]) for key in saved)


def test_best_teacher_is_the_default(run):
    model = load(run)
    saved = safetensors.torch.load_file(run / "checkpoints/step_2/teacher.safetensors")
    assert all(torch.equal(tensor, saved[key]) for key, tensor in model.network.state_dict().items())
    assert model.class_names == ("field", "meadow", "town")
    assert model.palette.tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_a_file_of_weights(run):
    file = run / "checkpoints/step_4/student.safetensors"
    loaded, expected = load(run, checkpoint=file), load(run, checkpoint="last", weights="student")
    assert np.array_equal(*(model.predict(IMAGE).confidence for model in (loaded, expected)))


def test_loading_leaves_the_randomness_alone(run):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    load(run)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture(scope="module")
def model(run):
    return load(run)


def test_prediction_is_the_softmax_of_the_upsampled_logits(model):
    unit = torch.tensor(IMAGE).permute(2, 0, 1)[None] / 255
    inputs = torch.zeros(1, 3, 48, 64)  # 16 divides them
    inputs[:, :, :37, :51] = (unit - 0.5) / 0.5
    with torch.no_grad():
        logits = F.interpolate(model.network(inputs), (48, 64), mode="bilinear", align_corners=True)
    confidence, labels = logits.softmax(1)[0, :, :37, :51].max(0)
    predicted = model.predict(IMAGE)
    assert predicted.labels.dtype == np.uint8 and predicted.confidence.dtype == np.float32
    assert len(np.unique(predicted.labels)) > 1
    assert (predicted.labels == labels.numpy()).mean() > 0.999
    np.testing.assert_allclose(predicted.confidence, confidence, rtol=1e-4)


def test_every_form_of_image(model):
    expected = model.predict(IMAGE)
    tensor = torch.tensor(IMAGE).permute(2, 0, 1)
    turned = Image.fromarray(np.rot90(IMAGE).copy())  # a camera held upright stores it so
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.info["exif"] = exif.tobytes()
    for image in (Image.fromarray(IMAGE), Image.fromarray(IMAGE).convert("RGBA"), turned):
        same = model.predict(image)
        assert isinstance(same.labels, np.ndarray)
        np.testing.assert_array_equal(same.labels, expected.labels)
    for image in (tensor, tensor / 255, (tensor / 255).double()):
        same = model.predict(image)
        assert torch.equal(same.labels, torch.tensor(expected.labels))
        np.testing.assert_allclose(same.confidence, expected.confidence, atol=1e-5)
    assert model.predict(tensor[None].repeat(2, 1, 1, 1)).labels.shape == (2, 37, 51)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (IMAGE.astype(np.float32), r"uint8 \[H, W, 3\], got float32 \[37, 51, 3\]"),
        (IMAGE[..., 0], r"got uint8 \[37, 51\]"),
        (torch.tensor(IMAGE), r"\[3, H, W\].*got torch.uint8 \[37, 51, 3\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "int64"),
        (torch.full((3, 4, 4), 255.0), r"in \[0, 1\], got torch.float32 values up to 255"),
        (Image.new("I;16", (4, 4)), "8 bits"),
        ("image.png", "numpy array, a PIL image or a tensor, got str"),
    ],
    ids=["floats", "gray", "channels last", "integers", "floats to 255", "16 bits", "a path"],
)
def test_no_image(model, image, said):
    with pytest.raises((TypeError, ValueError), match=said):
        model.predict(image)


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy", symlinks=True)


def options(copy, part, **changes):
    content = yaml.safe_load((copy / "config.yaml").read_text())
    content[part] |= changes
    (copy / "config.yaml").write_text(yaml.safe_dump(content))


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


BEST = "checkpoints/step_2"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "config.yaml").unlink(), "expected the folder of a run"),
        (lambda run: (run / "config.yaml").write_text("data: [1, 2"), "expected a run's configuration, got"),
        (lambda run: options(run, "model", arch="pan5"), "model.arch 'pan5' is unknown"),
        (lambda run: options(run, "data", num_classes="six"), "data.num_classes: expected int or null, got six"),
        (lambda run: options(run, "data", invented=1), "unknown option --data.invented"),
        (lambda run: options(run, "data", class_names=None), "data.class_names: expected one name a class, got none"),
        (
            lambda run: options(run, "data", num_classes=2, class_names=["a", "b"], palette=None),
            "a model of 3 classes, but the run's configuration has 2",
        ),
        (lambda run: options(run, "model", encoder="resnet18"), "is not of the run's model.arch and model.encoder"),
        (lambda run: options(run, "data", palette=["red"]), "data.palette: expected 3 colours, one a class, got 1"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "has no checkpoint"),
        (lambda run: (run / "checkpoints/best").unlink(), "has last, step_2, step_4"),
        (lambda run: flip_a_byte(run / BEST / "teacher.safetensors"), "teacher.safetensors is damaged"),
        (lambda run: (run / BEST / "teacher.safetensors").unlink(), "lacks"),
        (lambda run: (run / BEST / "teacher.safetensors").write_bytes(b""), "is damaged"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(copy, damage, said):
    damage(copy)
    with pytest.raises(UserError, match=said) as error:
        load(copy)
    assert "\n" not in str(error.value)


def test_a_run_of_before_sums_and_palettes(copy):
    (copy / BEST / "sha256").unlink()
    content = yaml.safe_load((copy / "config.yaml").read_text())
    del content["data"]["palette"], content["train"]["accumulate"]
    (copy / "config.yaml").write_text(yaml.safe_dump(content))
    assert load(copy).predict(IMAGE).labels.shape == (37, 51)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"checkpoint": "bset"}, "expected best, last or a path, found no bset"),
        ({"weights": "pupil"}, "expected teacher or student, got pupil"),
        ({"device": "tpu"}, "device must be auto, cpu, cuda or cuda:N, got tpu"),
    ],
)
def test_wrong_choices(run, choice, said):
    with pytest.raises(UserError, match=said):
        load(run, **choice)
