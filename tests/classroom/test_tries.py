"""Help that grows with each different wrong try, and begins anew when the answer is right."""

import numpy as np
import pytest

from diffusion_walkthrough.classroom import tries
from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    show_solution as show_solution,
)


@pytest.fixture(autouse=True)
def _nobody_has_tried_yet():
    tries.forget()


def check_product(attempt):
    """Mark a function ``(x, y)`` that multiplies (Eqs. 3 and Eq. 5)."""
    return mark(call(attempt, 3.0, 5.0), 15.0, [(8.0, "That is the sum.")], "Yes.")


def solution_product(x, y):
    """Two lines."""
    result = x * y
    return result  # noqa: RET504


def check_formula(attempt):
    """Mark how many
    weights there are.

    This is not said.
    """
    return mark(attempt, 3 * 4 + 2, [], "Yes.", tolerance=1e-9)


solution_formula = 3 * 4 + 2


def check_letter(attempt):
    """Mark the letter: it is (b)."""
    return mark_choice(attempt, "b", "Yes.", {"a": "Not that.", "c": "Nor this."})


solution_letter = "b"


def check_told(attempt):
    """Mark a share."""
    return mark(attempt, 0.25, [], "Yes.", tolerance=2e-3)


solution_told = 0.25


def check_four_letters(attempt):
    """Mark the letter: it is (b)."""
    return mark_choice(attempt, "b", "Yes.", {"a": "No.", "c": "Nor this.", "d": "Nor that."})


solution_four_letters = "b"
look_told = "the picture of the two bells."
steps_told = "a half of a half."


def shown(check, *attempts):
    """What the page shows after the last of these attempts."""
    return [repr(check(attempt)) for attempt in attempts][-1]


def test_the_first_try_gets_the_hint_alone():
    assert shown(check_product, lambda x, y: x + y) == "✗ Not yet. That is the sum."


def test_the_second_says_where_to_look_and_the_third_how_a_solution_begins():
    second = shown(check_product, lambda x, y: x + y, lambda x, y: x - y)
    assert second.splitlines()[-1] == "Where to look: Eqs. 3 and Eq. 5, symbol by symbol."
    third = shown(check_product, lambda x, y: x / y)
    assert third.splitlines()[-4:] == [
        "Where to look: Eqs. 3 and Eq. 5, symbol by symbol.",
        "A solution begins:",
        "    result = x * y",
        "A whole solution: ask.show_solution(ask.check_product)",
    ]
    assert shown(check_product, lambda x, y: x**y).endswith("ask.check_product)")


def test_the_same_try_again_gets_no_more_help():
    def again():
        return lambda x, y: x + y + 1

    assert shown(check_product, *[again() for _ in range(5)]).count("\n") == 1  # a long line
    assert "Where to look" not in shown(check_product, again())


def test_whoever_looks_twice_sees_the_same():
    verdict = check_product(lambda x, y: x + y)
    assert repr(verdict) == repr(verdict)


def test_an_answer_is_counted_when_it_is_shown():
    for _ in range(3):
        check_formula(7)
        check_formula(8)
    assert "Read again" not in shown(check_formula, 9)


def test_a_right_answer_begins_anew():
    shown(check_formula, 7, 8, 9)
    assert shown(check_formula, 14) == "✓ Right. Yes."
    assert "Read again" not in shown(check_formula, 7)


def test_each_exercise_counts_for_itself():
    shown(check_formula, 7, 8, 9)
    assert "Where to look" not in shown(check_product, lambda x, y: x + y)


def test_an_empty_place_counts_nothing():
    shown(check_formula, 7)
    assert shown(check_formula, *[...] * 4).startswith("… Not answered yet.")
    assert "\n" not in shown(check_formula, ...)


def test_without_an_equation_it_says_again_what_is_asked():
    assert "Read again what is asked for: how many weights there are." in shown(check_formula, 7, 8)
    assert "    3 * 4 + …" in shown(check_formula, 9)


def test_of_a_letter_nothing_is_given_away():
    text = shown(check_four_letters, "a", "c", "d")
    assert "(b)" not in text
    assert "'b'" not in text
    assert text.endswith("ask.show_solution(ask.check_four_letters)")


def test_what_is_no_letter_of_the_question_is_no_try():
    assert shown(check_letter, "z", "x", 3, "a").removeprefix("✗ Not yet. ") == "Not that."
    assert "show_solution" not in shown(check_letter, "z", "x", "y", "w")


def test_the_module_s_own_words_come_first():
    text = shown(check_told, 7, 8, 9)
    assert "Where to look: the picture of the two bells." in text
    assert "How it is put together: a half of a half." in text
    assert "begins" not in text


def test_words_that_begin_with_look_stand_for_themselves(monkeypatch):
    monkeypatch.setitem(globals(), "look_told", "Look at the bells.")
    assert "\nLook at the bells." in shown(check_told, 7, 8)


def test_answers_are_told_apart_by_what_they_are():
    class Mine:
        def step(self):
            return 1

    first = Mine

    class Mine:
        def step(self):
            return 2

    answers = [0.5, 0.6, "a", np.zeros(2), np.ones(2), first, Mine, None]
    answers += [lambda x: x, lambda x: x + 1, lambda x: x - 1, lambda y: [2 * z for z in y]]
    told = [tries._told_apart(answer) for answer in answers]
    assert len(set(told)) == len(told)
    assert tries._told_apart(lambda x: x + 1) == told[-3]


def test_outside_of_a_check_there_is_no_try():
    assert Verdict(False, "So.").tried is None
    assert repr(Verdict(False, "So.")) == "✗ Not yet. So."


def test_verdicts_that_say_the_same_are_equal():
    assert check_formula(7) == Verdict(False, check_formula(7).message)


def one_call(x):
    return np.cumprod(1 - x)


def in_brackets(x):
    return 0.5 * (x + 1)


def two_things(x):
    return x + 1, x


def rounded(x):
    return int(np.argmax(np.cumprod(x) <= 0.5))


def long(x):
    if x:
        x = 1
        x = 2
        x = 3
        x = 4
    return x


@pytest.mark.parametrize(
    ("solution", "begin"),
    [
        (one_call, "return np.cumprod(1 - …)"),
        (in_brackets, "return 0.5 * …"),
        (two_things, "return (x + 1, …)"),
        (rounded, "return int(np.argmax(np.cumprod(…) <= …))"),
        (long, "if x:\n    x = 1\n    x = 2\n    x = 3"),
    ],
)
def test_how_a_solution_begins(monkeypatch, solution, begin):
    import inspect

    source = inspect.getsource(solution).replace(solution.__name__, "solution_it", 1)
    monkeypatch.setattr(tries.inspect, "getsource", lambda _: source)
    assert tries._beginning(tries.Try(__name__, "it", "")) == begin
