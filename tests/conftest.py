"""Shared by all tests: real data where there is some, and a cache that is not the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for benchmarks/; behind the maskmatch that is tested

settings.register_profile("repeatable", derandomize=True, deadline=None)  # the same command, the same examples
settings.register_profile("search", deadline=None)  # HYPOTHESIS_PROFILE=search looks for new ones
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """The built-in data set is drawn once a session, into a folder of its own; subprocesses find it too."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def refusal(capsys):
    """Call a command line's `main` with options that it must refuse; returns its one line of error."""

    def call(main, *options):
        try:
            code = main(list(map(str, options)))
        except SystemExit as stop:
            code = stop.code
        error = capsys.readouterr().err.strip()
        assert code == 2, error
        assert "Traceback" not in error
        assert len(error.splitlines()) == 1, error
        return error

    return call


WITHOUT_METADATA = """
from importlib.metadata import MetadataPathFinder

find = MetadataPathFinder.find_distributions
names = {"maskmatch", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow"}
MetadataPathFinder.find_distributions = lambda context: [] if context.name in names else find(context)
"""


@pytest.fixture(scope="session")
def without_metadata(tmp_path_factory):
    """Start Python where some packages have no metadata, as where they lie on PYTHONPATH and are not installed."""
    folder = tmp_path_factory.mktemp("sitecustomize")
    (folder / "sitecustomize.py").write_text(WITHOUT_METADATA)

    def call(*arguments):
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)

    return call


@pytest.fixture(scope="session")
def test_data():
    """Folder of real images and weights that cannot be part of the project."""
    folder = os.environ.get("MASKMATCH_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MASKMATCH_TEST_DATA names no folder with real data")
    return Path(folder)


@pytest.fixture(scope="session")
def camvid(test_data):
    return test_data / "data" / "camvid"


@pytest.fixture(scope="session")
def write_run():
    """A function that writes a run folder as training does, without the training.

    Its best checkpoint is step_2, its last is step_4; student and teacher of each differ.
    """
    import torch

    from maskmatch.config import Config
    from maskmatch.models import build_student
    from maskmatch.run_files import checkpoint
    from maskmatch.run_files.config_file import write_config

    def write(folder, data, class_names=("field", "meadow", "town"), **found):
        config = Config(data=data)
        config.data.class_names = list(class_names)
        folder.mkdir(parents=True)
        write_config(folder, config, {"num_classes": len(class_names)} | found)
        for step in (2, 4):
            torch.manual_seed(step)
            networks = [build_student(config.model, len(class_names)).network for _ in range(2)]
            for network in networks:  # all classes shall occur
                torch.nn.init.normal_(network.segmentation_head[0].weight, std=2)
            state = checkpoint.State(step=step, optimizer={}, scaler={}, best_miou=0.5, config={})
            checkpoint.save(folder / "checkpoints", *networks, state, best=step == 2, keep=2)
        return folder

    return write


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of six images with masks of three classes and ignored pixels; all.txt and two.txt list them."""
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for index, (height, width) in enumerate([(40, 50), (40, 50), (33, 64), (33, 64), (70, 90), (20, 30)]):
        image = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
        image.save(root / f"images/{index}.png")
        mask = generator.integers(0, 4, (height, width), dtype=np.uint8)
        mask[mask == 3] = 255
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    lines = [f"images/{index}.png masks/{index}.png\n" for index in range(6)]
    (root / "all.txt").write_text("".join(lines))
    (root / "two.txt").write_text("".join(lines[4:]))
    return root


@pytest.fixture(scope="session")
def run(write_run, photos, tmp_path_factory):
    """A run of three classes on `photos`, all of which are in val and two in test; do not change it."""
    from maskmatch.config import DataConfig

    lists = dict.fromkeys(("labeled", "unlabeled", "val"), "all.txt")
    data = DataConfig(name="folder", root=str(photos), test="two.txt", **lists)
    return write_run(tmp_path_factory.mktemp("runs") / "run", data, palette=["#ff0000", "#00ff00", "#0000ff"])
