"""What every exercise needs: a verdict, a comparison, and a look at the solution."""

from __future__ import annotations

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
        answer: the reader's number or array.
        expected: the right one.
        hints: pairs of a foreseen wrong answer and the hint that names its misconception.
        right: what the right answer means.
        tolerance: relative (and absolute) tolerance of the comparisons.
    """
    waiting = unanswered(answer)
    if waiting:
        return waiting
    if same_numbers(answer, expected, tolerance):
        return Verdict(True, right)
    for wrong, hint in hints:
        if same_numbers(answer, wrong, tolerance):
            return Verdict(False, hint)
    shape = np.shape(answer)
    if shape != np.shape(expected):
        return Verdict(False, f"The answer has shape {shape}; {np.shape(expected)} is expected.")
    return Verdict(
        False, "The numbers differ. Compare each factor with the equation, one at a time."
    )


def show_solution(check: Callable[[Any], Verdict]) -> None:
    """Print a solution of the exercise that ``check`` marks.

    Args:
        check: the ``check_*`` function of the exercise.

    Raises:
        ValueError: if it is not a check of an exercise.
    """
    module = inspect.getmodule(check)
    name = check.__name__.replace("check_", "solution_", 1)
    solution = getattr(module, name, None)
    if solution is None or not check.__name__.startswith("check_"):
        raise ValueError(
            f"{check.__name__} is not the check of an exercise; pass a function whose name begins "
            "with check_, without calling it."
        )
    print(inspect.getsource(solution) if callable(solution) else f"{name} = {solution!r}")
