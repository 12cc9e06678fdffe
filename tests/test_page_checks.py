"""Each Check of the pages has a row that breaks it: `make checks` runs them."""

import pytest

import notebooks
import page_checks
from broken_checks import BREAKS, Break
from notebook_rules import text_of

PAGES = sorted(notebooks.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("broken", BREAKS, ids=lambda b: f"{b.chapter}, {b.mistake}")
def test_a_row_finds_its_check_and_the_passage_that_it_replaces(broken):
    part = page_checks.first_part(broken)
    sources = [cell.source for cell in part.cells]
    assert part.cells[-1].cell_type == "code"
    assert page_checks.said_by(part.cells[-1])
    assert any(repr(broken.wrong) in s or broken.wrong in s for s in sources)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_each_check_on_a_page_has_a_row(path):
    content, chapter = notebooks.read(path), path.name.partition("_")[0]
    rows = [row for row in BREAKS if row.chapter == chapter]
    for place in page_checks.checks_of(content):
        prose = text_of(content["cells"][place]["source"])
        assert any(row.check in prose for row in rows), prose


def page(*sources):
    kinds = {True: "markdown", False: "code"}
    return {
        "cells": [
            {"cell_type": kinds[s.startswith("#")], "source": s[s.startswith("#") :], "outputs": []}
            for s in sources
        ]
    }


def test_what_explains_the_word_after_all_code_is_no_check():
    content = page("#**Check** it:", "print(1)", "#Where it says **Check**, look.")
    assert page_checks.checks_of(content) == [0]


@pytest.mark.parametrize(
    ("words", "cell", "said"),
    [("it", 0, "cell=0"), ("it", 2, "1 follow"), ("that", 1, "0 Checks"), ("e", 1, "2 Checks")],
)
def test_a_row_that_fits_no_check_is_refused(words, cell, said):
    content = page("#**Check** it here:", "print(1)", "#**Check** here:", "print(2)")
    content["cells"] = content["cells"][: 4 if said == "2 Checks" else 2]
    with pytest.raises(ValueError, match=said):
        page_checks.place_of(Break("01", words, "none", "page", "1", "2", cell), content)


def test_warnings_are_not_what_a_cell_says():
    streams = [("stdout", "one\n"), ("stderr", "careful\n"), ("stdout", "two\n")]
    outputs = [{"output_type": "stream", "name": name, "text": text} for name, text in streams]
    assert page_checks.said_by({"outputs": outputs}) == "one\ntwo\n"


def test_rows_are_chosen_by_chapter_or_by_words():
    chapters = {row.chapter for row in page_checks.chosen_from(["02b"])}
    assert chapters == {"02b"}
    assert len(page_checks.chosen_from([])) == len(BREAKS)
    (row,) = page_checks.chosen_from(["nudge one of six"])
    assert row.chapter == "08"
    with pytest.raises(SystemExit, match="imaginary"):
        page_checks.chosen_from(["imaginary"])


def test_a_check_that_sees_its_mistake_has_noticed_and_a_crash_elsewhere_has_not(monkeypatch):
    content = notebooks.nbformat.from_dict(
        {**page("one = 1", "#**Check** it:", "print(one)"), "metadata": {}, "nbformat": 4}
    )
    content.nbformat_minor = 5
    for number, cell in enumerate(content.cells):
        cell.update(metadata={}, id=f"cell-{number}")
        if cell.cell_type == "code":
            cell.execution_count = None
    content.cells[-1].outputs = [
        notebooks.nbformat.v4.new_output("stream", name="stdout", text="1\n")
    ]
    monkeypatch.setattr(notebooks, "read", lambda _: notebooks.copy.deepcopy(content))
    verdicts = {
        wrong: page_checks.examine(Break("01", "it", "none", "page", "one = 1", wrong))
        for wrong in ("one = 2", "one = 1.0 and 1", "one = 1 / 0")
    }
    assert [verdict.noticed for verdict in verdicts.values()] == [True, False, False]
    assert verdicts["one = 2"].said == "2\n"
    assert "ZeroDivisionError" in verdicts["one = 1 / 0"].said
