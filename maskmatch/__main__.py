"""`maskmatch COMMAND ...`, the same as `python -m maskmatch.COMMAND ...`."""

from __future__ import annotations

import difflib
import importlib
import sys

COMMANDS = {
    "plan": "choose the settings of a training from a folder of images and masks",
    "train": "train a student and its teacher",
    "evaluate": "measure what a run has learned",
    "predict": "masks for images, folders and videos",
    "report": "one page to show, on one run or on several",
    "export": "one file to deploy, ONNX or torch.export",
    "check_data": "decode a whole data set and say what is wrong with it",
    "split": "choose which images to label, or pretend that few are labelled",
    "info": "versions, backends and devices, for a bug report",
}


def main() -> int:
    """Hand over to the command; returns its exit code."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: maskmatch COMMAND [options]\n")
        for name, purpose in COMMANDS.items():
            print(f"  {name:<11} {purpose}")
        return 0
    name = sys.argv[1]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(COMMANDS)}"
        print(f"error: unknown command {name}{hint}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"maskmatch.commands.{name}").main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
