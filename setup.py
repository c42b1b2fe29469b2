"""Drives CMake with ninja; pyproject.toml says everything else.

MASKMATCH_CUDA=1|0|auto: build the CUDA library, or not, or (the default) where nvcc is found and the installed torch
is a CUDA build. MASKMATCH_CUDA_ARCHS: its architectures, "75 80 86 89 90 100 120" by default. MASKMATCH_COMPILE=0
compiles nothing: a package for every platform, whose operators are those in plain PyTorch. MASKMATCH_REPOSITORY: the
address that README's links into the repository lead to, such as https://github.com/OWNER/NAME; a release has one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
COMPILE = os.environ.get("MASKMATCH_COMPILE", "1") != "0"
REPOSITORY = os.environ.get("MASKMATCH_REPOSITORY", "").rstrip("/")
CUDA_ARCHS = os.environ.get("MASKMATCH_CUDA_ARCHS", "75 80 86 89 90 100 120")


def readme() -> str:
    """README.md for a package index, which has no files beside it: links to files lead to this version's repository.

    Where that has no address they are text, and pictures are left out.
    """
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    version = re.findall(r'__version__ = "(.+)"', (ROOT / "maskmatch/common/version.py").read_text(encoding="utf-8"))[0]

    def absolute(found: re.Match[str]) -> str:
        picture, name, path = found.groups()
        if not REPOSITORY:
            return "" if picture else name
        return f"{picture}[{name}]({REPOSITORY}/{'raw' if picture else 'blob'}/v{version}/{path})"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)", absolute, text)


def torch_folder() -> Path:
    """The installed torch, found without importing it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        sys.exit(
            "maskmatch: torch >= 2.10 must be installed before a build with --no-build-isolation "
            "(pip install 'torch>=2.10')"
        )
    return Path(spec.origin).parent


def torch_is_cuda_build(torch: Path) -> bool:
    version: dict[str, object] = {}
    exec((torch / "version.py").read_text(), version)  # two constants, written by torch's own build
    return bool(version.get("cuda"))


def find_tool(name: str) -> str:
    """A program on PATH or beside this Python, as in a virtual environment that is not activated."""
    scripts = os.pathsep.join(
        [os.environ.get("PATH", ""), sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    )
    found = shutil.which(name, path=scripts)
    if found is None:
        sys.exit(f"maskmatch: {name} is needed to build the operators (pip install {name})")
    return found


def find_nvcc() -> str | None:
    homes = [os.environ.get("CUDACXX"), os.environ.get("CUDA_HOME", "/usr/local/cuda") + "/bin/nvcc"]
    return shutil.which("nvcc") or next((path for path in homes if path and os.access(path, os.X_OK)), None)


def want_cuda(torch: Path) -> bool:
    wanted = os.environ.get("MASKMATCH_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"maskmatch: MASKMATCH_CUDA must be 1, 0 or auto, got {wanted!r}")
    if wanted == "0":
        return False
    missing = []
    if find_nvcc() is None:
        missing.append("nvcc is not found")
    if not torch_is_cuda_build(torch):
        missing.append("the installed torch is not a CUDA build")
    if missing and wanted == "1":
        sys.exit(f"maskmatch: MASKMATCH_CUDA=1, but {' and '.join(missing)}")
    return not missing


def check_compiler() -> None:
    compiler = os.environ.get("CXX", "").split()
    if not any(shutil.which(name) for name in [*compiler[:1], "c++", "g++", "clang++"]):
        sys.exit("maskmatch: a C++17 compiler is needed to build the operators; install g++ or clang++, or set CXX")


class CMakeBuild(build_ext):
    """Builds with CMake and copies the libraries into the package."""

    def build_extension(self, ext: Extension) -> None:
        torch = torch_folder()
        check_compiler()
        cuda = want_cuda(torch)
        # A folder for each torch and choice, so that rebuilds are incremental and never mix. CMake reads LDFLAGS once.
        key = hashlib.sha256(f"{torch} {cuda} {os.environ.get('LDFLAGS', '')}".encode()).hexdigest()[:8]
        build = ROOT / "build" / f"cmake-{key}"
        configure = [
            find_tool("cmake"), "-G", "Ninja", "-S", str(ROOT), "-B", str(build),
            f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}", f"-DTORCH_ROOT={torch}",
            f"-DMASKMATCH_WITH_CUDA={'ON' if cuda else 'OFF'}", f"-DMASKMATCH_CUDA_ARCHS={CUDA_ARCHS}",
        ]  # fmt: skip
        nvcc = find_nvcc()
        if cuda and nvcc:
            configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
        for command in (configure, [find_tool("cmake"), "--build", str(build)]):
            if subprocess.run(command).returncode:
                sys.exit(f"maskmatch: building the operators failed in `{' '.join(command)}`; its output is above")
        in_place = self.inplace or getattr(self, "editable_mode", False)
        target = ROOT / "maskmatch" if in_place else Path(self.build_lib) / "maskmatch"
        target.mkdir(parents=True, exist_ok=True)
        for name in ("_C.so", "_C_cuda.so"):
            if (build / name).exists() and (cuda or name == "_C.so"):
                # Beside and renamed: a running process keeps the old library.
                shutil.copy2(build / name, target / f"{name}.new")
                os.replace(target / f"{name}.new", target / name)
            else:
                (target / name).unlink(missing_ok=True)

    def copy_extensions_to_source(self) -> None:
        """Nothing: build_extension has put them where they belong."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".so"  # not of one Python


class StableWheel(bdist_wheel):
    """Tags the wheel py3-none: the libraries know nothing of Python. It is of any platform if there are none."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


if COMPILE:
    torch_folder()
setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    project_urls={"Repository": REPOSITORY} if REPOSITORY else {},
    packages=[
        *find_packages(include=["maskmatch", "maskmatch.*"]),
        "maskmatch.configs",
        "maskmatch.html_report.templates",
    ],
    package_dir={"maskmatch": "maskmatch", "maskmatch.configs": "configs"},
    package_data={"maskmatch": ["py.typed"], "maskmatch.configs": ["*.yaml"], "maskmatch.html_report.templates": ["*"]},
    ext_modules=[Extension("maskmatch._C", sources=[])] if COMPILE else [],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": StableWheel},
)
