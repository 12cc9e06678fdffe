"""What every exercise needs: a verdict, a comparison, and a look at the solution."""

from __future__ import annotations

import copy
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom import diagnosis, mishaps, tries


@dataclass(frozen=True)
class Verdict:
    """The answer to an attempt.

    Shown in a page it says more with each further wrong try: see :mod:`tries`.

    Attributes:
        right: True or False; None while there is no attempt.
        message: a hint after a wrong attempt, what it means after a right one.
        tried: which exercise it is of, and what was handed in; found by itself.
    """

    right: bool | None
    message: str
    tried: tries.Try | None = field(default_factory=tries.current, compare=False)

    def __repr__(self) -> str:
        """A mark and the message, wrapped to fit a notebook's column; then the growing help."""
        mark = {True: "✓ Right.", False: "✗ Not yet.", None: "… Not answered yet."}[self.right]
        lines = [f"{mark} {self.message}"]
        if self.tried is not None and self.right is not None:
            strength = tries.count(self.tried, self.right, self.message)
            lines += tries.more_help(self.tried, strength)
        # A line that is indented is code, and stays as it is.
        return "\n".join(s if s.startswith(" ") else textwrap.fill(s, width=88) for s in lines)


def unanswered(attempt: Any) -> Verdict | None:
    """Recognize an attempt that was not made: None or the three dots.

    Returns:
        A verdict that says what to do, or None if there is an attempt to check.
    """
    if attempt is None or attempt is ...:
        return Verdict(None, "Put your answer in the place of the three dots and run the cell.")
    return None


def call(attempt: Any, *arguments: Any) -> Any:
    """Call the reader's function, so that its mistakes become a verdict and not a traceback.

    Args:
        attempt: what the reader handed in, a function if all is well.
        *arguments: what to call it with; it gets copies, which it may change in place.

    Returns:
        What it returns, for :func:`mark`, or a verdict if there is nothing to mark.
    """
    waiting = unanswered(attempt)
    if waiting:
        return waiting
    if not callable(attempt):
        return Verdict(
            False,
            f"A function is expected here, not {attempt!r}. Pass its name, without calling it.",
        )
    try:
        answer, again = (attempt(*copy.deepcopy(arguments)) for _ in range(2))
    except Exception as error:
        return Verdict(False, mishaps.explain(error))
    if answer is None:
        return Verdict(False, "Your function returns nothing. Is the word return missing in it?")
    if _random(answer, again):
        return Verdict(
            False,
            "Called twice with the same arguments, your function gives two results: it draws "
            "numbers of its own. Use what it is given.",
        )
    return answer


def _random(answer: Any, again: Any) -> bool:
    """Whether two results of the same call are numbers, and differ."""
    try:
        return not np.array_equal(
            np.asarray(answer, np.float64), np.asarray(again, np.float64), equal_nan=True
        )
    except (TypeError, ValueError):
        return False


def same_numbers(attempt: Any, expected: Any, tolerance: float = 1e-4) -> bool:
    """Whether two arrays of numbers agree in shape and, within a relative tolerance, in value."""
    try:
        left = np.asarray(attempt, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    right = np.asarray(expected, dtype=np.float64)
    return left.shape == right.shape and bool(
        np.allclose(left, right, rtol=tolerance, atol=tolerance)
    )


def mark(
    answer: Any,
    expected: Any,
    hints: list[tuple[Any, str]],
    right: str,
    tolerance: float = 1e-4,
    *,
    places: list[str] | None = None,
    parts: dict[str, Any] | None = None,
) -> Verdict:
    """Compare an answer with the right one, then with each foreseen wrong one.

    A number is also right, or a foreseen wrong one, if it is so when rounded as the reader did, to
    at least two digits. If nothing foreseen fits, what its numbers say is asked as a question.

    Args:
        answer: the reader's number or array, or the verdict that :func:`call` gave instead.
        expected: the right one.
        hints: pairs of a foreseen wrong answer and the hint that names its misconception.
        right: what the right answer means.
        tolerance: relative (and absolute) tolerance of the comparisons.
        places: what the entries along the first axis are called, such as "t = 0"; by default
            "index 0" and so on.
        parts: what the answer is a sum of, each times a factor, by the name it goes by in a
            sentence, such as "the image"; then a hint can say whose factor is wrong.
    """
    if isinstance(answer, Verdict):
        return answer
    waiting = unanswered(answer)
    if waiting:
        return waiting
    answer = _without_batch(answer, expected)
    for same in (same_numbers, _same_when_rounded):
        if same(answer, expected, tolerance):
            return Verdict(True, right)
        for wrong, hint in hints:
            if same(answer, wrong, tolerance):
                return Verdict(False, hint)
    return Verdict(False, _unforeseen(answer, expected, tolerance, places, parts))


def _without_batch(answer: Any, expected: Any) -> Any:
    """A shape as Keras prints it, (None, 7, 7, 64), without the None that stands for the batch."""
    if isinstance(answer, tuple | list) and len(answer) == np.size(expected) + 1:
        return answer[1:] if answer[0] is None else answer
    return answer


def _same_when_rounded(answer: Any, expected: Any, tolerance: float) -> bool:
    """Whether a number is the other one rounded, with at least two digits left of it."""
    try:
        left, right = np.asarray(answer, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    if left.shape or right.shape or not np.isfinite([left, right]).all():
        return False
    return diagnosis.rounded_alike(float(left), float(right), tolerance)


def _unforeseen(
    answer: Any,
    expected: Any,
    tolerance: float,
    places: list[str] | None,
    parts: dict[str, Any] | None,
) -> str:
    """What can be said of a wrong answer that nobody foresaw."""
    try:
        if np.shape(answer) != np.shape(expected):
            return mishaps.of_shape(answer, expected)
        numbers = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        if callable(answer):
            return "Numbers are expected here, not a function. Call it, or write what it returns."
        return f"Numbers are expected here, and {answer!r} cannot be read as such."
    if not np.isfinite(numbers).all():
        return _not_finite(numbers)
    if not numbers.shape:
        decimals = diagnosis.written(float(numbers))[1]
        if decimals and diagnosis.rounded_alike(float(numbers), expected, tolerance, digits=1):
            return f"Right as far as it goes. Please give at least {decimals + 1} decimals."
        return diagnosis.of_number(float(numbers), expected, tolerance)
    if parts and (said := diagnosis.of_parts(numbers, expected, parts, places)):
        return said
    return diagnosis.of_array(numbers, expected, tolerance, places)


def _not_finite(numbers: Any) -> str:
    """Where numbers are NaN or infinite, and what that may come from."""
    finite = np.isfinite(numbers)
    where = ", all of them" if numbers.size > 1 and not finite.any() else ""
    if numbers.size == 1:
        begin = "Your number is NaN or infinite"
    else:
        first = tuple(map(int, np.argwhere(~finite)[0]))
        where = where or f", first at index {first[0] if len(first) == 1 else first}"
        begin = f"Some numbers are NaN or infinite{where}"
    return f"{begin}: look for a division by 0 or a negative root."


def mark_choice(
    attempt: Any,
    right: str | set[str],
    message: str,
    replies: dict[str, str],
) -> Verdict:
    """Mark an answer that is a letter, or several where several are asked for.

    Args:
        attempt: what the reader handed in: "b", "B)" or " b. "; of several, "a, c", "ac" or a list.
        right: the right letter; or the set of all that belong to the answer, where the question
            asks for all of them.
        message: what the right answer means.
        replies: for each wrong letter, what speaks against it.
    """
    if waiting := unanswered(attempt):
        return waiting
    wanted = {right} if isinstance(right, str) else set(right)
    letters = sorted(wanted | set(replies))
    single = isinstance(right, str)
    chosen = _letters_in(attempt, letters)
    if not chosen or (single and (len(chosen) > 1 or not isinstance(attempt, str))):
        number = "one" if single else "one or more"
        named = "That" if len(repr(attempt)) > 40 else repr(attempt)
        return Verdict(
            False,
            f"{named} is not among the answers. Answer with {number} of {letters[0]!r} to "
            f"{letters[-1]!r}, in quotes, such as {letters[0]!r}.",
            tried=None,  # a slip of the pen is no try
        )
    for letter in chosen:
        if letter not in wanted:
            return Verdict(False, replies[letter])
    if len(chosen) < len(wanted):
        return Verdict(False, "That belongs to the answer, but it is not yet all of it.")
    return Verdict(True, message)


def _letters_in(attempt: Any, letters: list[str]) -> list[str]:
    """The letters that an attempt names, in its order; none if anything else stands in it."""
    pieces = [attempt] if isinstance(attempt, str) else attempt
    if isinstance(pieces, set | frozenset):
        pieces = sorted(pieces, key=str)
    if not isinstance(pieces, list | tuple):
        return []
    if not all(isinstance(piece, str) for piece in pieces):
        return []
    words = re.findall(r"\w+", " ".join(pieces).lower().replace(" and ", " "))
    if len(words) == 1 and words[0] not in letters:
        words = list(words[0])
    chosen = list(dict.fromkeys(words))
    return chosen if set(chosen) <= set(letters) else []


def show_solution(check: Callable[[Any], Verdict]) -> None:
    """Print a solution of the exercise that ``check`` marks.

    Args:
        check: the ``check_*`` function of the exercise.

    Raises:
        ValueError: if it is not a check of an exercise.
    """
    module = inspect.getmodule(check)
    called = getattr(check, "__name__", repr(check))
    name = called.replace("check_", "solution_", 1)
    solution = getattr(module, name, None)
    if solution is None or not called.startswith("check_"):
        raise ValueError(
            f"{called} is not the check of an exercise; pass a function whose name begins "
            "with check_, without calling it."
        )
    print(inspect.getsource(solution) if callable(solution) else f"{name} = {solution!r}")
