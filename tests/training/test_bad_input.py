"""What a user gets wrong ends in one line that says what, with exit code 2, and nothing is overwritten."""

import difflib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from maskmatch.commands.train import main


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.rot", "x"], "unknown option --data.rot; did you mean --data.root?"),
        (["--method.treshold", ".5"], "did you mean --method.threshold?"),
        (["--train.lr", "fast"], "train.lr: expected float, got fast"),
        (["--train.steps", "1.5"], "train.steps: expected int or null, got 1.5"),
        (["--train.steps", "0"], "train.steps must be at least 1, got 0"),
        (["--method.masking", "circle"], "method.masking: expected one of random, block, grid, got circle"),
        (["--method.mask_ratio", "1.2"], "method.mask_ratio must be a number from 0 to 1, got 1.2"),
        (["--method.threshold", "-0.1"], "method.threshold must be a number from 0 to 1, got -0.1"),
        (["--method.scales", "[]"], "method.scales must be a list of positive numbers, got []"),
        (["--data.num_classes", "0"], "data.num_classes must be a number from 1 to 255, got 0"),
        (["--data.crop_size", "0"], "data.crop_size must be positive, got 0"),
        (["--data.crop_size", "-64,64"], "data.crop_size"),
        (["--data.crop_size", "wide"], "data.crop_size: expected int or tuple, got wide"),
        (["--data.crop_size", "40000"], "data.crop_size must be at most 32768, got 40000"),
        (["--data.jitter_strengths", "0.5"], "data.jitter_strengths: expected tuple, such as [a,b,c,d], got 0.5"),
        (["--data.workers", "9999"], "data.workers must be at most 1024, got 9999"),
        (["--method.scales", "[1.0,1e30]"], "method.scales must be at most 16, got [1.0, 1e+30]"),
        (["--method.scales", "[1.0,big]"], "method.scales: expected list of float, got big"),
        (["--train.lr", ".nan"], "train.lr must be finite, got nan"),
        (["--train.weight_decay", "-1"], "train.weight_decay must be at least 0, got -1.0"),
        (["--train.head_lr_multiplier", "-1"], "train.head_lr_multiplier must be at least 0, got -1.0"),
        (["--model.output_stride", "7"], "model.output_stride must be one of 8, 16, 32, got 7"),
        (["--profile", "-1"], "profile must be at least 0, got -1"),
        (["--method", "3"], "method: expected a file of its options, got 3"),
        (["--train.batch_size", "3"], "must be even"),
        (["--train.steps", "5", "--train.epochs", "5"], "exclude each other"),
        (["--train.device", "cuda:99"], "cuda:99"),
        (["--train.device", "tpu9"], "train.device must be auto, cpu, cuda or cuda:N, got tpu9"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["surplus"], "unexpected argument surplus"),
        (["--resume", "/missing/checkpoint"], "/missing/checkpoint"),
        (["--model.encoder", "resnet19"], "resnet1"),
        (["--model.arch", "deeplab4plus"], "deeplabv3plus"),
        (["--model.encoder_weights", "/missing.pth"], "/missing.pth"),
        (["--init_from", "/missing.pth"], "init_from: there is no file /missing.pth"),
        (["--data.crop_size", "70"], "64"),
        (["--method.class_weights", "1,2,3"], "method.class_weights must be one number a class, 6 in all, got 3"),
        (["--method.ohem", "0"], "method.ohem must be a number above 0 and up to 1, got 0"),
        (["--data.name", "folder", "--data.root", "/missing"], "/missing"),
        (
            ["--model.arch", "dpt", "--model.encoder", "tu-test_vit"],
            "method.patch_size must be a multiple of 16, the side of this ViT's tokens, got 8: the nearest is 16",
        ),
        (["--data.labeled", "missing.txt"], "missing.txt"),
        (["--train.branches", "joint"], "train.branches joint would mix"),
        (["--train.compile", "true", "--train.checkpoint_activations", "true"], "exclude each other"),
        (["--profile", "3", "--resume", "auto"], "--profile starts anew, in a folder of its own: leave out --resume"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(refusal, tmp_path, options, said):
    output = tmp_path / "run"
    assert said.lower() in refusal(main, *options, "--output", output).lower()
    assert not output.exists()


def test_a_misspelt_option_of_a_config_file(refusal, tmp_path):
    (tmp_path / "my.yaml").write_text("method:\n  treshold: 0.5\n")
    error = refusal(main, "--config", tmp_path / "my.yaml")
    assert "--method.treshold" in error and "--method.threshold" in error


def test_a_folder_that_holds_a_run_is_not_written_to(refusal, finished_run):
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    error = refusal(main, "--output", finished_run)
    assert str(finished_run) in error and "--resume" in error
    assert {path: path.read_bytes() for path in before} == before


def test_another_run_is_not_resumed(refusal, finished_run):
    config = finished_run / "config.yaml"
    error = refusal(main, "--config", config, "--output", finished_run, "--resume", "--train.seed", 5)
    assert "train.seed" in error and "0" in error and "5" in error


def test_a_run_is_not_resumed_with_other_data(refusal, capsys, folder):
    root, options = folder
    fast = ["--train.steps", "1", "--train.batch_size", "2", "--data.loader", "torch", "--output", str(root / "run")]
    assert main([*options, *fast]) == 0
    (root / "list.txt").write_text("a.jpg a.png\n")
    capsys.readouterr()
    assert "expected the checkpoint's list of 2 labelled images, got 1" in refusal(main, *options, *fast, "--resume")


def test_a_batch_that_batchnorm_cannot_take(refusal, tmp_path):
    options = ["--train.batch_size", "1", "--method.supervised_only", "true", "--data.crop_size", "32"]
    assert "train.batch_size of at least 2, got 1" in refusal(main, *options, "--output", tmp_path / "run")


@pytest.fixture
def folder(tmp_path):
    """A data set of two images that has nothing wrong with it, and the options that train on it."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = generator.integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
        Image.fromarray(generator.integers(0, 3, (80, 80), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "list.txt").write_text("a.jpg a.png\nb.jpg b.png\n")
    lists = [option for part in ("labeled", "unlabeled", "val") for option in (f"--data.{part}", "list.txt")]
    return tmp_path, [
        "--data.name",
        "folder",
        "--data.root",
        str(tmp_path),
        "--data.num_classes",
        "3",
        *lists,
    ]


def test_the_folder_itself_trains(folder):
    root, options = folder
    fast = ["--train.steps", "1", "--train.batch_size", "2", "--data.loader", "torch"]
    assert main([*options, *fast, "--output", str(root / "run")]) == 0


def test_what_may_be_on_purpose_is_said_before_the_first_step(folder, capsys):
    root, options = folder
    (root / "b.gif").write_bytes(b"")
    patterns = ["--data.images", "*.jpg", "--data.masks", "*.png", "--data.labeled", "*.jpg"]
    fast = ["--train.steps", "1", "--train.batch_size", "2", "--data.loader", "torch"]
    assert main([*options, *patterns, *fast, "--output", str(root / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("folder: 2 labelled")
    assert lines[1].startswith("warning: 1 file is not used, as *.jpg (data.images) stands for .jpg here: b.gif")
    assert lines[2].startswith("warning: 2 of 2 images of data.val are labelled too")
    assert lines[2].endswith("a.jpg, b.jpg")


def damage_list(root):
    (root / "list.txt").write_text("")
    return "list.txt"


def damage_missing(root):
    (root / "b.jpg").unlink()
    return "b.jpg"


def damage_truncated(root):
    path = root / "b.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return "b.jpg"


def damage_size(root):
    Image.fromarray(np.zeros((80, 79), np.uint8)).save(root / "b.png")
    return "b.png"


def damage_class(root):
    mask = np.zeros((80, 80), np.uint8)
    mask[3, 4] = 7
    Image.fromarray(mask).save(root / "b.png")
    return "b.png: 7"


@pytest.mark.parametrize("damage", [damage_list, damage_missing, damage_truncated, damage_size, damage_class])
def test_wrong_data(refusal, folder, damage):
    root, options = folder
    words = damage(root).split(": ")
    error = refusal(main, *options, "--output", root / "run")
    assert all(word in error for word in words), error
    assert not (root / "run").exists()


def test_weights_of_another_network(refusal, tmp_path, test_data):
    weights = test_data / "weights" / "tf_efficientnet_lite0.safetensors"
    error = refusal(main, "--model.encoder_weights", weights, "--output", tmp_path / "run")
    assert weights.name in error


@pytest.mark.slow
def test_the_real_command_line(tmp_path):
    """One of the errors above through `python -m` and through the console script's module."""
    for command in (["-m", "maskmatch.train"], ["-m", "maskmatch", "train"]):
        options = ["--method.mask_ratio", "2", "--output", str(tmp_path / "run")]
        done = subprocess.run([sys.executable, *command, *options], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.strip() == "error: method.mask_ratio must be a number from 0 to 1, got 2.0"
    done = subprocess.run([sys.executable, "-m", "maskmatch", "trian"], capture_output=True, text=True)
    assert done.returncode == 2 and difflib.get_close_matches("train", done.stderr.split())
