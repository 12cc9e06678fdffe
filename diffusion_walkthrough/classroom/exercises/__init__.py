"""The exercises of each chapter, one module per chapter, of the same name.

A ``check_*`` function takes the reader's attempt, a value or a function, and answers with a
:class:`Verdict`: a wrong attempt gets a hint that names the misconception behind it, a right one
what it means. Every check has a solution of the same name, which :func:`show_solution` prints
and the tests hand in. With further wrong tries the page shows more: where to look (``look_*``, or
the equation that the check's docstring names), and how a solution begins (``steps_*``, or the first
line of it).
"""

from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    same_numbers,
    show_solution,
    unanswered,
)

__all__ = ["Verdict", "call", "mark", "mark_choice", "same_numbers", "show_solution", "unanswered"]
