"""What an installation is made of and runs on: for a bug report, and beside the results of a run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path

import torch

from maskmatch import ops
from maskmatch.common.text_files import write_text
from maskmatch.common.version import __version__
from maskmatch.config import DataConfig
from maskmatch.data.listing.lists import located

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "triton": "triton",
    "segmentation_models_pytorch": "segmentation_models_pytorch",
    "timm": "timm",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "safetensors": "safetensors",
}
"""What to name the version of, and the module that it is imported as."""
DALI_PREFIX = "nvidia-dali-cuda"  # followed by the CUDA version it was built for


def environment() -> dict[str, dict[str, str]]:
    """Names and values by section: versions, operators, devices, platform."""
    return {
        "versions": _versions(),
        "operators": _operators(),
        "devices": _devices(),
        "platform": _platform(),
    }


def _versions() -> dict[str, str]:
    dali = sorted({name for name in _distributions() if name.startswith(DALI_PREFIX)}) or ["DALI"]
    packages = PACKAGES | dict.fromkeys(dali, "nvidia.dali")
    found = {package: version_of(package, module) or "not installed" for package, module in packages.items()}
    return {"maskmatch": __version__} | found


def version_of(package: str, module: str) -> str | None:
    """Version of a package by its metadata or, where it lies on the path without them, by what its module says.

    None where it is not there at all.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        pass
    try:
        return str(getattr(import_module(module), "__version__", "unknown"))
    except ModuleNotFoundError:
        return None
    except Exception as error:  # whatever a package that is broken raises
        return f"cannot be imported: {type(error).__name__}"


def _distributions() -> list[str]:
    return [distribution.metadata["Name"] or "" for distribution in metadata.distributions()]


def _operators() -> dict[str, str]:
    return {name.replace("_", " "): _plain(value) for name, value in ops.info().items()}


def _plain(value: object) -> str:
    """`key: value` pairs and lists as they are read, anything else as it prints."""
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple | set):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _devices() -> dict[str, str]:
    devices = {"CPU": f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()} in torch"}
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices["cores"] = f"{usable} usable of {os.cpu_count()}"
    devices["threads"] = (
        f"{torch.get_num_threads()} in torch, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}"
    )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices[f"cuda:{index}"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, "
            f"compute capability {properties.major}.{properties.minor}"
        )
    if not torch.cuda.is_available():
        devices["cuda"] = "no usable device"
    devices["CUDA of torch"] = torch.version.cuda or "built without"
    devices["torch's CUDA architectures"] = " ".join(torch.cuda.get_arch_list()) or "none"
    return devices


def _cpu_name() -> str:
    """The processor's name; on Linux `platform` does not know it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _platform() -> dict[str, str]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def write_environment(folder: Path) -> None:
    """environment.json: versions and devices of the process that trained last, and the folder that it ran in."""
    found = environment() | {"training": {"folder": os.getcwd()}}
    write_text(folder / "environment.json", json.dumps(found, indent=1) + "\n")


def data_of(run: Path, config: DataConfig) -> DataConfig:
    """A run's data options with the relative paths in them as they were meant where it was trained.

    They stay as they are where that folder is this one, is gone, or was not recorded.
    """
    try:
        folder = Path(json.loads((run / "environment.json").read_text())["training"]["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return config
    return config if folder == Path.cwd() else located(config, folder)
