import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.classroom import exercises
from diffusion_walkthrough.classroom.exercises import forward_diffusion as ask
from diffusion_walkthrough.classroom.exercises.verdicts import (
    Verdict,
    call,
    mark,
    mark_choice,
    same_numbers,
    show_solution,
    unanswered,
)


def check_nothing(attempt):
    return Verdict(None, "")


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
        (7.0, False, "7 times the expected one"),
        (check_nothing, False, "not a function. Call it"),
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


TYPED = 2e-3


@pytest.mark.parametrize(
    ("answer", "right", "message"),
    [
        (3.38, True, "yes"),
        (3.4, True, "yes"),
        (3.0, False, "too small, by less than a factor of two"),
        (3.3, False, "too small, but by less than a tenth"),
        (2.3, False, "nats"),
        (2.344, False, "nats"),
    ],
)
def test_an_answer_may_be_rounded_to_two_digits(answer, right, message):
    verdict = mark(answer, 3.3814, [(150 / 64, "These are nats.")], "yes", tolerance=TYPED)
    assert verdict.right is right
    assert message in verdict.message


def test_one_digit_is_not_enough_and_says_so():
    said = mark(0.7, 0.72, [], "yes", tolerance=TYPED)
    assert (said.right, said.message) == (
        False,
        "Right as far as it goes. Please give at least 2 decimals.",
    )


def test_what_a_function_returns_is_not_taken_for_rounded():
    assert mark(1.2, 1.25, [], "yes").right is False


@pytest.mark.parametrize("shape", [(None, 7, 7, 64), [None, 7, 7, 64], (7, 7, 64)])
def test_a_shape_as_keras_prints_it_is_read_without_its_batch(shape):
    assert mark(shape, (7, 7, 64), [], "yes", tolerance=1e-9).right is True
    assert mark(shape, (7, 7, 32), [((7, 7, 64), "Wider.")], "yes").message == "Wider."


@pytest.mark.parametrize("shape", [(None, 7, 64), (7, None, 64), (None, None, 7, 64), (None,)])
def test_other_shapes_with_none_are_wrong(shape):
    assert mark(shape, (7, 7, 64), [], "yes").right is False


def test_numbers_that_are_not_finite_say_where():
    table = np.array([[1.0, 2.0], [np.nan, 3.0]])
    said = mark(table, np.ones((2, 2)), [], "").message
    assert said.startswith("Some numbers are NaN or infinite, first at index (1, 0):")
    assert "all of them" in mark(table * np.nan, np.ones((2, 2)), [], "").message
    assert "first at index 1" in mark([1.0, np.inf], [1.0, 2.0], [], "").message


def test_parts_and_places_are_named():
    x, noise = np.random.default_rng(0).standard_normal((2, 5))
    parts = {"the image": x, "the noise": noise}
    said = mark(0.9 * x + noise, 0.9 * x + 0.5 * noise, [], "", parts=parts).message
    assert said.startswith("The factor of the image is right.")
    said = mark([[1, 2], [9, 8]], [[1, 2], [3, 4]], [], "", places=["t = 12", "t = 0"]).message
    assert said.startswith("Right at t = 12, wrong at t = 0")
    said = mark(x * noise, 0.9 * x + 0.5 * noise, [], "", parts=parts).message
    assert said.startswith("The numbers differ")  # no such sum


REPLIES = {"a": "Not that.", "c": "Nor this."}


@pytest.mark.parametrize("attempt", ["b", "B", " b. ", "B)", "(b)", "b:"])
def test_a_letter_is_right_however_it_is_written(attempt):
    verdict = mark_choice(attempt, "b", "So it is.", REPLIES)
    assert (verdict.right, verdict.message) == (True, "So it is.")


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        ("a", "Not that."),
        ("C.", "Nor this."),
        ("d", "'d' is not among the answers. Answer with one of 'a' to 'c', in quotes, such as"),
        ("", "one of 'a' to 'c'"),
        ("a, c", "one of 'a' to 'c'"),
        ("ab", "one of 'a' to 'c'"),
        (["b"], "one of 'a' to 'c'"),
        (2, "2 is not among the answers"),
        (float("nan"), "one of"),
        (np.zeros(2), "one of"),
        (len, "one of"),
    ],
)
def test_other_letters_get_their_reply(attempt, message):
    verdict = mark_choice(attempt, "b", "So it is.", REPLIES)
    assert verdict.right is False
    assert message in verdict.message


@pytest.mark.parametrize("attempt", [..., None])
def test_no_letter_is_no_answer(attempt):
    assert mark_choice(attempt, "b", "", REPLIES).right is None


@pytest.mark.parametrize(
    ("attempt", "right", "message"),
    [
        ("b, d", True, "Both."),
        ("DB", True, "Both."),
        ("d and b", True, "Both."),
        (["b", "d"], True, "Both."),
        ({"b", "d"}, True, "Both."),
        (("B)", "d."), True, "Both."),
        ("b", False, "not yet all of it"),
        ("a, b, d", False, "Not that."),
        ({"c", "a"}, False, "Not that."),
        ([1, 2], False, "one or more of 'a' to 'd'"),
        ("e", False, "one or more of 'a' to 'd'"),
    ],
)
def test_several_letters_may_belong_together(attempt, right, message):
    verdict = mark_choice(attempt, {"b", "d"}, "Both.", REPLIES)
    assert verdict.right is right
    assert message in verdict.message


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
    with pytest.raises(ValueError, match="check_nothing is not the check of an exercise"):
        show_solution(check_nothing)


def test_the_package_of_exercises_offers_what_notebooks_use():
    assert exercises.show_solution is show_solution
    assert set(exercises.__all__) <= set(dir(exercises))


def test_an_answer_that_draws_numbers_of_its_own_is_told_so():
    rng = np.random.default_rng(0)
    answer = call(lambda x: x + rng.standard_normal(), np.zeros(3))
    assert answer.right is False
    assert "numbers of its own" in answer.message
    np.testing.assert_array_equal(call(lambda x: x * np.nan, np.zeros(3)), [np.nan] * 3)


def test_a_long_array_in_the_place_of_a_letter_is_not_repeated():
    verdict = mark_choice(np.linspace(0, 1, 1000), "b", "So it is.", REPLIES)
    assert verdict.message.startswith("That is not among the answers")
    assert "in quotes" in verdict.message
