import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.classroom import exercises
from diffusion_walkthrough.classroom.exercises import forward_diffusion as ask
from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    same_numbers,
    show_solution,
    unanswered,
)

HINTS = [(2.0, "You doubled it."), (2.0, "Never reached."), (0.5, "You halved it.")]


@pytest.mark.parametrize(
    ("right", "start"),
    [(True, "✓ Right. "), (False, "✗ Not yet. "), (None, "… Not answered yet. ")],
)
def test_a_verdict_reads_as_a_sentence_that_fits_the_page(right, start):
    text = repr(Verdict(right, "Because " + "of this and that " * 20))
    assert text.startswith(start + "Because of this")
    assert max(map(len, text.splitlines())) <= 88
    assert text.count("of this and that") == 20 or " ".join(text.split()).count("of this") == 20


@pytest.mark.parametrize("attempt", [None, ...])
def test_an_empty_place_is_unanswered(attempt):
    assert unanswered(attempt).right is None
    assert "three dots" in unanswered(attempt).message
    assert mark(attempt, 1.0, HINTS, "yes").right is None


@pytest.mark.parametrize("attempt", [0, 0.0, False, "", [], np.zeros(3), np.array(None)])
def test_an_answer_that_counts_as_false_is_an_answer(attempt):
    assert unanswered(attempt) is None


def test_numbers_agree_in_value_and_in_shape():
    assert same_numbers([1, 2], np.array([1.0, 2.00001]))
    assert same_numbers(ops.convert_to_tensor([1.0, 2.0]), [1, 2])
    assert not same_numbers([1, 2], [1, 2.01])
    assert same_numbers([1, 2], [1, 2.01], tolerance=0.01)
    assert not same_numbers([[1, 2]], [1, 2])
    assert not same_numbers([1, 1], 1)
    assert not same_numbers([1.0, np.nan], [1.0, 2.0])


@pytest.mark.parametrize("attempt", ["text", [1, [2, 3]], object(), {"a": 1}, lambda: 1])
def test_what_is_no_number_agrees_with_nothing(attempt):
    assert not same_numbers(attempt, 1.0)


@pytest.mark.parametrize(
    ("answer", "right", "message"),
    [
        (1.0, True, "That is it."),
        (np.float32(1.00005), True, "That is it."),
        (2.0, False, "You doubled it."),
        (0.5, False, "You halved it."),
        (7.0, False, "The numbers differ."),
        ([1.0], False, "The answer has shape (1,); () is expected."),
        ("text", False, "'text' cannot be read as such"),
        ([1, [2, 3]], False, "[1, [2, 3]] cannot be read as such"),
        (float("nan"), False, "NaN or infinite"),
        (-np.inf, False, "NaN or infinite"),
        (Verdict(False, "Passed on."), False, "Passed on."),
    ],
)
def test_mark_finds_the_answer_or_its_misconception(answer, right, message):
    verdict = mark(answer, 1.0, HINTS, "That is it.")
    assert verdict.right is right
    assert message in verdict.message


def test_the_right_answer_is_right_even_if_a_hint_lies_next_to_it():
    assert mark(1.0, 1.0, [(1.00001, "Off by a little.")], "yes").right is True


def test_call_hands_over_the_arguments_and_returns_the_answer():
    assert call(lambda a, b: a - b, 5, 3) == 2


@pytest.mark.parametrize(
    ("attempt", "right", "message"),
    [
        (..., None, "three dots"),
        (None, None, "three dots"),
        (3.5, False, "A function is expected here, not 3.5."),
        (lambda x: 1 / 0, False, "Your function stopped with ZeroDivisionError: division by zero"),
        (lambda: 1, False, "Your function stopped with TypeError"),
        (lambda x: None, False, "Is the word return missing"),
    ],
)
def test_call_turns_mistakes_into_verdicts(attempt, right, message):
    verdict = call(attempt, 1.0)
    assert isinstance(verdict, Verdict)
    assert verdict.right is right
    assert message in verdict.message


def test_call_lets_the_reader_stop_a_function_that_does_not_end():
    def endless(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(endless, 1)


def test_a_function_that_returns_the_three_dots_is_unanswered():
    assert mark(call(lambda x: ..., 1.0), 1.0, HINTS, "yes").right is None


def test_call_is_not_fooled_by_a_function_that_works_in_place():
    argument = np.ones(3)

    def in_place(x):
        x *= 2
        return x

    np.testing.assert_array_equal(call(in_place, argument), [2, 2, 2])
    np.testing.assert_array_equal(argument, [1, 1, 1])


def test_solutions_are_printed_as_code_or_as_a_value(capsys):
    show_solution(ask.check_one_step)
    code = capsys.readouterr().out
    assert code.startswith("def solution_one_step(x_prev")
    names = {"Any": object, "np": np}
    exec(code, names)  # what is printed can be pasted into a cell and is right
    assert ask.check_one_step(names["solution_one_step"]).right is True
    show_solution(ask.check_two_steps)
    assert capsys.readouterr().out == "solution_two_steps = 0.72\n"


@pytest.mark.parametrize(
    "wrong",
    [ask.solution_one_step, ask.check_two_steps(0.72), np.sqrt, "check_one_step", lambda: 1],
    ids=["solution", "verdict", "ufunc", "name", "lambda"],
)
def test_what_is_no_check_has_no_solution_and_says_so(wrong):
    with pytest.raises(ValueError, match="without calling it"):
        show_solution(wrong)


def test_a_check_without_a_solution_says_so():
    def check_nothing(attempt):
        return Verdict(None, "")

    with pytest.raises(ValueError, match="check_nothing is not the check of an exercise"):
        show_solution(check_nothing)


def test_the_package_of_exercises_offers_what_notebooks_use():
    assert exercises.show_solution is show_solution
    assert set(exercises.__all__) <= set(dir(exercises))
