"""Predict: a question that is answered before the experiment, and looked at again after it."""

from __future__ import annotations

import html
import math
import re
from numbers import Integral
from typing import Any

import ipywidgets

from diffusion_walkthrough.classroom.widgets import Panel, show_widget

#: How far a guessed number may be from the answer to be called close, as a share of the answer.
CLOSE = 0.1

#: What was asked last, by question and choices.
_asked: dict[tuple[str, ...], Guess] = {}


class Guess(Panel):
    """A question with choices, or with a place for a number, and a line that answers.

    Nothing has to be entered: whoever only runs the cells, or reads the page, sees the answer
    below the experiment. What was entered is compared with it, before or after.

    Attributes:
        question: what is asked.
        choices: what can be chosen; none if a number is asked for.
        entry: the widget that holds the reader's guess.
        reply: the line below it.
        answer: what came out, once :meth:`reveal` was called; None before.
    """

    def __init__(self, question: str, choices: tuple[str, ...]) -> None:
        """Build the question; see :func:`predict`."""
        self.question, self.choices = question, choices
        self.answer: str | float | None = None
        self.because = ""
        if choices:
            layout = ipywidgets.Layout(width="auto")
            self.entry: Any = ipywidgets.RadioButtons(options=choices, value=None, layout=layout)
        else:
            self.entry = ipywidgets.Text(placeholder="a number", continuous_update=False)
        self.reply = ipywidgets.HTML()
        asked = ipywidgets.HTML(
            f"<b>Predict.</b> <span>{html.escape(question, quote=False)}</span>"
        )
        super().__init__([asked, self.entry, self.reply])
        self.entry.observe(self._respond, names="value")

    @property
    def value(self) -> str | float | None:
        """The reader's guess: a choice, a number, or None if there is none."""
        entered = self.entry.value
        if not entered:
            return None
        return entered if self.choices else to_number(entered)

    def reveal(self, answer: str | float, because: str) -> None:
        """Say what came out, beside what the reader had guessed.

        Args:
            answer: one of the choices, or the number: a whole one is said exactly, any other to
                three digits.
            because: why, in a sentence.

        Raises:
            ValueError: if the answer is not among the choices, or is no finite number.
        """
        self.answer, self.because = self._checked(answer), because
        self._respond()
        print(self._sentence(self.answer))

    def _checked(self, answer: Any) -> str | float:
        another = f"For another question, run the cell that asks it first; this is {self.question}"
        if self.choices:
            if answer not in self.choices:
                raise ValueError(
                    f"{answer!r} is not among the choices. Reveal one of: "
                    f"{', '.join(self.choices)}. {another}"
                )
            return str(answer)
        if isinstance(answer, str) or not math.isfinite(answer):
            raise ValueError(f"{answer!r} is no finite number, and one was asked for. {another}")
        return int(answer) if isinstance(answer, Integral) else float(answer)

    def _sentence(self, answer: str | float) -> str:
        said = self.value
        if said is None:
            begin = f"It is: {in_words(answer)}."
        elif in_words(said) == in_words(answer):
            begin = f"You said {in_words(said)}, and so it is."
        elif is_close(said, answer):
            begin = f"You said {in_words(said)}, which is close: it is {in_words(answer)}."
        else:
            begin = f"You said {in_words(said)}; it is: {in_words(answer)}."
        return f"{begin} {self.because}".rstrip()

    def _respond(self, _change: Any = None) -> None:
        """Answer in the page; before the experiment, say only what was understood."""
        if self.value is None and self.entry.value:
            text = f"{self.entry.value!r} is not a number. Write one, such as 0.5 or 20."
        elif self.answer is not None:
            text = self._sentence(self.answer)
        elif self.value is not None:
            text = f"Noted: {in_words(self.value)}. Now run the next cell."
        else:
            text = ""
        self.reply.value = f'<div role="status">{html.escape(text, quote=False)}</div>'

    def __repr__(self) -> str:
        """The question and its choices, for where no widget can be shown."""
        asked = f"Predict. {self.question}"
        if not self.choices:
            return f"{asked}\nRun this cell to write down a number."
        choices = "".join(f"\n  ○ {choice}" for choice in self.choices)
        return f"{asked}{choices}\nRun this cell to choose."


def predict(question: str, *choices: str) -> Guess:
    """Ask the reader, before an experiment, what will come out.

    Asked again, it starts anew; but what was entered stays as long as it has no answer, because
    Shift+Enter after a click on a choice runs the cell with the question once more.

    Args:
        question: one sentence.
        *choices: the answers to choose from; none if a number is asked for.

    Returns:
        The guess, already displayed. After the experiment call :meth:`Guess.reveal`.

    Raises:
        ValueError: if there is a single choice, or one twice.
    """
    if len(choices) == 1 or len(set(choices)) < len(choices):
        raise ValueError(f"choices={choices!r}: give at least two, all different, or none.")
    guess = Guess(question, choices)
    earlier = _asked.get((question, *choices))
    if earlier is not None and earlier.answer is None:
        guess.entry.value = earlier.entry.value
    _asked[(question, *choices)] = guess
    show_widget(guess, repr(guess))
    return guess


def to_number(entered: str) -> int | float | None:
    """The number that a person wrote, in English or German notation; None if it is none.

    Where both marks stand, the last one is the decimal mark. A mark that stands more than once, or
    a comma before exactly three digits that are not all of the fraction of 0, parts thousands.
    """
    text = re.sub(r"[\s_'’%≈~]", "", entered).replace("−", "-")
    comma, point = text.rfind(","), text.rfind(".")
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", text):
        text = text.replace(",", "")
    elif re.fullmatch(r"[+-]?[1-9]\d{0,2}(\.\d{3}){2,}|[+-]?[1-9]\d{0,2}(\.\d{3})+,\d*", text):
        text = text.replace(".", "").replace(",", ".")
    elif comma >= 0 and point < 0:
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number


def in_words(answer: str | float) -> str:
    """A choice without its full stop; a whole number in full, any other to three digits."""
    if isinstance(answer, str):
        return answer.rstrip(".")
    if isinstance(answer, int):
        return f"{answer:,}"
    return f"{float(f'{answer:.3g}') + 0.0:,}".removesuffix(".0")


def is_close(said: str | float, answer: str | float) -> bool:
    """Whether two numbers are within a tenth of the second."""
    if isinstance(said, str) or isinstance(answer, str):
        return False
    return abs(said - answer) <= CLOSE * abs(answer)
