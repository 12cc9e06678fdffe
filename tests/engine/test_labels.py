"""Labels: in one normal form, or refused with name, value, rule and remedy."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from diffusion_walkthrough.engine.labels import (
    checked_labels,
    is_symbolic,
    labels_for,
    telling,
    unsaid,
)

ONE, TWO = (("digit", 10),), (("hat", 3), ("glasses", 2))


@pytest.mark.parametrize("labels", [[3, 0, -1], np.array([[3], [0], [-1]], "int8")])
def test_one_label_of_each_image(labels):
    found = checked_labels(labels, ONE, 3)
    assert found.dtype == np.int32
    assert found.tolist() == [3, 0, -1]


def test_labels_may_be_of_any_kind_of_whole_numbers():
    for kind in ("uint8", "uint64", "int16"):
        assert checked_labels(np.array([3, 0], kind), ONE, 2).dtype == np.int32
        with pytest.raises(ValueError, match=r"labels\[1\]=10: digit must be"):
            checked_labels(np.array([3, 10], kind), ONE, 2)


def test_several_labels_are_columns():
    found = checked_labels(np.array([[2, 1], [-1, 0]], "int64"), TWO, 2)
    assert (found.dtype, found.tolist()) == (np.int32, [[2, 1], [-1, 0]])


@pytest.mark.parametrize(
    ("labels", "described", "message"),
    [
        (None, ONE, r"labels are missing: this network is told digit .* Pass them as y, or"),
        ([0, 1, 10], ONE, r"labels\[2\]=10: digit .* from 0 to 9, or -1 for what is not said\. "),
        ([0, -2, 1], ONE, r"labels\[1\]=-2: digit must be a whole number from 0 to 9"),
        (
            [0.5, 1, 2],
            ONE,
            r"labels\[0\]=0\.5: labels are of type float64, .*labels\.astype\('int32'\)",
        ),
        ([1.0, 1, 2], ONE, r"labels\[0\]=1\.0: labels are of type float64"),
        ([True] * 3, ONE, "labels are of type bool"),
        (["a"] * 3, ONE, "labels are of type"),
        (
            [None] * 3,
            ONE,
            r"labels\[0\]=None: labels are of type object, and must be whole numbers",
        ),
        (np.uint64([2**64 - 1] * 3), ONE, r"labels\[0\]=18446744073709551615: digit must be"),
        ([1, 2], ONE, r"shape \(2,\), but must be \(3,\).* There must be as many as images, 3\."),
        (np.eye(10, dtype=int)[:3], ONE, r"0 and 1 for each class: pass labels\.argmax\(axis=-1\)"),
        ([[1, 2]] * 3, ONE, r"Choose the column: labels\[:, 0\]"),
        ([1, 2, 0], TWO, r"\(3,\), but must be \(3, 2\): .* told hat, glasses\. Put a column"),
        ([[0, 1], [2, 2], [3, 0]], TWO, r"labels\[2, 0\]=3: hat must be a whole .* 0 to 2"),
        ([[0, 1], [2, 2], [1, 0]], TWO, r"labels\[1, 1\]=2: glasses must be a whole .* 0 to 1"),
    ],
)
def test_wrong_labels_are_refused_in_words(labels, described, message):
    with pytest.raises(ValueError, match=message):
        checked_labels(labels if labels is None else np.array(labels), described, 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1], [2, 3], [1]], r"labels of type list cannot be made into one array \(.*equal length"),
        ({"digit": [1, 2, 3]}, "labels are a dictionary with 'digit', but must be an array"),
        ({}, "labels are a dictionary with nothing"),
    ],
)
def test_what_is_no_array_is_no_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        checked_labels(labels, ONE, 3)
    if isinstance(labels, list):
        with pytest.raises(ValueError, match=message):
            labels_for(labels, ONE, 3)
        with pytest.raises(ValueError, match=message.replace("labels", r"labels\['digit'\]", 1)):
            labels_for({"digit": labels}, ONE, 3)


@pytest.mark.parametrize(
    ("labels", "described", "expected"),
    [
        (4, ONE, [4, 4]),
        ([4, 5], ONE, [4, 5]),
        ({"digit": 4}, ONE, [4, 4]),
        ([2, 0], TWO, [[2, 0], [2, 0]]),
        ([[2, 0], [1, 1]], TWO, [[2, 0], [1, 1]]),
        ({"glasses": 1}, TWO, [[-1, 1], [-1, 1]]),
        ({"glasses": [1, 0], "hat": 2}, TWO, [[2, 1], [2, 0]]),
    ],
)
def test_what_images_are_to_show(labels, described, expected):
    assert labels_for(labels, described, 2).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"hats": 1}, r"labels has the name 'hats', of no label\. Did you mean 'hat'\?"),
        ({"hat": [1, 2, 0]}, r"labels\['hat'\] has shape \(3,\), but must be one number, or one"),
        ({"hat": 7}, r"labels\[0, 0\]=7: hat must be"),
        (3, r"labels have shape \(\), but must be \(2, 2\)"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(labels, message):
    with pytest.raises(ValueError, match=message):
        labels_for(labels, TWO, 2)


def test_nothing_is_said_of_as_many_as_there_are():
    t = np.array([3, 0, 5], "int32")
    assert ops.convert_to_numpy(unsaid(t, ONE)).tolist() == [-1] * 3
    real = ops.convert_to_numpy(unsaid(t.astype("float32"), TWO))
    assert (real.dtype, real.tolist()) == (np.int32, [[-1, -1]] * 3)


def test_a_tensor_with_values_is_not_symbolic():
    assert not is_symbolic(ops.convert_to_tensor([1]))
    assert not is_symbolic(np.array([1]))


def test_telling_leaves_what_a_denoise_function_has():
    def plain(x_t, t, *told):
        return (x_t, t, *told)

    assert telling(plain, ()) is plain
    asked = telling(plain, [5])
    assert asked(1, 2) == (1, 2, 5)
    assert not hasattr(asked, "variance")
    assert not hasattr(asked, "with_variance")
    plain.variance, plain.with_variance = "learned", plain
    asked = telling(plain, [5])
    assert (asked.variance, asked.with_variance(1, 2)) == ("learned", (1, 2, 5))
