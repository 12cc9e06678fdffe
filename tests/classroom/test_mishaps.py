"""Functions that stop and shapes that do not fit: what is said, and that it names the cause."""

import math

import keras
import numpy as np
import pytest

from diffusion_walkthrough.classroom import mishaps
from diffusion_walkthrough.classroom.exercises.verdicts import call

IMAGES, FACTORS = np.ones((3, 4)), np.array([0.1, 0.2, 0.3])


def recursive(x):
    return recursive(x)


def dots(x):
    beta = ...
    return beta * x


def without_return(x):
    x + 1


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda x: x * betta, "Is it spelled as in the first line"),  # noqa: F821
        (lambda x: x[4], "Indices run from 0"),
        (lambda x: x[0, 0, 0], "fewer axes than you gave indices"),
        (lambda x: x[0.5], "has to be a whole number"),
        (lambda x: x.mean(axis=2), "Axes count from 0"),
        (lambda x: x.shape[5], "one entry for each axis"),
        (lambda x: x * without_return(x), "the result of a function that returns nothing"),
        (dots, "Three dots still stand"),
        (lambda: 1, "Leave the first line"),
        (lambda x: 1 + FACTORS[0](x), "is a * missing"),
        (lambda x: FACTORS[0][x], "It is a single number here"),
        (lambda x: x.sum().__setitem__(0, 1), "Is the name behind the point spelled"),
        (lambda x: math.sqrt(x[0]), "those of NumPy, such as np.sqrt"),
        (lambda x: x if x > 0 else -x, "np.where"),
        (lambda x: math.sqrt(-1), "A root of a negative number"),
        (lambda x: x @ x, "a transpose, .T, missing?"),
        (lambda x: 1 / 0, "Which divisor can be 0"),
        (lambda x: int(np.inf), "Which number can become infinite"),
        (recursive, "The function calls itself"),
        (lambda x: {}["beta"], "no entry of this name"),
        (lambda x: x * FACTORS, "give them the shape (3, 1): factors[:, None]."),
        (lambda x: np.ones((3, 8, 8, 1)) * np.ones((3, 5)), "Which of your arrays needs another"),
        (lambda x: np.ones(5) * np.ones(6), "These are lists of 5 and 6."),
    ],
)
def test_the_usual_cause_is_said(attempt, words):
    with np.errstate(all="ignore"):
        verdict = call(attempt, IMAGES)
    assert verdict.right is False
    assert "Your function stopped with" in verdict.message
    assert words in verdict.message


def test_factors_of_four_axes_get_all_three():
    verdict = call(lambda x: x * np.ones(3), np.ones((3, 8, 8, 1))[..., [0, 0]])
    assert "(3, 1, 1, 1): factors[:, None, None, None]." in verdict.message


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the notebooks run on TensorFlow, in its words"
)
def test_a_backend_says_it_in_its_own_words():
    def attempt(x):
        return keras.ops.convert_to_tensor(x) * keras.ops.convert_to_tensor(FACTORS)

    message = call(attempt, IMAGES).message
    assert "shapes from the right" in message
    assert len(message) < 700


def test_the_reader_s_own_line_is_named_and_not_one_of_the_package():
    def attempt(x):
        halves = x / 2
        return np.concatenate([halves, 7])

    message = call(attempt, IMAGES).message
    assert "in the line “return np.concatenate([halves, 7])”." in message
    assert "in the line" not in call(lambda: 1, 2).message


def test_an_error_without_words_is_still_a_sentence():
    def attempt(x):
        raise ValueError

    assert "Your function stopped with ValueError: , in the line" not in call(attempt, 1).message
    assert "Your function stopped with ValueError, in the line “raise" in call(attempt, 1).message


ROWS = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (ROWS, 3.0, "One number is asked for"),
        (3.0, ROWS, "That is one number, and many are expected"),
        (3.0, ROWS[0], "That is one number, and 4 are expected"),
        (ROWS.T, ROWS, "Rows and columns have changed places"),
        (np.ones((3, 8, 8, 3)), np.ones((3, 8, 8, 1)), "Three factors met the last axis."),
        (np.ones((3, 8, 8, 3)), np.ones((3, 8, 8, 1)), "factors[:, None, None, None]."),
        (ROWS[:, :, None], ROWS, "Axis 2, of length 1, is too much: is it needed?"),
        (ROWS, ROWS[0], "Axis 0, of length 3, is too much: is a mean, a sum or an index missing?"),
        (ROWS[0], ROWS, "An axis of length 3 is missing"),
        (ROWS[:2], ROWS, "One entry is missing: the rest is right, so look at the last one."),
        (ROWS[1:], ROWS, "the rest is right, so look at the first one."),
        (ROWS[1:] + 1, ROWS, "at the beginning or at the end?"),
        (np.vstack([ROWS[:1], ROWS]), ROWS, "One entry is too much: the rest is right, so look"),
        (ROWS.reshape(6, 2), ROWS, "not how they are arranged"),
        (np.ones((3, 7)), ROWS, "Axis 1 has length 7 here"),
        (np.ones((2, 2, 2)), ROWS, "2 axes are expected, not 3"),
        ("left", ROWS, "And 'left' is text"),
    ],
)
def test_shapes(answer, expected, words):
    said = mishaps.of_shape(answer, expected)
    begin = f"The answer has shape {np.shape(answer)}; {np.shape(expected)} is expected."
    assert said.startswith(begin)
    assert words in said
