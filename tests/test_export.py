"""What is written does what the trained model does, at every size, and says what it is."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskmatch import exporting, load
from maskmatch.config import Config, ModelConfig
from maskmatch.export import main
from maskmatch.models import build_student
from maskmatch.trained import TrainedModel

SIZES = [(1, 32, 32), (2, 64, 96), (3, 112, 48)]


@pytest.fixture(scope="module")
def copy(run, tmp_path_factory):
    return shutil.copytree(run, tmp_path_factory.mktemp("exported") / "run", symlinks=True)


@pytest.fixture(scope="module")
def onnx_file(copy):
    pytest.importorskip("onnxruntime")
    assert main([str(copy), "--format", "onnx"]) == 0
    return copy / "model.onnx"


@pytest.fixture(scope="module")
def torch_file(copy):
    assert main([str(copy), "--format", "torch_export"]) == 0
    return copy / "model.pt2"


def logits(run, images):
    """The trained model's, written out."""
    model = load(run)
    with torch.no_grad():
        coarse = model.network((images / 255 - 0.5) / 0.5)
    return F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=True)


def random_images(batch, height, width):
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_onnx(copy, onnx_file, size):
    import onnxruntime

    images = random_images(*size)
    (found,) = onnxruntime.InferenceSession(onnx_file).run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(found, logits(copy, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_torch_export(copy, torch_file, size):
    images = random_images(*size)
    found = torch.export.load(torch_file).module()(images)
    torch.testing.assert_close(found, logits(copy, images), rtol=1e-4, atol=1e-4)


def test_labels_are_those_that_predict_gives(copy, torch_file):
    images = random_images(1, 64, 80)
    labels = torch.export.load(torch_file).module()(images).argmax(1)
    assert (labels == load(copy).predict(images).labels).float().mean() > 0.999


def test_metadata(onnx_file, torch_file):
    import onnx

    found = {prop.key: prop.value for prop in onnx.load(onnx_file).metadata_props}
    extra = {"metadata.json": ""}
    torch.export.load(torch_file, extra_files=extra)
    same = json.loads(extra["metadata.json"])
    assert json.loads(found["class_names"]) == same["class_names"] == ["field", "meadow", "town"]
    assert json.loads(found["palette"]) == same["palette"] == ["#ff0000", "#00ff00", "#0000ff"]
    assert json.loads(found["size_multiple"]) == same["size_multiple"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
@pytest.mark.parametrize("arch", ["unet", "upernet", "pan"])
def test_architectures(arch, kind, tmp_path):
    """One that takes any size, one that pools to a few bins, and one whose coarsest features are smaller still."""
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    config = Config(model=ModelConfig(arch, "tu-test_resnet"))
    torch.manual_seed(0)
    student = build_student(config.model, 3)
    student.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    model = TrainedModel(
        tmp_path, tmp_path / "step_1", "teacher", config, student, tuple("abc"), np.zeros((3, 3), np.uint8)
    )
    file = tmp_path / {"onnx": "model.onnx", "torch_export": "model.pt2"}[kind]
    exporting.write(model, kind, file)
    run = exporting._runner(kind, file)
    multiple, least = exporting.sizes(student)
    for height, width in [(least, least), (least + 5 * multiple, least), (least, 3 * least + multiple)]:
        images = random_images(1, height, width)
        with torch.no_grad():
            coarse = student.network((images / 255 - 0.5) / 0.5)
        expected = F.interpolate(coarse, images.shape[2:], mode="bilinear", align_corners=True)
        torch.testing.assert_close(run(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6), (13, 2)])
def test_adaptive_pooling(size):
    images = torch.randn(2, 3, 7, 11, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool2d(images, size)
    torch.testing.assert_close(exporting._adaptive_average_pool(images, size), expected)


def test_nothing_else_is_left_behind(copy, onnx_file, torch_file):
    assert {path.name for path in copy.iterdir()} == {"checkpoints", "config.yaml", "model.onnx", "model.pt2"}


def test_a_file_that_differs_is_not_kept(run, tmp_path, capsys, monkeypatch):
    """A network that is not what was written."""
    write = exporting.write

    def write_another(model, kind, path):
        write(load(run, weights="student", device="cpu"), kind, path)

    monkeypatch.setattr(exporting, "write", write_another)
    assert main([str(run), "--format", "torch_export", "--output", str(tmp_path / "model.pt2")]) == 2
    error = capsys.readouterr().err.strip()
    assert "differs from the trained model" in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "onnix"], "format: expected one of onnx, torch_export, got onnix"),
        ([], "required: format"),
        (["--format", "onnx", "--output", "model.pt2"], "output: expected a .onnx file for onnx, got model.pt2"),
        (["--format", "torch_export"], "expected no file, or --overwrite, found one"),
        (["--format", "torch_export", "--output", "/proc/model/model.pt2"], "/proc/model"),
        (["--format", "torch_export", "--checkpoint", "gone"], "found no gone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(copy, torch_file, capsys, options, said):
    before = torch_file.read_bytes()
    try:
        code = main([str(copy), *options])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err.strip()
    assert code == 2 and said in error and len(error.splitlines()) == 1, error
    assert torch_file.read_bytes() == before


def test_packages_that_are_missing(run, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([str(run), "--format", "onnx"]) == 2
    assert "pip install 'maskmatch[export]'" in capsys.readouterr().err
