"""What is written does what the trained model does, at every size, and says what it is."""

import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from maskmatch import load
from maskmatch.commands.export import main
from maskmatch.config import Config, ModelConfig
from maskmatch.inference import deployment as exporting
from maskmatch.inference.trained_model import TrainedModel
from maskmatch.models import build_student

pytestmark = pytest.mark.skipif(torch.__version__ < exporting.OLDEST_TORCH, reason="torch's exporter is too old")
SIZES = [(1, 32, 32), (3, 112, 48), (1, 2, 2), (2, 100, 100), (1, 90, 130), (2, 16, 3), (1, 2, 200), (1, 33, 31)]


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


def logits(student, images):
    """The trained model's, written out: padded as `predict` does it."""
    height, width = images.shape[2:]
    rows, columns = student.padded_size(height), student.padded_size(width)
    inputs = images.new_zeros((len(images), 3, rows, columns), dtype=torch.float32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (student.mean, student.std))
    inputs[:, :, :height, :width] = (images / 255 - mean) / std
    with torch.no_grad():
        coarse = student.network.eval()(inputs)
    upsampled = F.interpolate(coarse, (rows, columns), mode="bilinear", align_corners=student.align_corners)
    return upsampled[:, :, :height, :width]


def assert_same_labels(found, expected):
    """But for ties: where they differ, the two best logits are equal within the tolerance."""
    best = found.topk(2, 1).values
    differ = found.argmax(1) != torch.as_tensor(expected)
    assert (best[:, 0] - best[:, 1])[differ].lt(2e-4).all()


def random_images(batch, height, width):
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_onnx(copy, onnx_file, size):
    import onnxruntime

    images = random_images(*size)
    (found,) = onnxruntime.InferenceSession(onnx_file).run(["logits"], {"images": images.numpy()})
    model = load(copy)
    np.testing.assert_allclose(found, logits(model.student, images), rtol=1e-4, atol=1e-4)
    assert_same_labels(torch.from_numpy(found), model.predict(images).labels)


@pytest.mark.parametrize("size", SIZES)
def test_torch_export(copy, torch_file, size):
    images = random_images(*size)
    found = torch.export.load(torch_file).module()(images)
    model = load(copy)
    torch.testing.assert_close(found, logits(model.student, images), rtol=1e-4, atol=1e-4)
    assert_same_labels(found, model.predict(images).labels)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 4096, 2), (1, 2, 4095), (1, 1500, 2101)])
def test_large_images(copy, onnx_file, torch_file, size):
    images, student = random_images(*size), load(copy).student
    expected = logits(student, images)
    for kind, file in (("onnx", onnx_file), ("torch_export", torch_file)):
        torch.testing.assert_close(exporting._runner(kind, file)(images), expected, rtol=1e-4, atol=1e-4)


def test_metadata(onnx_file, torch_file):
    import onnx

    found = {prop.key: prop.value for prop in onnx.load(onnx_file).metadata_props}
    extra = {"metadata.json": ""}
    torch.export.load(torch_file, extra_files=extra)
    same = json.loads(extra["metadata.json"])
    assert json.loads(found["class_names"]) == same["class_names"] == ["field", "meadow", "town"]
    assert json.loads(found["palette"]) == same["palette"] == ["#ff0000", "#00ff00", "#0000ff"]
    assert json.loads(found["size_multiple"]) == same["size_multiple"] == 1
    assert json.loads(found["min_size"]) == same["min_size"] == 2


NETWORKS = [
    *((kind, "unet", "tu-test_resnet") for kind in ("torch_export", "onnx")),  # takes any size
    *((kind, "upernet", "tu-test_resnet") for kind in ("torch_export", "onnx")),  # pools to a few bins
    *((kind, "pan", "tu-test_resnet") for kind in ("torch_export", "onnx")),  # its coarsest features are smaller still
    ("onnx", "segformer", "tu-test_resnet"),
    ("torch_export", "dpt", "tu-test_vit"),  # resizes its position embedding
    ("onnx", "fpn", "tu-test_convnext"),  # normalises in another layout
    ("torch_export", "manet", "tu-tf_efficientnet_lite0"),  # pads by the size of its features
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "arch", "encoder"), NETWORKS)
def test_architectures(kind, arch, encoder, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
    config = Config(model=ModelConfig(arch, encoder))
    torch.manual_seed(0)
    student = build_student(config.model, 3)
    student.network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    model = TrainedModel(
        tmp_path, tmp_path / "step_1", "teacher", config, student, tuple("abc"), np.zeros((3, 3), np.uint8)
    )
    file = tmp_path / {"onnx": "model.onnx", "torch_export": "model.pt2"}[kind]
    exporting.write(model, kind, file)
    run = exporting._runner(kind, file)
    multiple, least = student.size_multiple, student.min_size
    for height, width in [(2, 2), (least, least + multiple), (least + 1, 3), (100, 100), (90, 130), (257, 31)]:
        images = random_images(1, height, width)
        expected = logits(student, images)
        torch.testing.assert_close(run(images), expected, rtol=1e-4, atol=1e-4)
        assert_same_labels(expected, model.predict(images).labels)


def test_what_the_exporter_assumes_is_tried_at_every_size():
    """One assumption that is true though the exporter cannot prove it, and one that is not."""

    class Assumes(torch.nn.Module):
        def __init__(self, limit):
            super().__init__()
            self.limit = limit

        def forward(self, images):
            side = images.shape[2]
            torch._check(side * side % 4 < self.limit)
            return images * 2

    height, width = (torch.export.Dim(name, min=2, max=8192) for name in ("height", "width"))
    for limit, error in ((2, nullcontext()), (1, pytest.raises(RuntimeError, match="assertion"))):
        program = torch.export.export(
            Assumes(limit),
            (torch.zeros(1, 3, 6, 8188),),
            dynamic_shapes={"images": {2: height, 3: width}},
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        with error:
            exporting._prove_assertions(program)
            assert not program.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default)


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


def test_an_older_torch_is_told_in_a_line(copy, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "OLDEST_TORCH", "99.1")
    assert main([str(copy), "--format", "torch_export", "--output", str(copy / "other.pt2")]) == 2
    expected = f"format torch_export: expected torch 99.1 or newer, for its exporter, got {torch.__version__}"
    assert expected in capsys.readouterr().err and not (copy / "other.pt2").exists()
