"""Names in pictures: no maths, nothing left out, no empty boxes; and a picture that fails costs nothing but itself."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from maskmatch.common import drawing
from maskmatch.metrics import save_confusion, save_predictions

DIAMONDS = "草地도로道空"


@pytest.fixture
def no_fonts(monkeypatch):
    """None but matplotlib's own."""
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [])
    drawing._font_for.cache_clear()
    yield
    drawing._font_for.cache_clear()


@pytest.fixture
def installed_font(monkeypatch, tmp_path):
    """A font that has a few Chinese and Korean characters, all as a black square, and nothing else."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"u{ord(character):X}" for character in DIAMONDS)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, DIAMONDS), names[1:], strict=True)))
    builder.setupGlyf({name: TTGlyphPen(None).glyph() if name == ".notdef" else square for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    builder.setupHorizontalHeader(ascent=1000, descent=-200)
    builder.setupNameTable({"familyName": "Squares of a test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "squares.ttf"
    builder.save(path)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [str(path)])
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    drawing._font_for.cache_clear()
    yield "Squares of a test"
    drawing._font_for.cache_clear()


def ink(name, **options):
    """The dark pixels of a name that is drawn alone; whatever matplotlib complains of is an error."""
    figure = Figure(figsize=(4, 1), dpi=100)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.05, 0.4, name, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0] < 128


TRICKY = ["$x_{$", "$a$", "price: $5 or $6", r"a\$b", r"\$", "$$", "50 %", "#1", "{}", "a_b^c", "~&", "x\ny"]


@pytest.mark.parametrize("name", TRICKY)
def test_a_name_is_drawn_letter_by_letter(name):
    (text,), family = drawing.drawable([name])
    expected = ink(name, parse_math=False)
    if r"\$" not in name:  # which matplotlib shows as `$` even without maths
        np.testing.assert_array_equal(ink(text, fontfamily=family), expected)
    assert ink(text).any()


def test_a_backslash_before_a_dollar_stays():
    (text,), _ = drawing.drawable([r"a\$b"])
    wider = ink(text).any(0).sum() - ink(r"a\$b").any(0).sum()  # the latter without the backslash
    assert wider > 0


def rows(count):
    size = (30, 40)
    truth = np.resize(np.arange(count, dtype=np.uint8), size)
    return [(np.zeros((*size, 3), np.uint8), truth, truth, np.ones(size, np.float32))]


def draw_all(folder, names):
    palette = np.random.default_rng(0).integers(0, 256, (len(names), 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_predictions(folder / "predictions.png", rows(len(names)), palette, names)
        save_confusion(folder / "confusion.png", np.eye(len(names)), names)
    for name in ("predictions.png", "confusion.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 100


def test_tricky_names_in_every_picture(tmp_path, no_fonts):
    draw_all(tmp_path, [*TRICKY, "_a", "草地", "", " ", "🚗"])


@given(names=st.lists(st.text(max_size=12), min_size=1, max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_at_all(no_fonts, names):
    shown = drawing.drawable(names)
    for text in shown.texts:
        ink(text, fontfamily=shown.family)


def legend_ink(folder, names):
    """Dark pixels of the legend's letters."""
    palette = np.full((len(names), 3), 255, np.uint8)
    save_predictions(folder / "a.png", rows(len(names)), palette, names)
    with Image.open(folder / "a.png") as picture:
        return int((np.asarray(picture.convert("L"))[-38:] < 100).sum())


@pytest.mark.parametrize("name", ["_background_", "__ignore__"])  # as labelme calls them
def test_names_that_begin_with_an_underscore_are_in_the_legend(tmp_path, name):
    assert legend_ink(tmp_path, [name, "a"]) > legend_ink(tmp_path, ["a", "a"]) + 20


def test_classes_of_one_name_are_both_in_the_legend(tmp_path):
    assert legend_ink(tmp_path, ["road", "road"]) > 1.7 * legend_ink(tmp_path, ["road", ""])


def test_without_a_font_there_is_the_number(no_fonts):
    shown = drawing.drawable(["sky", "草地", "도로", "für", "⚠️ x"])
    assert shown.texts == ["sky", "1", "2", "für", "⚠ x"]
    assert drawing.drawable(["x🚗", "a"]).texts == ["0", "a"]


def test_an_installed_font_is_used(installed_font):
    names = ["sky", "草地", "도로", "道x", "空$"]
    shown = drawing.drawable(names)
    assert shown.texts[:3] == ["sky", "草地", "도로"] and shown.family[-1] == installed_font
    squares = ink("草地", fontfamily=shown.family)
    height, width = (np.flatnonzero(squares.any(axis)) for axis in (1, 0))
    assert squares[height[0] : height[-1] + 1, width[0] : width[-1] + 1].mean() > 0.9  # one beside the other
    assert shown.texts[3:] == ["道x", r"空\$"]  # whose Latin letters are those of matplotlib's own font
    ink("道x", fontfamily=shown.family)
    assert drawing.drawable(["草🚗"]).texts == ["0"]  # which no font has both of


def test_a_drawing_that_fails_is_one_line(tmp_path):
    said = []
    with drawing.spared(tmp_path / "a.png", said.append):
        raise ValueError("\n$x_{$\n    ^\nParseException")
    assert said == [f"warning: {tmp_path}/a.png could not be drawn: $x_{{$ ^ ParseException"]
    with pytest.raises(OSError, match="full"), drawing.spared(tmp_path / "a.png", said.append, fatal=OSError):
        raise OSError("full")
    with pytest.raises(KeyboardInterrupt), drawing.spared(tmp_path / "a.png", said.append):
        raise KeyboardInterrupt
