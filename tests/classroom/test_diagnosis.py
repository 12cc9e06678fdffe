"""What is said of numbers that nobody foresaw: true, the most that can be said, and a question."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st

from diffusion_walkthrough.classroom import diagnosis
from diffusion_walkthrough.classroom.diagnosis import of_array, of_number, of_parts

TYPED = 2e-3  # the tolerance of an exercise whose answer is typed with some decimals


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (-0.72, 0.72, "with the other sign"),
        (1.44, 0.72, "twice the expected"),
        (0.36, 0.72, "half of the expected"),
        (0.5184, 0.72, "the square of the expected"),
        (0.849, 0.72, "the root of the expected"),
        (1.389, 0.72, "the inverse of the expected"),
        (1 / math.sqrt(0.72), 0.72, "1 divided by the root"),
        (0.28, 0.72, "missing from the expected one to 1"),
        (0.694, 0.72, "The squares of yours and of the expected add up to 1"),
        (0.4816, 0.72, "1 minus the square"),
        (0.529, 0.72, "the root of 1 minus"),
        (72, 0.72, "are these percent?"),
        (0.0072, 0.72, "a hundredth of the expected"),
        (math.log(0.72), 0.72, "the logarithm of the expected one: "),
        (math.log2(0.72), 0.72, "to base 2"),
        (math.exp(0.72), 0.72, "e to the power"),
        (0.72 * math.log(2), 0.72, "times log 2: which logarithm"),
        (0.72 / math.log(10), 0.72, "divided by log 10: which logarithm"),
        (0.72 * math.sqrt(2), 0.72, "√2 times"),
        (0.72 * math.pi, 0.72, "π times"),
        (3600.0, 1.0, "3,600 times the expected one: in which unit"),
        (1 / 60, 1.0, "a sixtieth"),
        (3 * 0.72, 0.72, "3 times the expected"),
        (0.09, 0.72, "divided by 8"),
        (1024 * 0.72, 0.72, "a whole number of times the expected one"),
        (0.72 / 577, 0.72, "a whole number of times yours"),
        (0.72 + 5, 0.72, "is too large, by more than a factor of two"),
        (0.75, 0.72, "is too large, but by less than a tenth"),
        (0.52, 0.72, "is too small, by less than a factor of two"),
        (913.0, 0.72, "by more than a factor of ten"),
        (-5.1, 0.72, "is negative, and the expected one is not"),
        (5.1, -0.72, "is positive, and the expected one is not"),
        (0, 0.72, "too small: what makes it 0?"),
        (0.3, 0.0, "too large: what should cancel?"),
    ],
)
def test_single_numbers(answer, expected, words):
    said = of_number(answer, expected, TYPED)
    assert words in said
    assert said.endswith("?")


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (801, 800, "one more than the expected one: does the counting begin"),
        (799, 800, "one less"),
        (800.4, 800, "which way has it to be rounded"),
        (1600, 800, "twice"),
        (28.28, 800, "what is being counted"),  # the root, but not exactly
        (0.5, 1.0, "half"),  # of which nobody said that it is whole
        (1.2, 1.0, "by less than a factor of two"),
    ],
)
def test_whole_numbers_are_taken_at_their_word(answer, expected, words):
    assert words in of_number(answer, expected, 1e-9)


def test_where_two_relations_hold_both_are_said():
    said = of_number(4.0, 2.0)
    assert "twice the expected" in said
    assert "Or: Your number is the square" in said


def test_what_holds_for_all_small_numbers_is_not_said():
    for answer in (1.0, 0.999):
        assert "too large, by more than a factor of ten" in of_number(answer, 0.0012)


def test_two_digits_do_not_make_a_relation_by_chance():
    """1.1 is the root of 1.25 if rounded: too little to speak of it."""
    assert "root" not in of_number(1.1, 1.25, TYPED)
    assert "23" not in of_number(0.0351, 0.8069, TYPED)


@given(
    st.floats(0.01, 100).filter(lambda e: abs(e - 1) > 0.05),
    st.floats(-1000, 1000).filter(lambda a: abs(a) > 1e-3),
)
def test_a_sentence_names_a_relation_only_if_it_is_true(expected, answer):
    assume(answer != expected)
    said = of_number(answer, expected)
    if "twice" in said:
        assert answer == pytest.approx(2 * expected, rel=1e-3)
    if "the square of the" in said and "1 minus" not in said:
        assert answer == pytest.approx(expected**2, rel=1e-3)
    if "too large" in said:
        assert answer > expected
    if "too small" in said:
        assert answer < expected


def test_how_a_number_is_written():
    found = [diagnosis.written(x) for x in (0.0072, 3.4, 27, 100, -0.5, 1 / 3, 0)]
    assert found == [(2, 4), (2, 1), (2, 0), (3, 0), (1, 1), (12, 12), (0, 0)]


@pytest.mark.parametrize(
    ("answer", "other", "tolerance", "same"),
    [
        (3.4, 3.381, TYPED, True),
        (3.4, 3.381, 1e-4, False),  # the exercise does not speak of rounding
        (3.0, 3.381, TYPED, False),  # one digit
        (3.3, 3.381, TYPED, False),
        (27, 27.05, TYPED, True),
        (0.0064, 0.00635, TYPED, True),
        (-0.85, -0.8485, TYPED, True),
    ],
)
def test_rounding_needs_two_digits_and_an_exercise_that_allows_it(answer, other, tolerance, same):
    assert diagnosis.rounded_alike(answer, other, tolerance) is same


TABLE = np.cumprod(1 - np.array([0.1, 0.2, 0.15, 0.4, 0.3]))
IMAGES = np.random.default_rng(0).standard_normal((3, 4))
SHARES = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3]])


def changed(array, where, value):
    array = np.array(array, dtype=float)
    array[where] = value
    return array


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        (-IMAGES, IMAGES, "with the other sign"),
        (2 * IMAGES, IMAGES, "twice"),
        (IMAGES / 2, IMAGES, "half of"),
        (TABLE**2, TABLE, "the square of"),
        (TABLE**0.5, TABLE, "the root of"),
        (1 / IMAGES, IMAGES, "the inverse of"),
        (1 - TABLE, TABLE, "missing from the expected one to 1"),
        (100 * TABLE, TABLE, "percent"),
        (np.log(TABLE), TABLE, "the logarithm of"),
        (7 * IMAGES, IMAGES, "7 times"),
        (IMAGES / 3, IMAGES, "divided by 3"),
        (0.83 * IMAGES, IMAGES, "too small by one and the same factor"),
        (IMAGES + 0.3, IMAGES, "too large by the same amount"),
        ((IMAGES + 1) / 2, IMAGES, "runs from 0 to 1"),
        (np.abs(IMAGES), IMAGES, "some signs are not"),
        (np.zeros(5), TABLE, "All your numbers are 0"),
        (np.ones(5), TABLE / 1000, "All your numbers are 1"),  # and not what is missing to 1
        (np.tile(IMAGES[1], (3, 1)), IMAGES, "All rows of your answer are the same"),
        (TABLE[::-1], TABLE, "in reverse order"),
        (IMAGES[:, ::-1], IMAGES, "in reverse order"),
        (IMAGES[:, :3].T, IMAGES[:, :3], "Rows and columns have changed places"),
        (np.append(1, TABLE[:-1]), TABLE, "one place too late"),
        (np.append(TABLE[1:], 0.1), TABLE, "one place too early"),
        (IMAGES[[1, 0, 2]], IMAGES, "in another order"),
        (1 - np.array([0.1, 0.2, 0.15, 0.4, 0.3]), TABLE, "right for each step alone"),
        (np.diff(TABLE, prepend=0), TABLE, "What have all steps up to it added?"),
        (np.cumprod(TABLE), TABLE, "multiply up from step to step"),
        (np.cumsum(TABLE), TABLE, "add up from step to step"),
        (changed(TABLE, 2, 9), TABLE, "Right everywhere but at index 2"),
        (changed(TABLE, 0, 9), TABLE, "Right everywhere but at index 0"),
        (changed(IMAGES, (1, 2), 9), IMAGES[:], "Right everywhere but at index 1"),
        (TABLE * [1, 1.2, 0.7, 1.1, 1.4], TABLE, "Right at index 0, wrong from index 1 on"),
        (TABLE * [1, 1, 1, 1.2, 0.7], TABLE, "Right up to index 2, wrong from index 3 on"),
        (TABLE * [1, 0.5, 1, 1.3, 1], TABLE, "Right at index 0, 2 and 4, wrong at index 1 and 3"),
        (changed(IMAGES, (slice(None), 1), 9 * IMAGES[:, 2]), IMAGES, "Along the last axis, index"),
        (np.minimum(IMAGES, 0.4), IMAGES, "stop at 0.4"),
        (IMAGES, np.minimum(IMAGES, 0.4), "numbers that are too large: how far may they go?"),
        (IMAGES * [[2], [3], [5.5]], IMAGES, "right up to a factor, which differs from row to row"),
        (IMAGES + np.array([[2], [3], [5.5]]), IMAGES, "something added, which differs"),
        (SHARES**2 + 0.3, SHARES, "should add up to 1, and here they make"),
        (TABLE - np.array([1, 0.3, 2, 0.1, 0.4]), TABLE, "negative, and here none should be"),
        (TABLE + np.array([1, 0.3, 2, 0.1, 0.4]), TABLE, "above 1, and here none should be"),
        (np.array([0.11, 0.13, 0.18, 0.2, 0.7]), TABLE, "rise from entry to entry"),
        (IMAGES**3, IMAGES, "at index (0, 0) yours is 0.00199, which is too small"),
        (TABLE**3 * 0.9, TABLE, "all of yours are too small"),
    ],
)  # fmt: skip
def test_arrays(answer, expected, words):
    assert words in of_array(answer, expected)


def test_the_places_of_the_first_axis_have_their_own_names():
    said = of_array(changed(IMAGES[:2], 1, 9), IMAGES[:2], places=["t = 12", "t = 0"])
    assert said == "Right at t = 12, wrong at t = 0: what is different there?"


@given(st.integers(0, 2**32))
def test_of_random_numbers_no_relation_is_claimed(seed):
    """Only where to begin is said of numbers that have nothing in common."""
    answer, expected = np.random.default_rng(seed).standard_normal((2, 4, 5))
    said = of_array(answer, expected)
    assert said.startswith(diagnosis.OTHERWISE)


X, NOISE = np.random.default_rng(1).standard_normal((2, 3, 5))
PARTS = {"the image": X, "the noise": NOISE}
KEPT = np.array([[0.9], [0.5], [0.2]])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (KEPT * X + (1 - KEPT) ** 0.5 * NOISE,
         "The factor of the noise is right. The factor of the image is the square"),
        (KEPT**0.5 * X + (1 - KEPT) * NOISE,
         "The factor of the image is right. The factor of the noise is the square"),
        (KEPT**0.5 * X - (1 - KEPT) ** 0.5 * NOISE, "of the noise is the expected one with the"),
        (KEPT**0.5 * X, "There is no trace of the noise"),
        (KEPT**0.5 * NOISE + (1 - KEPT) ** 0.5 * X, "have changed places"),
        (KEPT**0.5 * X + 0.2 * NOISE, "The factor of the noise is too small: what does"),
        (KEPT**0.5 * X + 0.5 * NOISE, "The factor of the noise is not right: what does"),
        ((1 - KEPT**3) ** 0.5 * X + KEPT**1.5 * NOISE, "the noise add up to 1, as they should"),
        (KEPT**0.5 * X + [[1.0], [0.5**0.5], [0.8**0.5]] * NOISE, "too large at t = 7: what"),
        (KEPT**0.5 * X + (1 - KEPT) ** 0.5, "In the place of the noise stands a bare number"),
    ],
)  # fmt: skip
def test_sums_of_parts(answer, words):
    expected = KEPT**0.5 * X + (1 - KEPT) ** 0.5 * NOISE
    assert words in of_parts(answer, expected, PARTS, ["t = 7", "t = 50", "t = 90"])


def test_what_is_no_sum_of_the_parts_is_left_alone():
    expected = KEPT**0.5 * X + (1 - KEPT) ** 0.5 * NOISE
    assert of_parts(X * NOISE, expected, PARTS) == ""
    assert of_parts(X[:, :2], expected[:, :2], {k: v[:, :2] for k, v in PARTS.items()}) == ""


def test_one_row_of_pixels_is_enough():
    expected = 0.9 * X[0] + 0.4 * NOISE[0]
    parts = {"the image": X[0], "the noise": NOISE[0]}
    assert "of the image is right" in of_parts(0.9 * X[0] + NOISE[0], expected, parts)
