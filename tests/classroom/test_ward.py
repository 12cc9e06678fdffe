"""The ward: wrong lines are refused with help, right ones count, and nothing is lost."""

import re

import numpy as np
import pytest

from diffusion_walkthrough.classroom import ward as wards
from diffusion_walkthrough.classroom.patients import PATIENTS
from diffusion_walkthrough.classroom.ward import POINTS, Rounds, Ward

NUMBERS = range(1, len(PATIENTS) + 1)


@pytest.fixture
def ward(monkeypatch):
    """A ward whose pictures cost nothing."""
    grey = np.full((4, 6, 3), 128, np.uint8)
    monkeypatch.setattr(Ward, "symptom", lambda self, number: grey + np.uint8(number))
    monkeypatch.setattr(Ward, "both", lambda self, number: grey)
    return Ward()


@pytest.mark.parametrize("number", NUMBERS)
def test_every_healthy_line_is_refused_and_the_wrong_one_is_found(ward, number):
    patient = ward.patients[number]
    healthy = set(range(1, len(patient.lines) + 1)) - patient.wrong_lines
    for line in sorted(healthy):
        assert str(Ward().accuse(number, line)).startswith(f"✗ Line {line} is healthy.")
    for line in patient.wrong_lines:
        fresh = Ward()
        assert str(fresh.accuse(number, line)).startswith(f"✓ Line {line} it is: 3 of 3")
        assert fresh.charts[number].points == POINTS


@pytest.mark.parametrize("number", NUMBERS)
def test_help_grows_and_ends_near_the_line(ward, number):
    patient = ward.patients[number]
    low = min(patient.wrong_lines)
    wrong = [i for i in range(1, len(patient.lines) + 1) if i not in patient.wrong_lines][:4]
    said = [str(ward.accuse(number, line)) for line in wrong]
    assert patient.hints[0] in said[0]
    if len(said) > 1:
        assert patient.hints[1] in said[1]
    last = str(ward.hint(number)) if len(said) < 3 else said[2]
    if match := re.search(r"lines (\d+) to (\d+)\.", last):
        assert int(match[1]) <= low <= int(match[2])


def test_the_same_wrong_line_counts_once_and_hints_cost(ward):
    first = ward.accuse(1, 1)
    assert ward.accuse(1, 1) == first
    assert ward.charts[1].wrong == [1]
    ward.hint(1)
    (line,) = ward.patients[1].wrong_lines
    assert "1 of 3 points" in ward.accuse(1, line)
    assert "healthy; it was line 4" in ward.accuse(1, 2)
    assert "Line 4 it was" in ward.accuse(1, 4)
    assert repr(ward.score()) == (
        "Found 1 of 19 (easy 1 of 7, medium 0 of 6, hard 0 of 6): 1 of 57 points."
    )


def test_an_innocent_line_is_defended(ward):
    lines = ward.patients[8].lines
    at = next(i for i, line in enumerate(lines, start=1) if "signal_rate =" in line)
    assert "√ᾱ is the factor of the image." in ward.accuse(8, at)


def test_who_gives_up_is_told_and_gets_no_points(ward, capsys):
    ward.cure(2)
    assert "Not yet" in capsys.readouterr().out
    (line,) = ward.patients[2].wrong_lines
    assert str(ward.give_up(2)).startswith(f"It was line {line}.")
    ward.accuse(2, line)
    assert (ward.charts[2].found, ward.charts[2].points) == (False, 0)
    ward.cure(2)
    shown = capsys.readouterr().out
    assert "-     scale = 1.0" in shown
    assert "Published:" in shown


def test_a_visit_shows_words_picture_and_numbered_lines(ward, capsys):
    ward.visit(1)
    shown = capsys.readouterr().out
    assert "Patient 1 (easy): “" in shown
    assert re.search(r"^  4      return .*beta \* noise$", shown, re.MULTILINE)


@pytest.mark.parametrize("number", [-1, 20, 1.5, None])
def test_a_patient_that_is_not_there_is_refused(ward, number):
    with pytest.raises(ValueError, match="patient"):
        ward.accuse(number, 1)


@pytest.mark.parametrize("line", [0, 99, None, "4"])
def test_a_line_that_is_not_there_is_refused(ward, line):
    with pytest.raises(ValueError, match="line"):
        ward.accuse(1, line)


def test_a_program_is_the_same_each_time_and_says_nothing_of_its_mistake(ward):
    assert ward[3] is ward[3]
    assert repr(ward[3]) == "<patient 3>"


def test_notes_are_kept_in_a_file_that_is_only_added_to(tmp_path):
    path = tmp_path / "notes.jsonl"
    first = Ward(path)
    assert not path.exists()
    first.accuse(1, 1)
    first.accuse(1, 4)
    first.hint(2)
    first.give_up(3)
    before = path.read_text("utf-8")
    again = Ward(path)
    assert again.charts == first.charts
    again.accuse(2, 1)
    assert path.read_text("utf-8").startswith(before)


@pytest.mark.parametrize(
    "content",
    [b"my diary\n", b"[1, 2]\n", b'{"patient": "x"}\n', b"\xff\xfe", b" " * 1_000_001,
     b'{"patient": "kl_with_a_wrong_sign", "what": "burn", "line": 1}\n'],
)  # fmt: skip
def test_another_file_is_refused_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="left as it is"):
        Ward(path)
    assert path.read_bytes() == content


def test_notes_on_a_patient_that_is_gone_are_passed_over(tmp_path):
    path = tmp_path / "notes"
    path.write_text('{"patient": "retired", "what": "found", "line": 1}\n')
    assert not any(chart.found for chart in Ward(path).charts)


def test_the_rounds_show_a_patient_and_take_an_accusation(ward):
    rounds = Rounds(ward)
    assert set(rounds.lines) == {1, 2, 3, 4}
    rounds.lines[1].click()
    assert "Line 1 is healthy" in rounds.reply.value
    assert "ward-healthy" in rounds.lines[1]._dom_classes
    assert rounds.cured.value == ""
    rounds.lines[4].click()
    assert "Line 4 it is" in rounds.reply.value
    assert "ward-found" in rounds.lines[4]._dom_classes
    assert "Published" in rounds.cured.value
    assert "Found 1 of 19" in rounds.score.value


def test_each_press_of_each_button_changes_what_is_shown(ward):
    rounds = Rounds(ward, 19)
    row = rounds.children[5].children
    for button in [*rounds.lines.values(), *row]:
        before = [widget.value for widget in (rounds.reply, rounds.score, rounds.cured)]
        button.click()
        assert [widget.value for widget in (rounds.reply, rounds.score, rounds.cured)] != before


def test_the_menu_brings_another_patient_and_its_chart(ward):
    rounds = Rounds(ward)
    rounds.lines[1].click()
    picture = rounds.picture.value
    rounds.menu.value = 4
    assert rounds.picture.value != picture
    assert len(rounds.lines) > 15
    assert "Press the line" in rounds.reply.value
    rounds.menu.value = 1
    assert rounds.picture.value == picture
    assert "ward-healthy" in rounds.lines[1]._dom_classes


def test_the_whole_ward_is_opened_with_a_picture_of_all(ward, monkeypatch):
    shown = []
    monkeypatch.setattr(wards.widgets, "show_widget", lambda *what: shown.append(what))
    rounds = ward.open(2)
    ((widget, text, png),) = shown
    assert widget is rounds
    assert rounds.number == 2
    assert "Run this cell" in text
    assert png.startswith(b"\x89PNG")
