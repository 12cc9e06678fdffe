"""The ward of chapter 12: patients are shown, lines accused, cures given, and the score is kept."""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import os
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np

from diffusion_walkthrough.bug_hunt import Patient, Program
from diffusion_walkthrough.checks import within
from diffusion_walkthrough.classroom import plots, widgets
from diffusion_walkthrough.classroom.figures import bug_hunt as figures
from diffusion_walkthrough.classroom.patients import FIRST, LEVELS, PATIENTS

#: For a line that is found at once; each wrong line and each hint takes one away.
POINTS = 3
#: A file of notes may be as large; more than all patients can fill.
LARGEST_NOTES = 1_000_000

_STYLE = """
.ward-line.jupyter-button { width: auto; height: auto; line-height: 1.5; padding: 0 6px; margin: 0;
  text-align: left; white-space: pre; font-family: var(--jp-code-font-family, monospace);
  font-size: 12px; background: transparent; color: inherit; box-shadow: none; }
.ward-line.jupyter-button:hover { background: rgba(86, 180, 233, 0.25); }
.ward-healthy.jupyter-button { opacity: 0.55; text-decoration: line-through; }
.ward-found.jupyter-button { background: rgba(230, 159, 0, 0.3); font-weight: bold; }
.ward-code { overflow: auto; border-left: 3px solid #56B4E9; padding-left: 6px; }
.ward-diff { font-family: var(--jp-code-font-family, monospace); font-size: 12px;
  white-space: pre; overflow: auto; margin: 6px 0; }
.ward-goes { background: rgba(230, 159, 0, 0.2); }
.ward-comes { background: rgba(0, 158, 115, 0.2); font-weight: bold; }
"""


class Told(str):
    """Text that a cell shows as it is."""

    def __repr__(self) -> str:
        return str(self)


@dataclasses.dataclass
class Chart:
    """What has been said of a patient."""

    wrong: list[int] = dataclasses.field(default_factory=list)
    hints: int = 0
    found: bool = False
    given_up: bool = False

    @property
    def points(self) -> int:
        """What it is worth: 0 unless found."""
        return max(POINTS - len(self.wrong) - self.hints, 0) if self.found else 0


class Ward:
    """All patients, by number: 0 is the one that the page examines, the others are the reader's.

    ``ward[3]`` is a program with one line wrong, for instruments; ``ward.visit(3)`` shows what its
    owner says and where to look, ``ward.accuse(3, 7)`` accuses line 7, ``ward.hint(3)`` and
    ``ward.give_up(3)`` help, ``ward.cure(3)`` shows the cure, and ``ward.score()`` counts.
    ``ward.open()`` has all of it with buttons.
    """

    def __init__(self, notes: str | os.PathLike[str] | None = None) -> None:
        """Begin anew, or where a file of notes ended.

        Args:
            notes: a file to which everything said is added, line by line, and from which the score
                is read; it is made if it is not there. None keeps the score as long as the kernel.

        Raises:
            ValueError: if that file holds anything else; it is left as it is.
        """
        self.patients = (FIRST, *PATIENTS)
        self.charts = [Chart() for _ in self.patients]
        self.notes = None if notes is None else Path(notes).expanduser()
        if self.notes is not None and self.notes.exists():
            self._read(self.notes)

    def __getitem__(self, number: int) -> Program:
        """The program of a patient. Raises ValueError for a number that none has."""
        return self._programs(self._checked(number))

    def __len__(self) -> int:
        return len(self.patients)

    @functools.cache  # noqa: B019
    def _programs(self, number: int) -> Program:
        return Program(self.patients[number].mistake, f"patient {number}")

    def _checked(self, number: object) -> int:
        if number is None:
            raise ValueError(f"patient None: give a number from 0 to {len(self) - 1}.")
        return within("patient", number, 0, len(self) - 1)

    # What is said ----------------------------------------------------------------------------

    def accuse(self, number: int, line: int) -> Told:
        """Accuse a line of a patient; the answer says more the more lines were wrong.

        Raises ValueError for a patient or a line that is not there.
        """
        patient, chart = self._of(number)
        if line is None or (lines := len(patient.lines)) < 1:
            raise ValueError(f"line None: give a number from 1 to {len(patient.lines)}.")
        line = within("line", line, 1, lines)
        right = line in patient.wrong_lines
        if chart.found or chart.given_up:
            return Told(self._afterwards(patient, line))
        if right:
            self._note(number, "found", line)
            return Told(f"✓ Line {line} it is: {chart.points} of {POINTS} points.\n{patient.cure}")
        if line not in chart.wrong:
            self._note(number, "wrong", line)
        said = [f"✗ Line {line} is healthy."]
        text = patient.lines[line - 1]
        said += [told for passage, told in patient.tempting.items() if passage in text][:1]
        return Told(" ".join([*said, self._help(patient, len(chart.wrong) + chart.hints)]))

    def hint(self, number: int) -> Told:
        """Say more about where to look; costs a point."""
        patient, chart = self._of(number)
        if not (chart.found or chart.given_up):
            self._note(number, "hint")
        return Told(self._help(patient, max(chart.hints + len(chart.wrong), 1)))

    def give_up(self, number: int) -> Told:
        """Say which line it was; no points."""
        patient, chart = self._of(number)
        if not chart.found and not chart.given_up:
            self._note(number, "given up")
        lines = _lines_in_words(patient.wrong_lines)
        return Told(f"It was {lines}. {patient.cure}")

    def score(self) -> Told:
        """How many are found, level by level, and the points."""
        found = [f"{name} {self._found(name)}" for name in LEVELS]
        points = sum(chart.points for chart in self.charts[1:])
        most = POINTS * (len(self) - 1)
        total = sum(chart.found for chart in self.charts[1:])
        told = f"Found {total} of {len(self) - 1} ({', '.join(found)}): {points} of {most} points."
        return Told(told + " The ward is empty." * (total == len(self) - 1))

    def _found(self, level: str) -> str:
        pairs = zip(self.patients[1:], self.charts[1:], strict=True)
        charts = [chart for patient, chart in pairs if patient.level == level]
        return f"{sum(chart.found for chart in charts)} of {len(charts)}"

    def _of(self, number: int) -> tuple[Patient, Chart]:
        number = self._checked(number)
        return self.patients[number], self.charts[number]

    def _help(self, patient: Patient, strength: int) -> str:
        if strength <= len(patient.hints):
            return patient.hints[max(strength, 1) - 1]
        low = max(min(patient.wrong_lines) - 2, 1)
        high = min(max(patient.wrong_lines) + 1, len(patient.lines))
        return f"It is one of lines {low} to {high}."

    def _afterwards(self, patient: Patient, line: int) -> str:
        if line in patient.wrong_lines:
            return f"Line {line} it was. {patient.cure}"
        return f"Line {line} is healthy; it was {_lines_in_words(patient.wrong_lines)}."

    # What is shown ---------------------------------------------------------------------------

    def visit(self, number: int) -> None:
        """Show what a patient's owner says and sees, and the lines among which to look."""
        patient, _ = self._of(number)
        print(f"Patient {number} ({patient.level}): “{patient.complaint}”")
        plots.show(self.symptom(number), alt=self.told(number))
        print(self.listing(number))

    def listing(self, number: int) -> Told:
        """The lines among which to look, with their numbers."""
        patient, _ = self._of(number)
        numbered = (f"{i:3d}  {line}" for i, line in enumerate(patient.lines, start=1))
        return Told("\n".join(line.rstrip() for line in numbered))

    def told(self, number: int) -> str:
        """What a patient's picture shows, in a sentence."""
        patient, _ = self._of(number)
        what = (getattr(figures, patient.symptom).__doc__ or "").splitlines()[0]
        return f"What the owner of patient {number} sees. {what}"

    @functools.cache  # noqa: B019
    def symptom(self, number: int) -> np.ndarray:
        """The picture that its owner brings, uint8 ``(height, width, 3)``."""
        patient, _ = self._of(number)
        draw = getattr(figures, patient.symptom)
        return plots.figure_to_array(draw({"": self[number]}))

    @functools.cache  # noqa: B019
    def both(self, number: int) -> np.ndarray:
        """The same picture before and after the cure."""
        patient, _ = self._of(number)
        draw = getattr(figures, patient.symptom)
        return plots.figure_to_array(draw({"before": self[number], "after": Program()}))

    def cure(self, number: int) -> None:
        """Show the cure of a patient that was found, or given up: the lines, and the picture."""
        patient, chart = self._of(number)
        if not (chart.found or chart.given_up):
            print("Not yet: accuse the line first, or give up.")
            return
        print("\n".join(patient.changed))
        plots.show(self.both(number), alt=f"Before and after the cure. {self.told(number)}")
        print(f"{patient.cure}\nPublished: {patient.published}")

    def open(self, number: int = 1) -> Rounds:
        """Show the ward with buttons, one for each line; draws all pictures first."""
        rounds = Rounds(self, number)
        cards = [(i, self.patients[i], self.symptom(i)) for i in range(1, len(self))]
        still = plots.to_png(figures.waiting_room(cards))
        widgets.show_widget(rounds, repr(rounds), still)
        return rounds

    # What is kept ----------------------------------------------------------------------------

    def _note(self, number: int, what: str, line: int | None = None) -> None:
        """Write down what was said, on the chart and in the file."""
        _put_down(self.charts[number], what, line)
        if self.notes is not None:
            entry = {"patient": self.patients[number].name, "what": what, "line": line}
            with self.notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def _read(self, path: Path) -> None:
        numbers = {patient.name: number for number, patient in enumerate(self.patients)}
        try:
            if path.stat().st_size > LARGEST_NOTES:
                raise ValueError("it is too large")
            for text in path.read_text("utf-8").splitlines():
                name, what, line = (json.loads(text)[key] for key in ("patient", "what", "line"))
                if name in numbers:
                    _put_down(self.charts[numbers[name]], what, line)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"notes={str(path)!r}: a file of notes has one entry a line, and this is none "
                f"({error}). It was left as it is; name another file."
            ) from None


def _put_down(chart: Chart, what: str, line: Any) -> None:
    """One entry on a chart. Raises ValueError if there is no such entry."""
    if what == "wrong" and isinstance(line, int):
        chart.wrong.append(line)
    elif what == "hint":
        chart.hints += 1
    elif what in ("found", "given up"):
        chart.found |= what == "found"
        chart.given_up |= what == "given up"
    else:
        raise ValueError(f"there is no entry {what!r}")


def _lines_in_words(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"line {low}" if low == high else f"lines {low} to {high}"


class Rounds(widgets.Panel):
    """The ward with buttons: choose a patient, look, press the line that is wrong.

    Attributes:
        ward: whose patients these are; what is said here is said there.
        menu: chooses the patient.
        lines: a button for each line that is not empty, by its number.
        reply: what was answered last.
    """

    def __init__(self, ward: Ward, number: int = 1) -> None:
        """Draw all pictures, and begin with a patient."""
        self.ward = ward
        self.lines: dict[int, ipywidgets.Button] = {}
        names = [(f"{i} · {ward.patients[i].level}", i) for i in range(1, len(ward))]
        self.menu = widgets.choice("patient", names, value=number)
        self.complaint, self.picture = ipywidgets.HTML(), ipywidgets.HTML()
        self.code, self.reply, self.cured = ipywidgets.VBox(), ipywidgets.HTML(), ipywidgets.HTML()
        self.code.add_class("ward-code")
        self.score, row = ipywidgets.HTML(), ipywidgets.HBox()
        row.children = [_button("a hint", self._hint), _button("give up", self._give_up)]
        style = ipywidgets.HTML(f"<style>{_STYLE}</style>")
        style.layout.display = "none"
        for each in range(1, len(ward)):
            ward.symptom(each)
        parts = [self.menu, self.complaint, self.picture, self.code, self.reply, row]
        super().__init__([*parts, self.cured, self.score, style])
        self.menu.observe(self._visit, names="value")
        self._visit()

    @property
    def number(self) -> int:
        """The patient that is shown."""
        return int(self.menu.value)

    def _visit(self, _change: Any = None) -> None:
        patient = self.ward.patients[self.number]
        self.complaint.value = f"<i>“{html.escape(patient.complaint, quote=False)}”</i>"
        self.picture.value = widgets.picture_tag(
            self.ward.symptom(self.number), self.ward.told(self.number)
        )
        self.lines, rows = {}, []
        for i, line in enumerate(patient.lines, start=1):
            if line.strip():
                self.lines[i] = _button(f"{i:3d}  {line}", functools.partial(self.accuse, i))
                self.lines[i].add_class("ward-line")
            rows.append(self.lines.get(i) or ipywidgets.HTML("&nbsp;"))
        self.code.children = rows
        self._say("Press the line that is wrong.")
        self._mark()

    def accuse(self, line: int) -> None:
        """Accuse a line of the patient that is shown."""
        self._say(self.ward.accuse(self.number, line))
        self._mark()

    def _hint(self) -> None:
        self._say(self.ward.hint(self.number))
        self._mark()

    def _give_up(self) -> None:
        self._say(self.ward.give_up(self.number))
        self._mark()

    def _mark(self) -> None:
        """Show which lines are known, the cure if there is one, and the score."""
        patient, chart = self.ward.patients[self.number], self.ward.charts[self.number]
        for line in chart.wrong:
            if line in self.lines:
                self.lines[line].add_class("ward-healthy")
        self.cured.value = ""
        if chart.found or chart.given_up:
            for line in patient.wrong_lines & set(self.lines):
                self.lines[line].add_class("ward-found")
            kinds = {"-": "ward-goes", "+": "ward-comes"}
            lines = "".join(
                f'<div class="{kinds[line[0]]}">{html.escape(line, quote=False)}</div>'
                for line in patient.changed
            )
            told = f"Before and after the cure. {self.ward.told(self.number)}"
            picture = widgets.picture_tag(self.ward.both(self.number), told)
            self.cured.value = (
                f'<div class="ward-diff">{lines}</div>{picture}'
                f"<p><b>Published.</b> {html.escape(patient.published, quote=False)}</p>"
            )
        self.score.value = f"<b>{self.ward.score()}</b>"

    def _say(self, words: str) -> None:
        self.reply.value = f'<div role="status">{html.escape(words, quote=False)}</div>'

    def __repr__(self) -> str:
        """What one can do here, for where no widget can be shown."""
        count = len(self.ward) - 1
        return (
            f"The waiting room: {count} patients, each with its picture and what its owner says. "
            "Run this cell to choose one and to press the line that is wrong."
        )


def _button(text: str, act: Any) -> ipywidgets.Button:
    button = ipywidgets.Button(description=text)
    button.on_click(lambda _button: act())
    return button
