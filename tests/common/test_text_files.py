"""Text that users wrote, in the encodings that their tools write: read, or refused in one line with file and byte."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskmatch.commands.check_data import main as check_data
from maskmatch.commands.command_line import parse_train
from maskmatch.common.errors import UserError
from maskmatch.common.text_files import read_lines, read_text
from maskmatch.data.listing.layouts import load_dataset
from maskmatch.run_files.config_file import read_config

LINES = "Straße 1\n\n草地\n🚗\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(LINES.encode(encoding))
    assert read_text(tmp_path / "a.txt", "text") == LINES
    assert read_lines(tmp_path / "a.txt", "text") == ["Straße 1", "", "草地", "🚗", ""]


@given(
    lines=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1),
    end=st.sampled_from(["\n", "\r\n"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_are_parted_at_their_ends_alone(tmp_path, lines, end):
    """Not at U+2028 or U+0085, which a name may hold."""
    (tmp_path / "a.txt").write_bytes(end.join(lines).lstrip("\ufeff").encode())
    assert read_lines(tmp_path / "a.txt", "text") == end.join(lines).lstrip("\ufeff").split(end)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a\nfür\n".encode("latin1"), "expected text in UTF-8, got byte 0xfc in line 2, at byte 3 (`iconv"),
        ("草地".encode("gb18030"), "expected text in UTF-8, got byte 0xb2 in line 1, at byte 0"),
        ("\ufeff".encode("utf-16-le") + b"abc", "expected text in UTF-8, got byte 0x63 in line 1, at byte 4"),
        ("ab".encode("utf-16-le"), "expected text, got a zero at byte 1"),
        (b"\x89PNG\r\n\x1a\n\0\0", "expected text, got a zero at byte 8"),
        ("ab".encode("utf-32"), "expected text, got a zero at byte 2"),  # whose mark begins as that of UTF-16
        ("a\0b".encode("utf-16"), "expected text, got a zero at byte 3"),
    ],
    ids=str,
)
def test_what_is_no_text(tmp_path, content, said):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_text(path, "text")
    assert str(caught.value).startswith(said) and str(caught.value).endswith(f": {path}")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"expected text, got No such file or directory: .*/gone"):
        read_text(tmp_path / "gone", "text")


def test_names_of_files_may_be_any_bytes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"stra\xdf.png\n")
    assert read_lines(tmp_path / "a.txt", "a list", undecodable="surrogateescape") == ["stra\udcdf.png", ""]


YAML = "data:\n  class_names: [erde, für, 草地]\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_yaml_file(tmp_path, encoding):
    (tmp_path / "my.yaml").write_bytes(YAML.encode(encoding))
    assert parse_train(["--config", str(tmp_path / "my.yaml")]).data.class_names == ["erde", "für", "草地"]


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1"])
def test_whatever_the_locale(tmp_path, locale, monkeypatch):
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    monkeypatch.setenv("LC_ALL", locale)
    test_a_yaml_file(tmp_path, "utf-8")


def test_a_yaml_file_in_latin_1(tmp_path, refusal):
    path = tmp_path / "my.yaml"
    path.write_bytes(YAML.replace("草地", "ß").encode("latin1"))
    said = refusal(check_data, "--config", path)
    assert said.startswith("error: expected a YAML file in UTF-8, got byte 0xfc in line 2, at byte 29")
    assert said.endswith(f": {path}")
    with pytest.raises(UserError, match="expected a run's configuration in UTF-8, got byte 0xfc"):
        read_config(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_file(photos, tmp_path, encoding):
    """As PowerShell's `>` and Notepad write them."""
    path = tmp_path / "list.txt"
    path.write_bytes("images/0.png masks/0.png\r\nimages/1.png masks/1.png\r\n".encode(encoding))
    config = parse_train(["--data.name", "folder", "--data.root", str(photos), "--data.num_classes", "3"]).data
    config.labeled = config.val = config.unlabeled = str(path)
    dataset = load_dataset(config, supervised_only=False)
    assert [pair.image for pair in dataset.labeled] == [photos / "images/0.png", photos / "images/1.png"]
