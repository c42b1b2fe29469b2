"""What the pages about trust say of other files is so."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import setuptools
import yaml

import maskmatch

ROOT = Path(__file__).parents[2]


def test_the_citation_and_the_changelog_are_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == maskmatch.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{maskmatch.__version__}]" in changes or f"What will be {maskmatch.__version__}" in changes
    assert citation["license"] == "Apache-2.0" and citation["type"] == "software"
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format asks for


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/reproducibility.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|common|data|benchmarks)/[\w/.]+\.py)", text)
    assert len(named) > 3
    for name in named:
        assert (ROOT / name).is_file() or (ROOT / "maskmatch" / name).is_file(), name


def test_tensors_are_loaded_in_one_place() -> None:
    """As SECURITY.md says of torch.load."""
    files = {path: path.read_text(encoding="utf-8") for path in (ROOT / "maskmatch").rglob("*.py")}

    def callers(call: str) -> list[str]:
        pattern = re.compile(rf"(?<![\w.]){re.escape(call)}\(")
        return [str(path.relative_to(ROOT)) for path, text in files.items() if pattern.search(text)]

    assert callers("torch.load") == ["maskmatch/common/tensor_files.py"]
    for call in ("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "np.load", "eval", "exec"):
        assert not callers(call), call


def test_workflows_call_what_the_makefile_has() -> None:
    rules = re.findall(r"^([\w./ -]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    called = set()
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            steps = job.get("steps", [])  # none where another workflow is called
            called |= {word[1] for step in steps if (word := step.get("run", "").split())[:1] == ["make"]}
    assert {"lint", "test", "oldest", "newest", "wheel", "try-wheel"} <= called <= targets


@pytest.mark.parametrize("address", ["", "https://example.org/us/maskmatch/"])
def test_readme_as_a_package_index_shows_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing lies beside it there: a link into the repository has its address, or is text."""
    given: dict[str, str] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.setenv("MASKMATCH_REPOSITORY", address)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    ours = re.findall(r"\]\((?!https?:)([\w/.-]+)(#[\w-]+)?\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    shown = given["long_description"]
    links = re.findall(r"(!?)\[[^\]]+\]\(([^)]+)\)", shown)
    assert len(ours) > 20 and all((ROOT / path).is_file() for path, _ in ours)
    assert all(link.startswith("https://") for _, link in links)
    version = f"https://example.org/us/maskmatch/blob/v{maskmatch.__version__}/"
    expected = [f"{version}{path}{part}" for path, part in ours] if address else []
    assert [link.replace("/raw/", "/blob/") for _, link in links if "example.org" in link] == expected
    assert [("!", f"{version.replace('blob', 'raw')}docs/images/first.png")] * bool(address) == [
        found for found in links if found[0]
    ]
    assert "[Start]" in shown if address else "| Start |" in shown
