"""What the commands have in common: their options, and how a command ends, a mistake in one line and exit code 2."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from maskmatch.common.errors import UserError
from maskmatch.common.options import EXIT_USER_ERROR, Parser, add_switch
from maskmatch.common.signals import StopError
from maskmatch.config import Config, each_option, validate
from maskmatch.config.rules import at_least, option
from maskmatch.run_files.config_file import add_init_from, config_parser, parse

if TYPE_CHECKING:
    from maskmatch.inference.modes import Inference
    from maskmatch.inference.trained_model import TrainedModel

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: SIGTERM or SIGINT came, all is saved, --resume goes on
EXIT_INTERRUPTED = 130  # as the shell reports SIGINT
EXIT_NOBODY_READS = 141  # as the shell reports SIGPIPE
SAVES_MEMORY = "`maskmatch.train --dry_run` says which switches save how much; evaluate and predict have --mode slide"


@dataclass
class Verbs:
    """What `maskmatch.train` is to do before or in the place of a training; no part of the run."""

    dry_run: bool = option(False)
    profile: int = option(0, at_least(0))  # how many steps
    budget: str | None = option(None)  # of a planned run


def train_parser() -> Parser:
    """The options of `maskmatch.train`: every field of Config, and what it does instead."""
    parser = config_parser(
        "maskmatch.train",
        "Train a segmentation network on few labelled and many unlabelled images with MaskMatch.",
    )
    add_init_from(parser)
    add_budget(parser)
    add_switch(
        parser,
        "--dry_run",
        "Print what memory a training step will need, and which switches would save how much; then leave.",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        help="Time this many steps by phase and trace a few, into the folder of the run, instead of training.",
    )
    parser.add_argument(
        "--output", type=str | None, default=None, help="Folder of the run; default runs/NAME-DATE-TIME."
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        default=Config.resume,
        help="never, auto (the default of a bare --resume: from the last checkpoint in --output) or a checkpoint.",
    )
    return parser


def run_parser(prog: str, description: str, *, device: bool = True, several: bool = False) -> Parser:
    """The options that commands on a run share.

    `device` says whether there is one to choose, `several` whether there may be more runs than one: `runs`, not `run`.
    """
    parser = Parser(prog=prog, description=description)
    if several:
        parser.add_argument("runs", type=str, nargs="+", help="Folders of training runs.")
    else:
        parser.add_argument("run", type=str, help="Folder of a training run.")
    parser.add_argument(
        "--checkpoint",
        type=str,
        default="best",
        help="best (on val, the default), last, the folder of a checkpoint or a file of weights.",
    )
    parser.add_argument(
        "--weights", type=Literal["teacher", "student"], default="teacher", help="Which of the two networks."
    )
    if device:
        parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or cuda:N.")
    return parser


def add_budget(parser: Parser) -> None:
    """The option of what is planned, and of nothing else."""
    parser.add_argument(
        "--budget",
        type=str | None,
        default=None,
        help="Time that a planned training may take, such as 90s, 20m or 2h; default 1h.",
    )


def add_inference_options(parser: Parser) -> None:
    """How an image is shown to the network; `inference_of` reads them."""
    parser.add_argument(
        "--mode",
        type=Literal["whole", "slide", "resize"],
        default="whole",
        help="whole images; overlapping windows of one size; or images resized to that size.",
    )
    parser.add_argument(
        "--window", type=tuple[int, int] | None, default=None, help="Height,width of it; default the training crop's."
    )
    parser.add_argument("--scales", type=list[float], default=[1.0], help="Sizes to average over, such as 0.75,1,1.25.")
    add_switch(parser, "--flip", "Average with the mirrored image.")


def inference_of(options: dict[str, Any], model: TrainedModel) -> Inference:
    """The options of `add_inference_options`; UserError where they cannot be."""
    from maskmatch.inference.modes import Inference

    window = None if options["mode"] == "whole" else options["window"] or model.crop_size
    return Inference(options["mode"], window, tuple(options["scales"]), options["flip"])


def parse_train(argv: Sequence[str]) -> Config:
    """The validated configuration of a training run; exits with code 2 where the command line is wrong."""
    return parse_command(argv)[0]


def parse_command(argv: Sequence[str]) -> tuple[Config, Verbs]:
    """The same, and what to do with it where that is no training."""
    options = parse(train_parser(), argv)
    verbs = Verbs(*(options.pop(verb.name) for verb in fields(Verbs)))
    config = Config(**options)
    on_command_line = any(argument.split("=")[0] == "--data.loader" for argument in argv)
    config.loader_from_file = config.data.loader == "dali" and not on_command_line
    for one in each_option(verbs):
        one.check()
    validate(config)
    return config, verbs


def run(
    command: Callable[[Sequence[str]], Any], argv: Sequence[str] | None = None, interrupted: str = "interrupted"
) -> int:
    """Run a command line; what the user did wrong becomes one line and exit code 2, else the command's own or 0.

    `interrupted` is what Ctrl-C is answered with.
    """
    _print_every_name()
    try:
        try:
            code = command(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `| head -1` has read enough; the rest, and what Python flushes at its end, goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NOBODY_READS
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except OSError as error:  # a full disk, a folder that went away: nothing that a traceback explains better
        where = f" {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return EXIT_USER_ERROR
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        problem = (str(error) or "no memory left").splitlines()[0]
        print(f"error: out of memory: {problem} ({SAVES_MEMORY})", file=sys.stderr)
        return EXIT_USER_ERROR
    except StopError as stop:
        print(f"stopped by {stop}", file=sys.stderr)
        return EXIT_STOPPED
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _print_every_name() -> None:
    """What a terminal cannot show of a name is printed as `stra\\xdf.png`, rather than ending the command."""
    codecs.register_error("printable", _printable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="printable")


def _printable(error: UnicodeError) -> tuple[str, int]:
    """A byte that is no text (which Python keeps as a lone surrogate) by its number, other characters likewise."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    shown = (f"\\x{ord(one) - 0xDC00:02x}" if "\udc80" <= one <= "\udcff" else ascii(one)[1:-1] for one in text)
    return "".join(shown), error.end


def _is_out_of_memory(error: Exception) -> bool:
    """The device's memory, or the machine's as numpy or torch report it."""
    kinds = [kind.__name__ for kind in type(error).__mro__]  # torch is not imported for this
    return "MemoryError" in kinds or "OutOfMemoryError" in kinds or "can't allocate memory" in str(error)
