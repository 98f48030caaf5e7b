"""The benchmark's figures: statistics, bars, and the reports that are made of them."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import List

import pytest
from rich.console import Console

from manuka.toolkit.bench import chart, markdown, stats, table
from manuka.toolkit.bench.disk import BenchError
from manuka.toolkit.bench.results import MET, MISSED, OPEN, Point, Results
from manuka.toolkit.bench.rows import GO, MANUKA, NATIVE, PARTS, ROWS

SVG = "{http://www.w3.org/2000/svg}"


def measured(row: str, **rounds: List[float]) -> Results:
    """One row, with one sample a round for each contender."""
    results = Results()
    for name, samples in rounds.items():
        for number, sample in enumerate(samples):
            results.add(row, name, number, sample)
    return results


def everything() -> Results:
    """A figure in every row, a series, a note and a failure."""
    results = Results()
    results.facts = {"engine": "Docker 20.10 <x>", "kernel": "6.1 & more"}
    for row in ROWS.values():
        for name, factor in ((NATIVE, 1.0), (MANUKA, 0.5), (GO, 2.5)):
            for number in range(4):
                results.add(row.name, name, number, factor * (1 + number / 100))
    for name in (NATIVE, MANUKA):
        results.grew("docker load", "files", "ms", name, Point(100, 12.5))
        results.grew("docker load", "files", "ms", name, Point(1000, 99))
    results.notes.append("a | note")
    results.failures.append("pull: [no] registry")
    return results


@pytest.mark.parametrize(
    ("values", "fraction", "expected"),
    [([3], 0.5, 3), ([1, 2], 0.5, 1.5), ([4, 1, 3, 2], 0, 1), ([4, 1, 3, 2], 1, 4),
     ([1, 2, 3, 4, 5], 0.25, 2), (list(range(101)), 0.99, 99)],
)  # fmt: skip
def test_a_quantile_lies_between_its_neighbours(
    values: List[float], fraction: float, expected: float
) -> None:
    assert stats.quantile(values, fraction) == pytest.approx(expected)


def test_there_is_no_median_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.median([])


def test_the_spread_is_that_of_the_middle_half() -> None:
    assert stats.spread([1, 2, 3, 4, 1000]) == 2


def test_a_drift_that_meets_both_leaves_their_ratio_sure() -> None:
    native = [[value] for value in (1.0, 2.0, 4.0, 8.0, 16.0)]
    ours = [[value[0] / 2] for value in native]
    interval = stats.ratio_interval(ours, native, 0.5)
    assert interval == pytest.approx((0.5, 0.5))


def test_noise_that_meets_one_of_them_leaves_it_open() -> None:
    interval = stats.ratio_interval([[1], [3], [1], [3], [2]], [[2]] * 5, 0.5)
    assert interval is not None
    assert interval.low <= 0.5 < 1.5 <= interval.high


def test_two_rounds_tell_no_interval() -> None:
    assert stats.ratio_interval([[1], [2]], [[1], [2]], 0.5) is None
    assert stats.figure_interval([[1], [2]], 0.5) is None


@pytest.mark.parametrize(
    ("ours", "state"),
    [([0.7] * 5, MET), ([0.75] * 5, MET), ([0.8] * 5, MISSED), ([0.6, 0.7, 0.77, 0.8, 0.9], OPEN)],
)
def test_a_ratio_is_held_against_its_bar(ours: List[float], state: str) -> None:
    results = measured("load-many", native=[1.0] * 5, manuka=ours)
    verdict = results.verdict(ROWS["load-many"])
    assert verdict is not None
    assert (verdict.state, verdict.bar) == (state, 0.75)


def test_a_figure_is_held_against_a_bar_in_its_own_unit() -> None:
    results = measured("get-put-p99", manuka=[1.0] * 100 + [9.0] * 5)
    verdict = results.verdict(ROWS["get-put-p99"])
    assert verdict is not None
    assert verdict.value == 9.0
    assert results.verdict(ROWS["exists"]) is None


def test_a_row_without_native_has_no_ratio_and_no_verdict() -> None:
    results = measured("load-many", manuka=[1.0] * 3)
    assert results.ratio(ROWS["load-many"], MANUKA) is None
    assert results.verdict(ROWS["load-many"]) is None


def test_a_report_comes_back_from_json_as_it_was() -> None:
    results = everything()
    again = Results.from_json(results.to_json())
    assert again.to_json() == results.to_json()
    assert markdown.report(again) == markdown.report(results)
    told = json.loads(results.to_json())
    assert told["figures"]["run"]["manuka"]["ratio"] == pytest.approx(0.5)
    assert told["verdicts"]["run"]["state"] == MET


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="no report"):
        Results.from_json(text)


def test_the_table_shows_every_row_and_what_failed() -> None:
    output = io.StringIO()
    table.show(Console(file=output, width=200), everything())
    said = output.getvalue()
    for row in ROWS.values():
        assert row.title in said
    assert "failed: pull: [no] registry" in said
    assert "note: a | note" in said
    assert "1,000" in said


@pytest.mark.parametrize(
    ("value", "text"), [(0.123, "0.12"), (9.87, "9.87"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    assert table.number(value) == text


def test_short_times_are_shown_in_milliseconds() -> None:
    results = measured("rm", native=[0.004] * 5, manuka=[0.004, 0.0042, 0.0044, 0.0046, 0.0048])
    assert table.figure(results, ROWS["rm"], NATIVE) == "4.00 ms ±0%"
    assert table.figure(results, ROWS["rm"], MANUKA) == "4.40 ms ±5%"
    assert table.figure(results, ROWS["rm"], GO) == ""


def test_each_line_of_a_markdown_table_has_the_same_columns() -> None:
    tables = [
        [line for line in block.splitlines() if line.startswith("|")]
        for block in markdown.report(everything()).split("\n\n")
    ]
    tables = [lines for lines in tables if lines]
    assert len(tables) == len(PARTS) + 1
    for lines in tables:
        assert len({line.count(" | ") for line in lines}) == 1


def test_a_page_keeps_what_is_around_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = markdown.MARKS
    page.write_text(f"before\n\n{begin}\nold\n{end}\n\nafter \\1\n")
    markdown.write(str(page), everything())
    markdown.write(str(page), everything())
    text = page.read_text()
    assert text.startswith(f"before\n\n{begin}\n")
    assert text.endswith(f"{end}\n\nafter \\1\n")
    assert "old" not in text
    assert text.count("docker commit") == 1


def test_a_page_with_one_mark_is_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(markdown.MARKS[0])
    with pytest.raises(BenchError, match="only one"):
        markdown.write(str(page), everything())
    assert page.read_text() == markdown.MARKS[0]


def test_a_page_that_is_not_there_is_the_report(tmp_path: Path) -> None:
    page = tmp_path / "new.md"
    markdown.write(str(page), everything())
    assert page.read_text() == markdown.report(everything())


def test_the_picture_is_xml_with_a_bar_for_each_ratio() -> None:
    root = ET.fromstring(chart.svg(everything()))
    assert root.tag == SVG + "svg"
    shown = [row for row in ROWS.values() if not row.more_is_better]
    kinds = [rect.get("class") for rect in root.iter(SVG + "rect")]
    assert kinds.count("manuka") == kinds.count("go") == len(shown)
    texts = [text.text for text in root.iter(SVG + "text")]
    assert texts.count("0.50") == len(shown)
    width = float(root.get("width", 0))
    for rect in root.iter(SVG + "rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width", 0)) <= width


def test_the_picture_without_the_go_plugin_has_one_bar_a_row() -> None:
    root = ET.fromstring(chart.svg(measured("run", native=[1.0], manuka=[1.1])))
    kinds = [rect.get("class") for rect in root.iter(SVG + "rect")]
    assert kinds == ["card", "manuka"]
