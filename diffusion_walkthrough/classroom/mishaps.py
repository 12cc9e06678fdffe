"""What to say when a reader's function stops, or its answer has another shape than expected."""

from __future__ import annotations

import linecache
import re
from pathlib import Path
from typing import Any

import numpy as np

Shape = tuple[int, ...]

# Where code stands that no reader wrote: this package, Python itself, and what has no file.
NOT_THE_READERS = (str(Path(__file__).parents[1]), str(Path(re.__file__).parents[1]), "<frozen")

FROM_THE_RIGHT = (
    "NumPy lines up shapes from the right, and two lengths fit if they are equal or one is 1."
)
# The kind of error, words in its message, and the usual cause.
CAUSES: list[tuple[type[Exception], str, str]] = [
    (NameError, "", "Is it spelled as in the first line of your function, or is a line missing "
     "that makes it?"),
    (IndexError, "axis -?\\d+ is out of bounds for array", "Axes count from 0: the last of two is "
     "axis 1, or −1. Does the array have the axes you think?"),
    (IndexError, "tuple index", "A shape has one entry for each axis: are there so many?"),
    (IndexError, "out of bounds|out of range", "Indices run from 0 to one less than the length: is "
     "it one too large, or is this another table?"),
    (IndexError, "too many indices", "It has fewer axes than you gave indices: is it one number, "
     "or a table of another shape?"),
    (IndexError, "only integers|arrays used as indices", "An index has to be a whole number, such "
     "as t, and not a value from a table."),
    (TypeError, "NoneType", "Something in this line is None: the result of a function that "
     "returns nothing. Is the word return missing in one?"),
    (TypeError, "ellipsis", "Three dots still stand in your function."),
    (TypeError, "positional argument|keyword argument", "Leave the first line of the function as "
     "the exercise has it: it is called with those arguments, in that order."),
    (TypeError, "not callable", "Something that is no function stands before a round bracket: is "
     "a * missing, or should the brackets be square?"),
    (TypeError, "item assignment|not subscriptable|invalid index to scalar", "It is a single "
     "number here, and has no index."),
    (TypeError, "only (length-1|0-dimensional|size-1)|converted to Python scalars", "The functions "
     "of math take one number; those of NumPy, such as np.sqrt, take whole arrays."),
    (ValueError, "truth value", "An if asks one question, and an array has many answers: "
     "np.where, np.minimum and np.maximum ask at each place."),
    (ValueError, "math domain", "A root of a negative number, or the logarithm of one that is not "
     "positive."),
    (ValueError, "matmul", "In A @ B, a row of A must be as long as a column of B: is a transpose, "
     ".T, missing?"),
    (AttributeError, "", "Is the name behind the point spelled as its documentation has it, and is "
     "the thing before the point what you think it is?"),
    (ZeroDivisionError, "", "Which divisor can be 0 here?"),
    (OverflowError, "", "Which number can become infinite here?"),
    (RecursionError, "", "The function calls itself: was another one meant?"),
    (KeyError, "", "There is no entry of this name: is it spelled rightly?"),
]  # fmt: skip


def explain(error: Exception) -> str:
    """Say what stopped the reader's function, in which line of it, and why that usually happens.

    Args:
        error: what it raised.
    """
    said = (str(error).strip().splitlines() or [""])[0][:200].rstrip(". ")
    line = _own_line(error)
    where = f", in the line “{line}”" if line else ""
    named = f"{type(error).__name__}: {said}" if said else type(error).__name__
    begin = f"Your function stopped with {named}{where}."
    return f"{begin} {_cause(error)}".strip()


def _own_line(error: Exception) -> str:
    """The line of the reader's own code that was running; "" if it never began."""
    line, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not file.startswith(NOT_THE_READERS) and "site-packages" not in file:
            line = linecache.getline(file, step.tb_lineno).strip()
        step = step.tb_next
    return line


def _cause(error: Exception) -> str:
    """The usual cause of an error; "" if there is none."""
    message = str(error)
    if re.search("broadcast|ncompatible shapes", message):
        return advise_on_axes(_shapes_in(message))
    for kind, words, cause in CAUSES:
        if isinstance(error, kind) and re.search(words, message):
            return cause
    return ""


def _shapes_in(message: str) -> list[Shape]:
    """The shapes that an error names, such as (3,4) or [3,4]."""
    found = re.findall(r"[(\[]\s*(\d+(?:\s*,\s*\d+)*)\s*,?\s*[)\]]", message)
    return [tuple(int(n) for n in numbers.split(",")) for numbers in found]


def advise_on_axes(shapes: list[Shape]) -> str:
    """Say why two shapes do not fit, and how one factor for each image would.

    Args:
        shapes: those that met.
    """
    for factors in shapes:
        for images in shapes:
            if len(factors) == 1 and len(images) > 1 and factors[0] == images[0]:
                return (
                    f"{FROM_THE_RIGHT} Here {factors[0]} factors of shape {factors} met the last "
                    f"axis of {images}. {_with_axes(factors[0], len(images))}"
                )
    if len(shapes) == 2 and all(len(shape) == 1 for shape in shapes):
        return (
            f"These are lists of {shapes[0][0]} and {shapes[1][0]}. If entry should meet entry, "
            "one has too many; if each should meet each, one needs another axis: x[:, None]."
        )
    return f"{FROM_THE_RIGHT} Which of your arrays needs another axis, and where?"


def _with_axes(number: int, axes: int) -> str:
    """How one factor for each image gets as many axes as the images have."""
    shape = (number, *[1] * (axes - 1))
    return (
        f"For one factor for each image, give them the shape {shape}: "
        f"factors[:{', None' * (axes - 1)}]."
    )


def of_shape(answer: Any, expected: Any) -> str:
    """Say how the shape of an answer differs from the expected one.

    Args:
        answer: an array, or what can be read as one.
        expected: the right one, of another shape.
    """
    shape, wanted = np.shape(answer), np.shape(expected)
    begin = f"The answer has shape {shape}; {wanted} is expected."
    if isinstance(answer, str):
        return f"{begin} And {answer!r} is text, not a number."
    return f"{begin} {_of_shapes(shape, wanted) or _of_lengths(answer, expected)}".strip()


def _of_shapes(shape: Shape, wanted: Shape) -> str:
    """What two shapes say: one number or many, changed places, an axis too many or too few."""
    if not wanted:
        return "One number is asked for: is a mean, a sum or an index missing?"
    if not shape:
        many = wanted[0] if len(wanted) == 1 else "many"
        return (
            f"That is one number, and {many} are expected: are the others missing, or summed or "
            "averaged into it?"
        )
    if len(shape) == len(wanted) > 1 and shape == wanted[::-1]:
        return "Rows and columns have changed places: is a transpose too much, or missing?"
    if len(shape) == len(wanted) > 1 and (*wanted[:-1], wanted[0]) == shape and wanted[-1] == 1:
        number = {2: "Two", 3: "Three", 4: "Four", 5: "Five"}.get(wanted[0], str(wanted[0]))
        return f"{number} factors met the last axis. {_with_axes(wanted[0], len(wanted))}"
    for axis, length in enumerate(shape):
        if shape[:axis] + shape[axis + 1 :] == wanted:
            what = "is it needed?" if length == 1 else "is a mean, a sum or an index missing?"
            return f"Axis {axis}, of length {length}, is too much: {what}"
    for axis, length in enumerate(wanted):
        if wanted[:axis] + wanted[axis + 1 :] == shape:
            return (
                f"An axis of length {length} is missing: was it summed, averaged or indexed away?"
            )
    return ""


def _of_lengths(answer: Any, expected: Any) -> str:
    """What the lengths of the axes say: one entry too many or too few, or another length."""
    shape, wanted = np.shape(answer), np.shape(expected)
    if len(shape) == len(wanted) and shape[1:] == wanted[1:]:
        if shape[0] == wanted[0] - 1:
            return f"One entry is missing: {_end(answer, expected)}"
        if shape[0] == wanted[0] + 1:
            return f"One entry is too much: {_end(expected, answer)}"
    if np.size(answer) == np.size(expected):
        return "The number of entries is right, but not how they are arranged: which axis is which?"
    if len(shape) != len(wanted):
        return f"{len(wanted)} axes are expected, not {len(shape)}: what does each of yours count?"
    axis = next(i for i, pair in enumerate(zip(shape, wanted, strict=True)) if len(set(pair)) == 2)
    return f"Axis {axis} has length {shape[axis]} here: which of your arrays brings that along?"


def _end(shorter: Any, longer: Any) -> str:
    """Which end of the longer array the shorter one lacks."""
    short, long = np.asarray(shorter), np.asarray(longer)
    for end, rest in (("first", long[1:]), ("last", long[:-1])):
        if short.dtype.kind in "fiu" and np.allclose(short, rest, equal_nan=True):
            return f"the rest is right, so look at the {end} one."
    return "at the beginning or at the end?"
