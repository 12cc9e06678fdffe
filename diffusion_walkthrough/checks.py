"""Checks of values: each returns the value in one normal form, or says what is wrong with it.

Every error names the value, the rule that it breaks and the remedy; where a name was mistyped, the
nearest known one is suggested.
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
import reprlib
from collections.abc import Callable, Collection, Mapping

#: The largest number that float32 can hold.
LARGEST = 3.4028234663852886e38

# Long values are cut before they are written out: a text may have a million letters.
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxtuple = _short.maxlist = _short.maxdict = 12


def shown(value: object) -> str:
    """A short text of any value, at most 80 letters, fit for an error message."""
    try:
        text = _short.repr(value)
    except Exception:  # a broken __repr__ or an integer of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def message(name: str, value: object, rule: str, remedy: str) -> str:
    """The text of an error: name and value, the rule, and the remedy."""
    end = "" if remedy.endswith("?") else "."
    return f"{name}={shown(value)}: {rule}. {remedy}{end}"


def did_you_mean(word: object, known: Collection[str], otherwise: str = "") -> str:
    """The question "Did you mean …?" with the nearest known name, or ``otherwise``."""
    names = {name.lower(): name for name in known}
    text = word[:80].lower() if isinstance(word, str) else ""
    holding = [name for name in names if text and text in name]
    near = holding or difflib.get_close_matches(text, names, n=1)
    return f"Did you mean {names[near[0]]!r}?" if near else otherwise


def integer(name: str, value: object, minimum: int) -> int:
    """A whole number of at least ``minimum``; raises TypeError or ValueError."""
    rule = f"{name} must be a whole number of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        remedy = f"Give an int, such as {max(minimum, 1)}"
        if isinstance(value, float) and value.is_integer():
            remedy = f"Write {name}={int(value)}"
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
            remedy = f"Write {name}={int(value)}, without quotes"
        raise TypeError(message(name, value, rule, remedy))
    if value < minimum:
        raise ValueError(message(name, value, rule, f"Use {max(minimum, 1)} or more"))
    return int(value)


def side(name: str, value: object) -> int:
    """The side of a square image in pixels, at least 1; raises TypeError or ValueError."""
    if isinstance(value, (tuple, list)) and value:
        rule = f"images must be square, so that {name} is one number"
        number = min((n for n in value if isinstance(n, int)), default=64)
        remedy = f"Write {name}={number}; load_images(…, image_size={number}) cuts out the middle"
        raise TypeError(message(name, value, rule, remedy))
    return integer(name, value, minimum=1)


def real(name: str, value: object, rule: str, allowed: Callable[[float], bool]) -> float:
    """A finite number, also in float32, that ``rule`` describes; raises TypeError or ValueError."""
    rule = f"{name} must be a finite number {rule}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(message(name, value, rule, "Give a float, without quotes"))
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
        rule = f"{name} must be True or False"
        raise TypeError(message(name, value, rule, "Write True or False, without quotes"))
    return value


def choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of some names; raises TypeError or ValueError."""
    rule = f"{name} must be one of {', '.join(map(repr, choices))}"
    if not isinstance(value, str):
        raise TypeError(message(name, value, rule, "Give one of these names as text"))
    if value not in choices:
        remedy = did_you_mean(value, choices, f"Choose for example {choices[0]!r}")
        raise ValueError(message(name, value, rule, remedy))
    return str(value)


def integers(name: str, value: object) -> tuple[int, ...]:
    """A tuple of whole numbers of at least 1; raises TypeError or ValueError."""
    if not isinstance(value, (tuple, list)):
        rule = f"{name} must be a tuple or a list of whole numbers"
        remedy = f"Write {name}=({shown(value)},)" if isinstance(value, int) else "Use a tuple"
        raise TypeError(message(name, value, rule, remedy))
    return tuple(integer(f"{name}[{i}]", item, minimum=1) for i, item in enumerate(value))


def descending(name: str, value: object) -> tuple[int, ...]:
    """Whole numbers of at least 1, each once and the largest first; raises like ``integers``."""
    return tuple(sorted(set(integers(name, value)), reverse=True))


def keys(owner: str, values: object, names: Collection[str]) -> None:
    """Raise TypeError or ValueError unless ``values`` is a dictionary with just these keys."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{owner} needs a dictionary with the keys {', '.join(names)}, "
            f"but got {shown(values)}. Pass what to_dict() returned."
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
        raise ValueError(
            f"{owner} lacks {', '.join(map(repr, missing))}. Add it to the dictionary; "
            f"{owner}'s docstring says what is usual."
        )
