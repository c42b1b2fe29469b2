"""A curve is where its numbers say."""

import re

import pytest

from maskmatch.html_report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, chart, number, sparkline


def drawn(svg, css="s0"):
    """The places of a line as (stretch, x, y): a stretch is what is drawn without lifting the pen."""
    (path,) = re.findall(rf'<path class="line {css}" d="([^"]*)"', svg)
    stretches = path.removeprefix("M").split("M")
    return [[tuple(map(float, place.split())) for place in stretch.split("L")] for stretch in stretches]


def values(found, line=0):
    """Steps and values, read back from the drawing."""
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    return [
        ((x - LEFT) / (right - LEFT) * found.steps, (floor - y) / (floor - TOP) * found.top)
        for stretch in drawn(found.svg, found.lines[line].css)
        for x, y in stretch
    ]


def test_a_line_goes_through_its_points():
    points = [(10, 0.25), (20, 0.5), (40, 0.4)]
    found = chart("mIoU", [Line("teacher", points, 0)], percent=True)
    assert found.top >= 0.5
    for (step, value), (expected_step, expected) in zip(values(found), points, strict=True):
        assert step == pytest.approx(expected_step, abs=0.01) and value == pytest.approx(expected, abs=1e-4)
    assert "teacher: 40.0 %" in found.svg


def test_a_missing_number_interrupts_the_line():
    found = chart("loss", [Line("total", [(1, 1.0), (2, 2.0), (3, None), (4, 3.0)], 0)])
    assert [len(stretch) for stretch in drawn(found.svg)] == [2, 1]


def test_shares_end_at_one_and_losses_where_they_are():
    assert chart("share", [Line("a", [(1, 0.97)], 0)], percent=True).top == 1
    assert chart("loss", [Line("a", [(1, 1e6)], 0)]).top >= 1e6
    assert chart("nothing but zeros", [Line("a", [(1, 0.0)], 0)]).top > 0


def test_no_number_no_chart():
    assert chart("loss", [Line("total", [(1, None)], 0), Line("part", [], 1)]) is None
    assert sparkline([Line("total", [(1, None)], 0)], "IoU", 1) == ""


def test_a_long_line_is_drawn_as_means():
    points = [(step, float(step)) for step in range(1, 10001)]
    found = values(chart("loss", [Line("total", points, 0)]))
    assert len(found) < 400
    assert found[-1][0] == pytest.approx(10000)
    assert all(value == pytest.approx(step, abs=45) for step, value in found)  # half a stretch


def test_names_are_escaped():
    line = Line('<b>"', [(1, 0.5)], 0)
    for svg in (chart("<i>", [line]).svg, sparkline([line, line], "<i>", 1)):
        assert "<b>" not in svg and "<i>" not in svg and "&lt;b&gt;&#34;" in svg


@pytest.mark.parametrize(
    ("value", "percent", "text"),
    [
        (0.12345, True, "12.3 %"),
        (0.19, False, "0.190"),
        (2.55e-5, False, "2.55e-05"),
        (1234.5, False, "1234"),
        (None, True, "–"),
        (float("nan"), False, "–"),
    ],
)
def test_numbers(value, percent, text):
    assert number(value, percent=percent) == text
