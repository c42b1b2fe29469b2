"""The command line: dataclasses as options, YAML files as defaults, mistakes as one line and exit code 2."""

from __future__ import annotations

import codecs
import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import yaml
from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from maskmatch.config import NOT_OF_THE_RUN, Config, validate
from maskmatch.errors import UserError
from maskmatch.signals import StopError
from maskmatch.text_files import read_text

if TYPE_CHECKING:
    from maskmatch.evaluation.inference import Inference
    from maskmatch.trained import TrainedModel

EXIT_USER_ERROR = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: SIGTERM or SIGINT came, all is saved, --resume goes on
EXIT_INTERRUPTED = 130  # as the shell reports SIGINT
EXIT_NOBODY_READS = 141  # as the shell reports SIGPIPE
SAVES_MEMORY = "`maskmatch.train --dry_run` says which switches save how much; evaluate and predict have --mode slide"


class Parser(ArgumentParser):
    """An ArgumentParser whose errors are one line that names the option, what was expected and what was got."""

    file: Path | None = None
    """What is read where it is no command line; a mistake in it is a UserError, for the caller to report."""

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **options: Any) -> Namespace:
        """As jsonargparse's, of a file that is read as every text of a user."""
        if not Path(path).is_file():
            return super().parse_path(path, *args, **options)
        return self.parse_string(read_text(Path(path), "a YAML file"), os.path.basename(path), *args, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [option for action in self._actions for option in action.option_strings]
        line = one_line(message, options)
        if self.file:
            raise UserError(f"{self.file}: {line}") from ex
        print(f"{self.prog}: error: {line}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def config_parser(prog: str, description: str) -> Parser:
    """The options that commands share: --config, and every part of Config."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument("--config", action="config", help="YAML file of options; those on the command line win.")
    parser.add_class_arguments(Config, skip={*NOT_OF_THE_RUN, "fused", "init_from"})
    parser.add_argument(
        "--fused",
        action=ActionYesNo(yes_prefix="", no_prefix="no-"),
        default=Config.fused,
        help="Use the compiled operators (default); --no-fused takes their plain PyTorch definition.",
    )
    return parser


def train_parser() -> Parser:
    """The options of `maskmatch.train`: every field of Config."""
    parser = config_parser(
        "maskmatch.train",
        "Train a segmentation network on few labelled and many unlabelled images with MaskMatch.",
    )
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="Run, checkpoint or file of weights whose whole network to start from; the classes may be others.",
    )
    parser.add_argument(
        "--dry_run",
        action=ActionYesNo(yes_prefix="", no_prefix="no-"),
        default=Config.dry_run,
        help="Print what memory a training step will need, and which switches would save how much; then leave.",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=Config.profile,
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
    parser.add_argument(
        "--flip",
        action=ActionYesNo(yes_prefix="", no_prefix="no-"),
        default=False,
        help="Average with the mirrored image.",
    )


def inference_of(options: dict[str, Any], model: TrainedModel) -> Inference:
    """The options of `add_inference_options`; UserError where they cannot be."""
    from maskmatch.evaluation.inference import Inference

    window = None if options["mode"] == "whole" else options["window"] or model.crop_size
    return Inference(options["mode"], window, tuple(options["scales"]), options["flip"])


def read_config(path: Path) -> Config:
    """A run's config.yaml, checked like a command line; what an older run did not know has its default.

    Raises UserError where it cannot be read, or holds what is no option.
    """
    parser = train_parser()
    parser.file = path
    try:
        content = yaml.safe_load(read_text(path, "a run's configuration"))
    except yaml.YAMLError as error:
        raise UserError(f"expected a run's configuration, got {' '.join(str(error).split())}: {path}") from error
    if not isinstance(content, dict):
        raise UserError(f"expected a run's configuration, got no options: {path}")
    config = Config(**_options(parser, parser.parse_object(content)))
    validate(config)
    return config


def parse_train(argv: Sequence[str]) -> Config:
    """The validated configuration of a training run; exits with code 2 where the command line is wrong."""
    config = Config(**parse(train_parser(), argv))
    on_command_line = any(argument.split("=")[0] == "--data.loader" for argument in argv)
    config.loader_from_file = config.data.loader == "dali" and not on_command_line
    validate(config)
    return config


def parse(parser: Parser, argv: Sequence[str]) -> dict[str, Any]:
    """The options of a command line, with the data set's own YAML file below them; exits with code 2 on a mistake."""
    return _options(parser, parser.parse_args(_with_config_of_data(_bracket_lists(list(argv)))))


def _options(parser: Parser, namespace: Namespace) -> dict[str, Any]:
    namespace.pop("config", None)
    options: dict[str, Any] = parser.instantiate(namespace).as_dict()
    return options


def config_folder() -> Path:
    """Where the YAML files are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


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


def one_line(message: str, options: list[str]) -> str:
    """A parser's message as one line, with the nearest option where one was misspelt."""
    message = re.sub(r"\s+", " ", message).strip()
    if unknown := re.match(r"unrecognized arguments: (\S+)", message, re.IGNORECASE):
        return _unknown(unknown.group(1).split("=")[0], options)
    if unknown := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown(f"--{unknown.group(1)}.{unknown.group(2)}", options)
    if wrong := re.match(
        r'Parser key "([\w.]+)": (.*?)\.? (?:Got value|Given value type: .* Given value): (.*)', message
    ):
        name, problem, value = wrong.groups()
        if literal := re.search(r"Literal\[(.*?)\]", problem):
            expected = "one of " + literal.group(1).replace("'", "")
        else:
            types = re.findall(r"Expected an? (?:<class '(\w+)'>|(\w+))", problem)
            expected = " or ".join(a or b for a, b in types).replace("NoneType", "null") or problem
            if expected.startswith("list"):
                expected += ", such as [a] or [a,b]"
        return f"{name}: expected {expected}, got {value}"
    return re.sub(r'^Parser key "([\w.]+)":', r"\1:", message)


def _unknown(name: str, options: list[str]) -> str:
    if not name.startswith("-"):
        return f"unexpected argument {name}; options begin with --"
    near = difflib.get_close_matches(name, options, n=1)
    return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else "; see --help")


def _bracket_lists(argv: list[str]) -> list[str]:
    """`96,128` -> `[96,128]`: lists and sizes need no quotes on the command line."""
    return [re.sub(r"^((?:--[\w.]+=)?)([\d.]+(?:,[\d.]+)+)$", r"\1[\2]", argument) for argument in argv]


def _with_config_of_data(argv: list[str]) -> list[str]:
    """Put the data set's own YAML file first where --data.name is given and --config is not."""
    if any(argument.split("=")[0] == "--config" for argument in argv):
        return argv
    for i, argument in enumerate(argv):
        name = argument[len("--data.name=") :] if argument.startswith("--data.name=") else None
        if argument == "--data.name" and i + 1 < len(argv):
            name = argv[i + 1]
        if name and (config_folder() / f"{name}.yaml").is_file():
            return ["--config", str(config_folder() / f"{name}.yaml"), *argv]
    return argv
