"""What every exercise needs: a verdict, a comparison, and a look at the solution."""

from __future__ import annotations

import copy
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Verdict:
    """The answer to an attempt.

    Attributes:
        right: True or False; None while there is no attempt.
        message: a hint after a wrong attempt, what it means after a right one.
    """

    right: bool | None
    message: str

    def __repr__(self) -> str:
        """A mark and the message, wrapped to fit a notebook's column."""
        mark = {True: "✓ Right.", False: "✗ Not yet.", None: "… Not answered yet."}[self.right]
        return textwrap.fill(f"{mark} {self.message}", width=88)


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
        answer = attempt(*copy.deepcopy(arguments))
    except Exception as error:
        return Verdict(False, f"Your function stopped with {type(error).__name__}: {error}")
    if answer is None:
        return Verdict(False, "Your function returns nothing. Is the word return missing in it?")
    return answer


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
) -> Verdict:
    """Compare an answer with the right one, then with each foreseen wrong one.

    Args:
        answer: the reader's number or array, or the verdict that :func:`call` gave instead.
        expected: the right one.
        hints: pairs of a foreseen wrong answer and the hint that names its misconception.
        right: what the right answer means.
        tolerance: relative (and absolute) tolerance of the comparisons.
    """
    if isinstance(answer, Verdict):
        return answer
    waiting = unanswered(answer)
    if waiting:
        return waiting
    if same_numbers(answer, expected, tolerance):
        return Verdict(True, right)
    for wrong, hint in hints:
        if same_numbers(answer, wrong, tolerance):
            return Verdict(False, hint)
    return Verdict(False, _unforeseen(answer, expected))


def _unforeseen(answer: Any, expected: Any) -> str:
    """What can be said of a wrong answer that nobody foresaw."""
    try:
        shape = np.shape(answer)
        if shape != np.shape(expected):
            return f"The answer has shape {shape}; {np.shape(expected)} is expected."
        numbers = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        return f"Numbers are expected here, and {answer!r} cannot be read as such."
    if not np.isfinite(numbers).all():
        return "Some numbers are NaN or infinite: look for a division by 0 or a negative root."
    return "The numbers differ. Compare each factor with the equation, one at a time."


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
