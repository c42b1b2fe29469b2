"""`python -m maskmatch.export RUN --format onnx|torch_export`: one file to deploy, checked."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from maskmatch.commands.command_line import run, run_parser
from maskmatch.common.errors import UserError
from maskmatch.common.options import add_switch
from maskmatch.run_files.config_file import parse

DESCRIPTION = (
    "Write the network as one file that takes images, uint8 [N, 3, H, W], RGB, and returns logits, float32 "
    "[N, C, H, W]. Normalisation, padding and upsampling are inside; N, H and W are free. Class names are in its "
    "metadata. It is checked before it gets its name."
)
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
NEEDED = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "torch_export": ()}


def main(argv: Sequence[str] | None = None) -> int:
    """Export what the command line says; returns the exit code."""
    return run(_export, argv)


def _export(argv: Sequence[str]) -> None:
    options = _options(argv)
    kind = options["format"]
    missing = [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"format {kind}: expected {', '.join(missing)} to be installed (pip install 'maskmatch[export]')"
        )
    from maskmatch.inference import deployment
    from maskmatch.inference.trained_model import load

    model = load(options["run"], checkpoint=options["checkpoint"], weights=options["weights"], device="cpu")
    path = _output(options, model.run / f"model{SUFFIXES[kind]}")
    beside = path.with_name(f".{path.stem}.tmp{path.suffix}")
    beside.unlink(missing_ok=True)
    try:
        deployment.write(model, kind, beside)
        difference = deployment.check(model, kind, beside)
        os.replace(beside, path)
    except (UserError, OSError):
        raise
    except Exception as error:  # the exporters and onnxruntime have a family of errors for each part of a network
        network = f"{model.config.model.arch} with {model.config.model.encoder}"
        problem = " ".join(str(error).split())[:200]
        raise UserError(f"format {kind}: {network} cannot be exported for every size: {problem}") from error
    finally:
        beside.unlink(missing_ok=True)
    print(f"written: {path} ({path.stat().st_size / 2**20:.1f} MB), within {difference:.1e} of the trained model")


def _options(argv: Sequence[str]) -> dict[str, Any]:
    parser = run_parser("maskmatch.export", DESCRIPTION, device=False)
    parser.add_argument("--format", type=Literal["onnx", "torch_export"], required=True, help="Of the file.")
    parser.add_argument(
        "--output", type=str | None, default=None, help="File to write; default RUN/model.onnx or RUN/model.pt2."
    )
    add_switch(parser, "--overwrite", "Replace the file if it is there.")
    return parse(parser, argv)


def _output(options: dict[str, Any], default: Path) -> Path:
    from maskmatch.common.text_files import writable_folder

    path = Path(options["output"]) if options["output"] else default
    if path.suffix != default.suffix:
        raise UserError(f"output: expected a {default.suffix} file for {options['format']}, got {path}")
    if path.exists() and not options["overwrite"]:
        raise UserError(f"output: expected no file, or --overwrite, found one: {path}")
    writable_folder(path.parent)
    return path
