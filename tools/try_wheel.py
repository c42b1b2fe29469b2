"""Installs a wheel or a source distribution into a new environment, and uses it as somebody who has nothing else would.

    python tools/try_wheel.py dist/*.whl [--site FOLDER]

Trains 20 steps, evaluates, predicts, writes a report, and holds the compiled operators to the reference: in an empty
folder, with nothing on PATH but the environment, so without a compiler. What is built from source is built before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

LIMIT = 12_000_000  # bytes of a wheel
LIBRARIES = {"maskmatch/_C.so", "maskmatch/_C_cuda.so"}  # torch's and CUDA's are found where torch is

OPERATORS = """
import os
import warnings

import torch
from maskmatch import ops

torch.manual_seed(0)
logits = torch.randn(2, 21, 17, 19, requires_grad=True)
images = torch.randint(0, 256, (2, 3, 67, 75), dtype=torch.uint8)

def results():
    label, confidence = ops.multiscale_pseudo_label([logits.detach(), logits.detach()[..., :9, :9]], (67, 75))
    loss = ops.upsample_cross_entropy(logits, label.long(), ignore_index=255)
    (gradient,) = torch.autograd.grad(loss, logits)
    return label.float(), confidence, loss, gradient, *ops.patch_mask(images, 8, mask_ratio=0.5, seeds=torch.arange(2))

if "cpp" not in ops.info()["available"]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        results()
    assert len([one for one in said if "using the slow reference" in str(one.message)]) == 1, said
    print("no compiled operators, which is said once")
    raise SystemExit
with ops.use_backend("cpp"):
    compiled = results()
with ops.use_backend("reference"):
    defined = results()
for got, expected in zip(compiled, defined, strict=True):
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
with ops.use_backend("cpp"):
    os.environ["MASKMATCH_CPU_CAPABILITY"] = "none"
    try:
        results()
    except RuntimeError as error:  # thrown in C++
        print(f"the compiled operators agree with the reference, and complain: {str(error).splitlines()[0]}")
"""
SHORT = ["--train.steps", "20", "--train.batch_size", "2", "--train.validate_every", "10", "--data.loader", "torch"]
SMALL = ["--model.encoder", "mobilenet_v2", "--model.encoder_weights", "none"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("package", type=Path, help="a .whl or a .tar.gz")
    parser.add_argument("--site", type=Path, help="a folder of installed packages, in place of those to be fetched")
    arguments = parser.parse_args()
    package = arguments.package.resolve()
    if package.suffix == ".whl":
        look_inside(package)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        python = install(package, folder / "environment", arguments.site)
        use(python, folder)
    print(f"{package.name}: works")


def look_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        libraries = {name for name in packed.namelist() if ".so" in name}
    size = wheel.stat().st_size
    any_platform = wheel.name.endswith("-any.whl")
    if not libraries <= LIBRARIES or any_platform == ("maskmatch/_C.so" in libraries):
        sys.exit(f"{wheel.name}: expected {'nothing compiled' if any_platform else LIBRARIES}, got {sorted(libraries)}")
    if size > LIMIT:
        sys.exit(f"{wheel.name}: expected at most {LIMIT} bytes, got {size}")
    print(f"{wheel.name}: {size / 1e6:.1f} MB, {' and '.join(sorted(libraries)) or 'nothing compiled'}")


def install(package: Path, folder: Path, site: Path | None) -> Path:
    """A new environment's Python, with the package, and what it needs out of `site` or from where pip finds it."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")  # as `python -m venv` does
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    options = []
    if site is not None:
        (found,) = folder.rglob("site-packages")
        (found / "borrowed.pth").write_text(f"{site.resolve()}\n")
        options = ["--no-deps", "--ignore-installed"]  # the package itself may be there too
    if package.suffix != ".whl":
        options.append("--no-build-isolation")  # which would fetch torch once more
        builders = ["setuptools>=77", "ninja", "cmake>=3.20"] + ["torch>=2.10"] * (site is None)
        run(python, "-m", "pip", "install", "--quiet", *builders)
    run(python, "-m", "pip", "install", "--quiet", *options, str(package))
    return python


def use(python: Path, folder: Path) -> None:
    alone = os.environ | {
        "PATH": str(python.parent),
        "CUDA_VISIBLE_DEVICES": "",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    alone.pop("PYTHONPATH", None)

    def maskmatch(command: str, *options: str) -> None:
        run(python, "-m", f"maskmatch.{command}", *options, cwd=folder, env=alone)

    where = subprocess.run(
        [python, "-c", "import maskmatch; print(maskmatch.__file__)"],
        cwd=folder,
        env=alone,
        capture_output=True,
        text=True,
    )
    if not Path(where.stdout.strip()).resolve().is_relative_to(python.parent.parent):
        sys.exit(f"expected the installed package, got {where.stdout or where.stderr}")
    maskmatch("info")
    run(python, "-c", OPERATORS, cwd=folder, env=alone)
    maskmatch("train", "--fused", "--output", "run", *SHORT, *SMALL)
    maskmatch("evaluate", "run", "--split", "val")
    image = next((folder / "cache").rglob("*.png"), None) or next((folder / "cache").rglob("*.jpg"))
    maskmatch("predict", "run", str(image), "--output", "predicted")
    maskmatch("report", "run")
    for made in ("run/report.html", "run/metrics.jsonl", "predicted/labels", "run/evaluation"):
        if not (folder / made).exists():
            sys.exit(f"{made} was not written")


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {' '.join(map(str, command))[:200]}")


if __name__ == "__main__":
    main()
