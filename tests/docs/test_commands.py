"""Every command and option that README and docs name is parsed by the real command line, in this process.

A command is a line of a `sh` block, a line behind `$ ` of a `console` block, or a text in backquotes.
None is run here: they take the reader's data, a GPU, a download or hours. What they do is held by the tests of each
command (`tests/commands`, `tests/training`, `tests/benchmarks`); what docs/own-data.md shows was printed by a run.
Python blocks are run by `test_code.py`.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonargparse
import pytest

from maskmatch.__main__ import COMMANDS
from maskmatch.commands.command_line import parse_train
from maskmatch.config import Config, each_option
from maskmatch.config.former import MOVED

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OTHERS = {
    "cat": "the shell's", "sed": "the shell's", "mkdir": "the shell's", "sha256sum": "the shell's",
    "[": "the shell's", "scontrol": "Slurm's", "nvidia-smi": "the driver's",
}  # fmt: skip
"""Programs that are not of this project -> whose."""
PROGRAMS = ("python", "maskmatch", "torchrun", "make", "pip", "ncu", "srun", "timeout", "MASKMATCH_CUDA=1")
WRAPPERS = ("ncu", "srun", "timeout")
"""What stands before a command of ours; only what follows is parsed."""
NOT_OURS = {"--index-url", "--help"}
"""Options that belong to pip and to every command."""
EXAMPLES = {"N": "8", "K": "2", "S": "1", "H,W": "96,96"}
"""What stands in a page for any value -> one."""
LEAST = {
    "evaluate": ["RUN"], "predict": ["RUN", "photo.jpg", "--output", "masks"], "report": ["RUN"],
    "export": ["RUN", "--format", "onnx"], "split": ["--labeled", "20"], "check_data": [], "info": [],
    "run.py": ["ops"], "method_figures.py": ["RUN"],
}  # fmt: skip
"""What a command cannot do without, for an option that a page names alone."""


class ParsedError(Exception):
    """The command line was right, and is not to be done."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the YAML files that the pages show, in which nothing is done that a command line asks for."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN/config.yaml").write_text("train: {steps: 100}\n")
    (tmp_path / "plan.yaml").write_text("train: {steps: 100}\n")
    for page in PAGES:
        for language, text in blocks(page):
            if language == "yaml" and (name := re.match(r"# (\w+\.yaml)\n", text)):
                (tmp_path / name[1]).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block of a page."""
    return re.findall(
        r"^```(\w*)[^\n]*\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def in_backquotes(page: str) -> list[str]:
    """Texts in backquotes outside of blocks; `\\|`, as a table needs it, is `|`."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [found.replace("\\|", "|") for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", " ".join(text.split("\n")))]


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command on a page; of a pipe each command by itself."""
    lines: list[str] = []
    for language, text in blocks(page):
        joined = text.replace("\\\n", " ").splitlines()
        if language == "sh":
            lines += joined
        elif language == "console":
            lines += [line[2:] for line in joined if line.startswith("$ ")]
    lines += [text for text in in_backquotes(page) if text.split(" ")[0] in PROGRAMS and " " in text]
    for line in lines:
        words = shlex.split(line, comments=True)
        while words:
            end = next((i for i, word in enumerate(words) if word in ("|", "&&", ">", ";")), len(words))
            if words[:end] and words[0] != "...":
                yield words[:end]
            words = words[end + 1 :] if end == len(words) or words[end] != ">" else words[end + 2 :]


def readings(words: Sequence[str]) -> Iterator[list[str]]:
    """What a reader may type for `[--option VALUE]`, `A|B`, `...`, `N` and `S`: each choice once."""
    typed: list[str] = []
    for word in words:
        if word.startswith("[--") or (word.endswith("]") and "[" not in word):
            word = word.strip("[]")
        before = typed[-1] if typed else ""
        if word == "...":
            typed += ["1,1.5" if before == "--scales" else "x"] if before.startswith("--") else []
        elif before == "--data.name" and word == "NAME":
            typed.append("folder")
        else:
            word = word.replace(",...", "")
            typed.append(EXAMPLES.get(word, word.removesuffix("...")))
    choices = [word.split("|") if re.fullmatch(r"[\w|.]+", word) else [word] for word in typed]
    for row in range(max(map(len, choices))):
        yield [choice[min(row, len(choice) - 1)] for choice in choices]


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where the command would be refused; it is stopped once its options were read."""
    with monkeypatch.context() as patch:
        try:
            parse(words, patch)
        except ParsedError:
            return
        except SystemExit as refused:
            raise AssertionError(f"refused: {shlex.join(words)}") from refused


def parse(words: list[str], patch: pytest.MonkeyPatch) -> None:
    while words[0] in WRAPPERS or re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        first = next(i for i, word in enumerate(words[1:], 1) if word in PROGRAMS)
        words = words[first:]
    program, *options = words
    if options == ["-m"]:
        return
    if program == "torchrun":
        arguments = importlib.import_module("torch.distributed.run").get_args_parser().parse_args(options)
        assert arguments.module
        parse(["python", "-m", arguments.training_script, *arguments.training_script_args], patch)
    elif program == "maskmatch" or (options[:1] == ["-m"] and options[1].startswith("maskmatch.")):
        name, *options = options if program == "maskmatch" else options[1:]
        parse_ours(name.removeprefix("maskmatch."), options, patch)
    elif program == "python" and options[0].startswith("benchmarks/"):
        parse_benchmark(options[0].removeprefix("benchmarks/"), options[1:], patch)
    elif program == "python":
        for path in options[3:] if options[:2] == ["-m", "pytest"] else options[:1]:
            assert (ROOT / path).exists() or path in ("gpu",), path
    elif program == "make":
        for target in options:
            rule = rf"^(?:[\w-]+ )*{re.escape(target)}(?: [\w-]+)*:"
            assert re.search(rule, MAKEFILE, re.MULTILINE), f"no target {target}"
    elif program == "pip":
        extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[project.optional-dependencies]")[1]
        for extra in re.findall(r"maskmatch\[(.*?)\]", " ".join(options)):
            assert re.search(rf"^{extra} = ", extras, re.MULTILINE), f"no extra {extra}"
    else:
        assert program in OTHERS, f"what is {program}?"


def parse_ours(name: str, options: list[str], patch: pytest.MonkeyPatch) -> None:
    assert name in COMMANDS
    if name == "train":  # which has a function for it, that looks at values too
        importlib.import_module("maskmatch.commands.command_line").parse_command(options)
        return
    stop_after_parsing(patch)
    importlib.import_module(f"maskmatch.commands.{name}").main(options)
    raise AssertionError(f"{name} does not parse its options")


def stop_after_parsing(patch: pytest.MonkeyPatch) -> None:
    parse_args = jsonargparse.ArgumentParser.parse_args

    def stop(self, *arguments, **options):
        parse_args(self, *arguments, **options)
        raise ParsedError

    patch.setattr(jsonargparse.ArgumentParser, "parse_args", stop)


def parse_benchmark(script: str, options: list[str], patch: pytest.MonkeyPatch) -> None:
    """The benchmarks' own checks of their options run too; they are stopped where they would begin."""

    def stop(*arguments, **keywords):
        raise ParsedError

    if script == "small_set.py":
        stop_after_parsing(patch)
        importlib.import_module("benchmarks.small_set").main(options)
        return
    folder, places = {
        "run.py": ("speed.command", ["Selection"]),
        "ablation.py": ("ablation.command", ["_missing", "write_report"]),
        "method_figures.py": ("ablation.method_figures", ["_draw_classes", "_find"]),
    }[script]
    module = importlib.import_module(f"benchmarks.{folder}")
    for place in places:
        patch.setattr(module, place, stop)
    if script == "ablation.py":  # all names of arms are looked up, one of the arms is planned
        patch.setattr(module, "chosen", lambda names, chosen=module.chosen: chosen(names)[:1])
    if script == "run.py":
        patch.setattr(module, "_read", lambda path: None)
        patch.setattr("torch.cuda.is_available", lambda: True)
    module.main(options)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands(page):
        if only_named(command):
            continue
        for words in readings(renamed(command) if page == "docs/results.md" else command):
            parsed(words, monkeypatch)


def only_named(words: list[str]) -> bool:
    """Whether a program is spoken of without any option: then it is there."""
    if words[:2] == ["python", "-m"] and len(words) == 3 and words[2].startswith("maskmatch."):
        assert words[2].removeprefix("maskmatch.") in {*COMMANDS, "COMMAND"}, words
        return True
    if words[0] == "python" and len(words) == 2 and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), words
        return True
    return False


def renamed(words: list[str]) -> list[str]:
    """docs/results.md has commands as they were at the commit beside them: with today's names of their options."""
    return [f"--{MOVED[word[2:]]}" if word[2:] in MOVED else word for word in words]


STARTS = [["maskmatch", name] for name in COMMANDS] + [
    ["python", "benchmarks/run.py"], ["python", "benchmarks/ablation.py"], ["python", "benchmarks/method_figures.py"],
]  # fmt: skip


def known_options(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Names of the options of each of the commands."""
    found: list[set[str]] = []

    def stop(self, *arguments, **keywords):
        found.append({name for action in self._actions for name in action.option_strings})
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(jsonargparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        for start in STARTS:
            with pytest.raises(ParsedError):
                parse(start, patch)
    return found


@pytest.mark.usefixtures("place")
def test_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """What begins with -- in backquotes is an option of a command, which takes its value where one stands there."""
    known = known_options(monkeypatch)
    typed: dict[tuple[str, ...], str] = {}  # and a page that has it
    for page in PAGES:
        for text in in_backquotes(page):
            words = tuple(shlex.split(text)) if text.startswith("--") else ()
            if len(words) == 1 and words[0] not in NOT_OURS:
                assert any(words[0] in names for names in known), f"{page}: no command has {text}"
            elif len(words) > 1:
                typed |= {tuple(reading): page for reading in readings(words)}
    for words, page in typed.items():
        starts = [start for start, names in zip(STARTS, known, strict=True) if words[0] in names]
        assert any(taken(start, words, monkeypatch) for start in starts), f"{page}: {words}"


def taken(start: list[str], words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    least = LEAST.get(start[1].removeprefix("benchmarks/"), [])
    try:
        parsed([*start, *least, *words], monkeypatch)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES)
def test_names_of_options(page: str) -> None:
    """`data.split` and its like, without the dashes, are options too."""
    known = {option.name for option in each_option(Config())}
    for text in in_backquotes(page):
        if re.fullmatch(r"(data|model|train|method)\.[a-z_.]+", text) and not text.endswith((".py", ".md", ".yaml")):
            assert text in known, text


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", PAGES)
def test_files_of_options(page: str) -> None:
    for language, text in blocks(page):
        assert language != "yaml" or parse_train(["--config", re.match(r"# (\S+)\n", text)[1]])


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "command",
    [
        "maskmatch train --data.splits 20",
        "maskmatch train --method.region all",
        "python -m maskmatch.predict RUN a.jpg --output b --treshold 0.5",
        "python -m maskmatch.trian --fused",
        "torchrun --nproc-per-gpu 8 -m maskmatch.train",
        "python benchmarks/run.py ops --shapes vco",
        "pip install maskmatch[exports]",
        "make tests",
    ],
)
def test_what_does_not_exist_is_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        parsed(shlex.split(command), monkeypatch)
