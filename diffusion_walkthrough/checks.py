"""Checks of values: each returns the value in one normal form, or says what is wrong with it.

Every error names the value, the rule that it breaks and the remedy; where a name was mistyped, the
nearest known one is suggested. While a JSON file is read (:func:`speaking_json`), values are
written as JSON has them.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import numbers
import os
import re
import reprlib
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

#: The largest number that float32 can hold.
LARGEST = 3.4028234663852886e38

#: In bytes, of a file and of all the way to it; most systems take no longer ones.
LONGEST_NAME, LONGEST_PATH = 255, 4000

#: The largest seed that Keras takes, and NumPy's old generators.
LARGEST_SEED = 2**32 - 1

# Long values are cut before they are written out: a text may have a million letters.
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxtuple = _short.maxlist = _short.maxdict = 12

_in_json: ContextVar[bool] = ContextVar("in_json", default=False)


@contextlib.contextmanager
def speaking_json() -> Iterator[None]:
    """Write values as JSON has them, for a while: ``[4]``, ``true`` and ``null``."""
    token = _in_json.set(True)
    try:
        yield
    finally:
        _in_json.reset(token)


def by_language(python: str, json: str) -> str:
    """The one of two texts that is in the language of what is being checked."""
    return json if _in_json.get() else python


def shown(value: object) -> str:
    """A short text of any value, at most 80 letters, fit for an error message."""
    try:
        text = json.dumps(value, ensure_ascii=False) if _in_json.get() else _short.repr(value)
    except Exception:  # a broken __repr__, an integer of too many digits, or no JSON at all
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def written(name: str, value: object) -> str:
    """How one gives a value by its name: ``name=value``, or ``"name": value`` in JSON."""
    key = name if "[" in name else f'"{name}"'
    return by_language(f"{name}={shown(value)}", f"{key}: {shown(value)}")


def message(name: str, value: object, rule: str, remedy: str) -> str:
    """The text of an error: name and value, the rule, and the remedy."""
    end = "" if remedy.endswith("?") else "."
    return f"{written(name, value)}: {rule}. {remedy}{end}"


#: Through whose code a call goes on its way to what warns.
_ON_THE_WAY = {__name__.partition(".")[0], "keras", "tensorflow", "contextlib", "functools"}


def warn(text: str) -> None:
    """Warn of something, and name the line outside this package that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _ON_THE_WAY:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def did_you_mean(word: object, known: Collection[str], otherwise: str = "") -> str:
    """The question "Did you mean …?" with the nearest known name, or ``otherwise``."""
    names = {name.lower(): name for name in known}
    text = word[:80].lower() if isinstance(word, str) else ""
    holding = [name for name in names if text and text in name]
    near = holding or difflib.get_close_matches(text, names, n=1)
    return f"Did you mean {shown(names[near[0]])}?" if near else otherwise


def integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """A whole number of at least ``minimum``, at most ``maximum``; TypeError or ValueError."""
    rule = f"{name} must be a whole number of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        number = by_language("an int", "a whole number")
        remedy = f"Give {number}, such as {max(minimum, 1)}"
        if isinstance(value, float) and value.is_integer():
            remedy = f"Write {written(name, int(value))}"
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
            remedy = f"Write {written(name, int(value))}, without quotes"
        raise TypeError(message(name, value, rule, remedy))
    result = int(value)
    if result < minimum:
        raise ValueError(message(name, value, rule, f"Use {max(minimum, 1)} or more"))
    if maximum is not None and result > maximum:
        rule = f"{name} must be a whole number of at most {maximum}"
        raise ValueError(message(name, value, rule, f"Use {maximum} or less"))
    return result


def within(name: str, value: object, least: int, most: int) -> int:
    """A whole number in ``least … most``, and for None the most; raises ValueError."""
    value = most if value is None else value
    fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (fits and least <= value <= most):  # type: ignore[operator]
        rule = f"must be a whole number in {least} … {most}"
        raise ValueError(f"{name} = {shown(value)} {rule}. Use for example {most}.")
    return int(value)  # type: ignore[call-overload]


def seed(name: str, value: object) -> int | None:
    """A whole number from 0 to 4294967295, or None; raises TypeError or ValueError.

    On TensorFlow Keras takes seeds modulo 2147483646, so that 2147483649 draws what 3 draws.
    """
    return None if value is None else integer(name, value, 0, LARGEST_SEED)


def side(name: str, value: object, maximum: int | None = None) -> int:
    """The side of a square image in pixels, at least 1; raises TypeError or ValueError."""
    if isinstance(value, (tuple, list)) and value:
        rule = f"images must be square, so that {name} is one number"
        number = min((n for n in value if isinstance(n, int)), default=64)
        remedy = (
            f"Write {written(name, number)}; load_images(…, image_size={number}) cuts out the "
            "middle"
        )
        raise TypeError(message(name, value, rule, remedy))
    return integer(name, value, 1, maximum)


def real(name: str, value: object, rule: str, allowed: Callable[[float], bool]) -> float:
    """A finite number, also in float32, that ``rule`` describes; raises TypeError or ValueError."""
    rule = f"{name} must be a finite number {rule}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        remedy = f"Give {by_language('a float', 'a number')}, without quotes"
        raise TypeError(message(name, value, rule, remedy))
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not (abs(result) <= LARGEST and allowed(result)):
        raise ValueError(message(name, value, rule, "Choose a value in that range"))
    return result


def flag(name: str, value: object) -> bool:
    """True or False; raises TypeError for all else."""
    if not isinstance(value, bool):
        either = f"{shown(True)} or {shown(False)}"
        rule, remedy = f"{name} must be {either}", f"Write {either}, without quotes"
        raise TypeError(message(name, value, rule, remedy))
    return value


def path(name: str, value: object) -> Path:
    """A path, with the home folder in the place of ~; raises TypeError or ValueError."""
    rule = f"{name} must be a path, as text"
    remedy = "Name a file or a folder; '.' is the current one"
    if isinstance(value, bytes) or not isinstance(value, (str, os.PathLike)):
        raise TypeError(message(name, value, rule, remedy))
    text = os.fspath(value)
    data = os.fsencode(text)
    too_long = len(data) > LONGEST_PATH or max(map(len, data.split(b"/"))) > LONGEST_NAME
    if not text or "\0" in text or too_long:
        raise ValueError(message(name, value, f"{rule} that a file can have", remedy))
    return Path(value).expanduser()


def unmasked(name: str, value: object) -> None:
    """Raise ValueError for an array of NumPy's, or several, some of whose values are masked."""
    from numpy import ma

    if any(map(ma.is_masked, value if isinstance(value, (tuple, list)) else [value])):
        raise ValueError(
            f"{name} are masked in some places, and their masks would be dropped. Fill them "
            f"first, with {name}.filled(…), or leave out what is masked."
        )


def choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of some names; raises TypeError or ValueError."""
    rule = f"{name} must be one of {', '.join(map(shown, choices))}"
    if not isinstance(value, str):
        raise TypeError(message(name, value, rule, "Give one of these names as text"))
    if value not in choices:
        remedy = did_you_mean(value, choices, f"Choose for example {shown(choices[0])}")
        raise ValueError(message(name, value, rule, remedy))
    return str(value)


def integers(
    name: str, value: object, maximum: int | None = None, most: int | None = None
) -> tuple[int, ...]:
    """At most ``most`` whole numbers from 1 to ``maximum``; raises TypeError or ValueError."""
    if not isinstance(value, (tuple, list)):
        kind = by_language("a tuple or a list", "a list")
        rule = f"{name} must be {kind} of whole numbers"
        alone = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        remedy = f"Write {written(name, (value,) if alone else (1, 2))}"
        raise TypeError(message(name, value, rule, remedy))
    if most is not None and len(value) > most:
        rule = f"{name} must have at most {most} numbers, and there are {len(value)}"
        raise ValueError(message(name, value, rule, "Leave some out"))
    items = enumerate(value)
    return tuple(integer(f"{name}[{i}]", item, 1, maximum) for i, item in items)


def named_counts(name: str, value: object, maximum: int, most: int) -> tuple[tuple[str, int], ...]:
    """How many values each of some named things has, from pairs or a dictionary, as pairs.

    There are at most ``most``, of 1 to ``maximum`` values; raises TypeError or ValueError.
    """
    example = written(name, [("digit", 10)] if _in_json.get() else {"digit": 10})
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    rule = f"{name} must say of each label its name and how many values it has"
    if not isinstance(pairs, (tuple, list)) or not all(map(_is_named, pairs)):
        raise TypeError(message(name, value, rule, f"Write for example {example}"))
    if len(pairs) > most:
        rule = f"{name} must be at most {most}, and there are {len(pairs)}"
        raise ValueError(message(name, value, rule, "Leave some out"))
    words = [word for word, _ in pairs]
    for i, word in enumerate(words):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,39}", word) or word in words[:i]:
            rule = "a label needs a name of its own, of at most 40 letters, digits and underscores"
            raise ValueError(message(f"{name}[{i}]", word, rule, f"Write for example {example}"))
    counts = [integer(f"{name}[{i}]", count, 1, maximum) for i, (_, count) in enumerate(pairs)]
    return tuple(zip(words, counts, strict=True))


def _is_named(pair: object) -> bool:
    return isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)


def descending(name: str, value: object, *limits: int) -> tuple[int, ...]:
    """Whole numbers of at least 1, each once and the largest first; raises like ``integers``."""
    return tuple(sorted(set(integers(name, value, *limits)), reverse=True))


def keys(owner: str, values: object, names: Collection[str]) -> None:
    """Raise TypeError or ValueError unless ``values`` is a dictionary with just these keys."""
    if not isinstance(values, Mapping):
        kind = by_language("a dictionary", "{…}")
        remedy = by_language(
            "Pass what to_dict() returned.", "Write the file with save_parameters."
        )
        raise TypeError(
            f"{owner} needs {kind} with the keys {', '.join(names)}, but got {shown(values)}. "
            f"{remedy}"
        )
    for key in values:
        if key not in names:
            guess = did_you_mean(key, names)
            raise ValueError(
                f"{owner} has no parameter {shown(key)}. {guess}{' ' if guess else ''}"
                f"The parameters are {', '.join(names)}."
            )
    missing = [name for name in names if name not in values]
    if missing:
        where = by_language("to the dictionary", "there")
        raise ValueError(
            f"{owner} lacks {', '.join(map(shown, missing))}. Add it {where}; "
            f"{owner}'s docstring says what is usual."
        )
