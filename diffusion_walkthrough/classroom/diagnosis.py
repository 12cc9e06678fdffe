"""What can be said of a wrong answer that nobody foresaw: facts about its numbers, as questions.

Each function returns a sentence, or "" if it finds nothing. A sentence states a relation between
the answer and the expected numbers only if it holds at all places, and never the solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

LOG_2, LOG_10 = math.log(2), math.log(10)

# f(expected), and what to ask if the answer is that. {} stands for "Your number is" and the like.
RELATIONS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda e: -e, "{} the expected one with the other sign: what is subtracted from what?"),
    (lambda e: 2 * e, "{} twice the expected one: is something counted twice, or a half missing?"),
    (lambda e: e / 2, "{} half of the expected one: is a factor of 2 missing, or a half too much?"),
    (lambda e: e**2, "{} the square of the expected one: is a root missing, as between a variance "
     "and a standard deviation?"),
    (np.sqrt, "{} the root of the expected one: is a root taken too often, as between a variance "
     "and a standard deviation?"),
    (lambda e: 1 / e, "{} the inverse of the expected one: which of the two divides the other?"),
    (lambda e: 1 / np.sqrt(e), "{} 1 divided by the root of the expected one: what is divided by "
     "what, and does the root belong there?"),
    (lambda e: 100 * e, "{} a hundred times the expected one: are these percent?"),
    (lambda e: e / 100, "{} a hundredth of the expected one: what was divided by 100, and why?"),
    (np.log, "{} the logarithm of the expected one: is the number itself asked for?"),
    (np.log2, "{} the logarithm of the expected one, to base 2: is the number itself asked for?"),
    (np.exp, "{} e to the power of the expected one: is a logarithm asked for?"),
]  # fmt: skip
# The same for shares, numbers between 0 and 1.
OF_SHARES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda e: 1 - e, "{} what is missing from the expected one to 1: which of the two shares is "
     "asked for?"),
    (lambda e: np.sqrt(1 - e**2), "The squares of yours and of the expected add up to 1: which of "
     "the two factors is asked for?"),
    (lambda e: 1 - e**2, "{} 1 minus the square of the expected one: which of the two shares is "
     "asked for, and is it a variance or a factor?"),
    (lambda e: np.sqrt(1 - e), "{} the root of 1 minus the expected one: which of the two shares "
     "is asked for, and is it a variance or a factor?"),
]  # fmt: skip
BASES = "{} the expected one {}: which logarithm is meant, to base e, 2 or 10?"
FACTORS: list[tuple[float, str]] = [
    (LOG_2, BASES.format("{}", "times log 2")),
    (1 / LOG_2, BASES.format("{}", "divided by log 2")),
    (LOG_10, BASES.format("{}", "times log 10")),
    (1 / LOG_10, BASES.format("{}", "divided by log 10")),
    (LOG_2 / LOG_10, BASES.format("{}", "times log 2 / log 10")),
    (LOG_10 / LOG_2, BASES.format("{}", "times log 10 / log 2")),
    (math.sqrt(2), "{} √2 times the expected one: where does a root of 2 belong?"),
    (math.sqrt(0.5), "{} the expected one divided by √2: where does a root of 2 belong?"),
    (math.pi, "{} π times the expected one: where does a π belong?"),
    (1 / math.pi, "{} the expected one divided by π: where does a π belong?"),
    (60, "{} 60 times the expected one: in which unit is it?"),
    (3600, "{} 3,600 times the expected one: in which unit is it?"),
    (1 / 60, "{} a sixtieth of the expected one: in which unit is it?"),
    (1 / 3600, "{} 1/3,600 of the expected one: in which unit is it?"),
]
TIMES = "{} {} times the expected one: is a factor in it that does not belong, or one left out?"
PARTS = "{} the expected one divided by {}: is a factor missing, or a division too much?"
MANY = "{} a whole number of times the expected one: which factor in it does not belong?"
FEW = "The expected one is a whole number of times yours: which factor is missing?"
ELSE = 1.02  # how much the expected numbers may differ before a relation must no longer hold
OTHERWISE = "The numbers differ"  # how the sentence begins where nothing is recognized


def of_number(answer: float, expected: float, tolerance: float = 1e-4) -> str:
    """Name how a single number differs from the expected one; there is always something to say.

    An ``expected`` of type int says that a whole number is asked for.
    """
    said = list(_relations_of_numbers(answer, expected, tolerance))
    if said:
        return " Or: ".join(dict.fromkeys(said[:2]))
    for factor, sentence in [*FACTORS, *_whole_factors(answer, expected)]:
        if agree(answer, factor * expected, tolerance):
            return sentence.format("Your number is")
    return _direction(answer, expected)


def agree(answer: float, other: float, tolerance: float = 1e-4) -> bool:
    """Whether two numbers agree, or do as soon as ``other`` is rounded like ``answer``.

    Rounding counts only where the tolerance is there for rounded answers, and only if ``answer``
    has three digits that are not leading zeros: with fewer, much would agree by chance.
    """
    if not np.isfinite(other):
        return False
    if math.isclose(answer, other, rel_tol=max(min(tolerance, 1e-3), 1e-6), abs_tol=1e-12):
        return True
    return rounded_alike(answer, other, tolerance, digits=3)


def rounded_alike(answer: float, other: float, tolerance: float, digits: int = 2) -> bool:
    """Whether ``answer`` is ``other`` rounded, where the exercise allows rounding.

    Args:
        answer: the reader's number.
        other: what it may be.
        tolerance: that of the exercise; it allows rounding if it is above the usual 1e-4.
        digits: how many digits the answer must have at least, leading zeros not counted.
    """
    there, decimals = written(answer)
    rounds = tolerance > 1e-4 and there >= digits
    return rounds and abs(other - answer) <= 0.5000001 * 10.0**-decimals


def written(number: float) -> tuple[int, int]:
    """How a number is written: its digits without leading zeros, and those after the point."""
    whole, _, decimals = format(number, ".12f").rstrip("0").lstrip("-").partition(".")
    return len((whole + decimals).lstrip("0")), len(decimals)


def _relations_of_numbers(answer: float, expected: float, tolerance: float) -> Iterator[str]:
    """The sentences of all relations between two numbers."""
    whole = isinstance(expected, int | np.integer)
    if whole and abs(expected) > 1 and abs(answer - expected) == 1:
        more = "more" if answer > expected else "less"
        yield (
            f"Your number is one {more} than the expected one: does the counting begin with 0 or "
            "with 1, and does the last one count?"
        )
    shares = OF_SHARES if 0 < expected < 1 else []
    with np.errstate(all="ignore"):
        for relation, sentence in [*RELATIONS, *shares]:
            exact, other = relation(np.float64(expected)), relation(np.float64(ELSE * expected))
            # Near 1 all of 1 − e are alike for a small e: that is no relation.
            if agree(answer, exact, tolerance) and not agree(answer, other, tolerance):
                yield sentence.format("Your number is")
    if whole and not float(answer).is_integer():
        near = abs(answer - expected) < 1
        what = "which way has it to be rounded, and when" if near else "what is being counted"
        yield f"A whole number is asked for: {what}?"


def _whole_factors(answer: float, expected: float) -> list[tuple[float, str]]:
    """A whole number that the answer may be too large by, or too small by.

    A large one counts only if it is exact, since among many numbers one is always near; and it is
    not named, or it would give the answer away.
    """
    if not answer or not expected:
        return []
    found: list[tuple[float, str]] = []
    for ratio, sentence, turned in (
        (answer / expected, TIMES, False),
        (expected / answer, PARTS, True),
    ):
        number = round(ratio)
        exact = math.isclose(ratio, number, rel_tol=1e-6)
        if number <= 2:
            continue
        factor = 1 / number if turned else float(number)
        if number <= 10:
            found.append((factor, sentence.format("{}", number)))
        elif number <= 10_000 and exact:
            found.append((factor, FEW if turned else MANY))
    return found


def _direction(answer: float, expected: float) -> str:
    """Whether a number is too large or too small, and roughly by how much."""
    way = "large" if answer > expected else "small"
    if answer * expected < 0:
        sign = "negative" if answer < 0 else "positive"
        return f"Your number is {sign}, and the expected one is not: what is subtracted from what?"
    low, high = sorted([abs(answer), abs(expected)])
    if low == 0:
        which = "makes it 0" if answer == 0 else "should cancel"
        return f"Your number is too {way}: what {which}?"
    if high / low < 1.1:
        return (
            f"Your number is too {way}, but by less than a tenth: is a small term missing, or was "
            "something rounded early?"
        )
    if high / low > 10:
        return (
            f"Your number is too {way}, by more than a factor of ten: is something multiplied or "
            "divided that should not be?"
        )
    size = "more" if high / low > 2 else "less"
    return (
        f"Your number is too {way}, by {size} than a factor of two: which of its pieces makes it "
        f"so {way}?"
    )


def of_array(
    answer: Any, expected: Any, tolerance: float = 1e-4, places: list[str] | None = None
) -> str:
    """Name how an array differs from the expected one; there is always something to say.

    Args:
        answer: the reader's numbers, of the same shape as ``expected``, all finite.
        expected: the right ones.
        tolerance: relative tolerance of the comparisons.
        places: what the entries of the first axis are called; by default their index.
    """
    a, e = np.asarray(answer, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    looks = (
        _related, _constant, _moved, _piled_up, _somewhere_right, _by_rows, _unlike,
    )  # fmt: skip
    for look in looks:
        if sentence := look(a, e, tolerance, places or []):
            return sentence
    return _first_difference(a, e, tolerance)


def of_parts(
    answer: Any, expected: Any, parts: dict[str, Any], places: list[str] | None = None
) -> str:
    """Say whose factor is wrong in an answer that is a sum of known parts, each times a factor.

    Args:
        answer: the reader's numbers; the last axis is that of the pixels, each other index may have
            factors of its own.
        expected: the right ones, such a sum too.
        parts: the parts by name, each of the same shape.
        places: what the entries of the first axis are called; by default their index.

    Returns:
        A sentence; "" if the answer is no such sum.
    """
    names = list(parts)
    mine, right = _factors(answer, parts), _factors(expected, parts)
    if right is None:
        return ""
    if mine is None:
        return _bare_number(answer, parts)
    good = [_everywhere(m, r, 1e-4) for m, r in zip(mine, right, strict=True)]
    if len(names) == 2 and not any(good):
        if _everywhere(mine, right[::-1], 1e-4):
            return f"The factors of {names[0]} and {names[1]} have changed places."
        if _everywhere(np.sum([mine**2, right**2], axis=1), np.ones_like(right), 1e-6):
            return (
                f"The squares of the factors of {names[0]} and {names[1]} add up to 1, as they "
                "should. But do they belong to this place in the table?"
            )
    verdicts: dict[str, list[str]] = {}
    for name, ok, m, r in zip(names, good, mine, right, strict=True):
        verdicts.setdefault("{} right." if ok else _of_factor(m, r, places or []), []).append(name)
    said = [_about(names, verdict) for verdict, names in verdicts.items()]
    return " ".join(sorted(said, key=lambda sentence: not sentence.endswith("right.")))


def _about(names: list[str], verdict: str) -> str:
    """A verdict on the factors of some parts, with its subject and verb."""
    if len(names) == 1:
        return verdict.format(f"The factor of {names[0]} is", names[0])
    return verdict.format(f"The factors of {_listed(names)} are", _listed(names))


def _factors(numbers: Any, parts: dict[str, Any]) -> Any:
    """The factor of each part in each row, (parts, rows); None if the numbers are no such sum."""
    columns = [np.asarray(part, dtype=np.float64) for part in parts.values()]
    pixels = columns[0].shape[-1]
    rows = np.stack([part.reshape(-1, pixels) for part in columns], axis=-1)
    wanted = np.asarray(numbers, dtype=np.float64).reshape(-1, pixels)
    if pixels <= len(parts) or len(wanted) != len(rows):
        return None
    found = [np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(rows, wanted, strict=True)]
    rebuilt = np.einsum("rpk,rk->rp", rows, np.array(found))
    return np.array(found).T if _everywhere(rebuilt, wanted, 1e-4) else None


def _bare_number(answer: Any, parts: dict[str, Any]) -> str:
    """Whether a number stands in the place of one of the parts."""
    for name, part in parts.items():
        if _factors(answer, {**parts, name: np.ones_like(part)}) is not None:
            return f"In the place of {name} stands a bare number: what should it multiply?"
    return ""


def _of_factor(mine: Any, right: Any, places: list[str]) -> str:
    """What is wrong with the factor of one part, given for each row, for :func:`_about`."""
    if np.max(np.abs(mine)) < 1e-8:
        return "There is no trace of {1} in your answer."
    shares = OF_SHARES if np.all((right >= 0) & (right <= 1)) else []
    with np.errstate(all="ignore"):
        for relation, sentence in [*RELATIONS, *shares]:
            if _holds(relation, mine, right, 1e-4):
                return sentence
    wrong = ~close(mine, right, 1e-4)
    larger = np.abs(mine[wrong]) > np.abs(right[wrong])
    way = "too large" if larger.all() else "not right" if larger.any() else "too small"
    names = places or [f"index {i}" for i in range(len(mine))]
    where = f" at {_listed([names[i] for i in np.flatnonzero(wrong)])}" if not wrong.all() else ""
    return f"{{}} {way}{where}: what does the equation have there?"


def close(answer: Any, other: Any, tolerance: float) -> Any:
    """Where two arrays agree: relative to each number, and never finer than their rounding."""
    scale = np.max(np.abs(other), initial=0, where=np.isfinite(other))
    limit = max(tolerance, 1e-6)
    return np.isclose(answer, other, rtol=limit, atol=0.01 * limit * scale)


def _related(a: Any, e: Any, tolerance: float, _places: list[str]) -> str:
    """The same relation at all places: sign, square, inverse, a constant factor or offset."""
    shares = OF_SHARES if np.all((e >= 0) & (e <= 1)) else []
    with np.errstate(all="ignore"):
        for relation, sentence in [*RELATIONS, *shares]:
            if _holds(relation, a, e, tolerance):
                return sentence.format("Each of your numbers is")
        if any(_holds(f, a, e, tolerance) for f in (lambda x: (x + 1) / 2, lambda x: 2 * x - 1)):
            return (
                "The same picture, but one of the two runs from 0 to 1 and the other from −1 to "
                "1: which range is meant here?"
            )
    if _everywhere(np.abs(a), np.abs(e), tolerance):
        return "The sizes are right, but some signs are not: where is the minus?"
    return _factor_or_offset(a, e, tolerance)


def _holds(relation: Callable[[Any], Any], a: Any, e: Any, tolerance: float) -> bool:
    """Whether a relation holds at all places, and would not if the numbers were others."""
    if not _everywhere(a, relation(e), tolerance):
        return False
    return not _everywhere(a, relation(ELSE * e), tolerance)


def _everywhere(a: Any, other: Any, tolerance: float) -> bool:
    return bool(np.isfinite(other).all() and close(a, other, tolerance).all())


def _factor_or_offset(a: Any, e: Any, tolerance: float) -> str:
    """A constant factor, or a constant offset, between all numbers."""
    if np.ptp(e) == 0 or np.ptp(a) == 0:
        return ""
    factor = np.sum(a * e) / np.sum(e * e)
    if _everywhere(a, factor * e, tolerance):
        for named, sentence in [*FACTORS, *_whole_factors(factor, 1.0)]:
            if math.isclose(factor, named, rel_tol=tolerance):
                return sentence.format("Each of your numbers is")
        way = "large" if abs(factor) > 1 else "small"
        return (
            f"All your numbers are too {way} by one and the same factor: is one left out, or one "
            "in it that does not belong?"
        )
    offset = np.mean(a - e)
    if _everywhere(a, e + offset, tolerance):
        way = "large" if offset > 0 else "small"
        return (
            f"All your numbers are too {way} by the same amount: is a term missing, or one counted "
            "twice?"
        )
    return ""


def _constant(a: Any, e: Any, tolerance: float, _places: list[str]) -> str:
    """All numbers, or all rows, are the same where they should differ."""
    if a.size > 1 and np.ptp(a) == 0 and np.ptp(e) > 0:
        return (
            f"All your numbers are {a.flat[0]:.3g}, and they should differ: is everything used "
            "that your function is given?"
        )
    if len(a) > 1 and close(a, a[:1], 1e-9).all() and not close(e, e[:1], tolerance).all():
        return "All rows of your answer are the same, and they should differ from each other."
    return ""


def _moved(a: Any, e: Any, tolerance: float, _places: list[str]) -> str:
    """The right numbers at wrong places: shifted, reversed, transposed, in another order."""
    if a.size < 3 or np.ptp(e) == 0:
        return ""
    for axis in range(a.ndim):
        if a.shape[axis] > 1 and _everywhere(a, np.flip(e, axis), tolerance):
            return "The right numbers in reverse order: at which end does it begin?"
    if a.ndim == 2 and a.shape == e.T.shape and _everywhere(a, e.T, tolerance):
        return "Rows and columns have changed places: which of the two comes first?"
    if len(a) > 2 and not close(e, e[:1], tolerance).all():
        if _everywhere(a[1:], e[:-1], tolerance):
            return (
                "Your numbers come one place too late: the one that belongs to index 0 stands at "
                "index 1. To which step does each belong?"
            )
        if _everywhere(a[:-1], e[1:], tolerance):
            return (
                "Your numbers come one place too early: the one that belongs to index 1 stands at "
                "index 0. To which step does each belong?"
            )
    if close(np.sort(a, axis=None), np.sort(e, axis=None), tolerance).all():
        return "The right numbers, but in another order: what decides which comes where?"
    return ""


def _piled_up(a: Any, e: Any, tolerance: float, _places: list[str]) -> str:
    """Single terms where their products or sums belong, or the other way round."""
    if len(a) < 3:
        return ""
    with np.errstate(all="ignore"):
        if _everywhere(np.cumprod(a, axis=0), e, tolerance):
            return "Yours is right for each step alone. What have all steps up to it done together?"
        if _everywhere(np.cumsum(a, axis=0), e, tolerance):
            return "Yours is what each step adds alone. What have all steps up to it added?"
        if _everywhere(a, np.cumprod(e, axis=0), tolerance):
            return "Your numbers multiply up from step to step. Is each step alone asked for?"
        if _everywhere(a, np.cumsum(e, axis=0), tolerance):
            return "Your numbers add up from step to step. Is each step alone asked for?"
    return ""


def _somewhere_right(a: Any, e: Any, tolerance: float, places: list[str]) -> str:
    """Right at some places: where it is not, or where it stops being so."""
    right = close(a, e, tolerance)
    if not right.any() or right.all():
        return ""
    if np.count_nonzero(~right) > 1 and (sentence := _limited(a, e, tolerance)):
        return sentence
    rows = right.reshape(len(e), -1).all(axis=1)
    if rows.any():
        return _by_names(rows, places)
    if np.count_nonzero(~right) == 1:
        where = tuple(map(int, np.argwhere(~right)[0]))
        return f"Right everywhere but at index {where}: what is different there?"
    columns = right.reshape(-1, e.shape[-1]).all(axis=0)
    if columns.any():
        found = _listed([str(i) for i in np.flatnonzero(columns)])
        return f"Along the last axis, index {found} is right and the rest is not: what differs?"
    return ""  # fmt: skip


def _limited(a: Any, e: Any, tolerance: float) -> str:
    """The answer is the expected one clipped, or the other way round."""
    if _everywhere(a, np.clip(e, a.min(), a.max()), tolerance):
        limit = a.max() if a.max() < e.max() else a.min()
        return f"Right until your numbers stop at {limit:.3g}: should they?"
    if _everywhere(np.clip(a, e.min(), e.max()), e, tolerance):
        kind = "large" if a.max() > e.max() else "small"
        return f"Right, but for the numbers that are too {kind}: how far may they go?"
    return ""


def _by_names(rows: Any, places: list[str]) -> str:
    """A sentence on which entries of the first axis are right, and which are not."""
    names = places or [str(i) for i in range(len(rows))]
    at = "" if places else "index "
    good = [name for name, right in zip(names, rows, strict=True) if right]
    bad = [name for name, right in zip(names, rows, strict=True) if not right]
    if len(bad) == 1 and len(rows) > 2:
        return f"Right everywhere but at {at}{bad[0]}: what is different there?"
    if not rows[len(good) :].any() and len(bad) > 1:
        until = f"up to {at}{good[-1]}" if len(good) > 1 else f"at {at}{good[0]}"
        return f"Right {until}, wrong from {at}{bad[0]} on: what is new there?"
    return f"Right at {at}{_listed(good)}, wrong at {at}{_listed(bad)}: what is different there?"


def _listed(names: list[str]) -> str:
    """Names in a row, no more than four of them."""
    shown = names if len(names) <= 4 else [*names[:3], "others"]
    return ", ".join(shown[:-1]) + (" and " if shown[1:] else "") + shown[-1]


def _by_rows(a: Any, e: Any, tolerance: float, _places: list[str]) -> str:
    """Each row right up to a factor, or an offset, of its own."""
    if a.ndim < 2 or a[0].size < 3:
        return ""
    a, e = a.reshape(len(a), -1), e.reshape(len(e), -1)
    with np.errstate(all="ignore"):
        factors = np.sum(a * e, axis=1, keepdims=True) / np.sum(e * e, axis=1, keepdims=True)
        if _everywhere(a, factors * e, tolerance):
            return (
                "Each row is right up to a factor, which differs from row to row: what is the "
                "factor made of?"
            )
    if _everywhere(a, e + np.mean(a - e, axis=1, keepdims=True), tolerance):
        return (
            "Each row is right up to something added, which differs from row to row: what is added?"
        )
    return ""


def _unlike(a: Any, e: Any, tolerance: float, _places: list[str]) -> str:
    """What all the expected numbers have in common, and these have not."""
    sums = np.sum(a, axis=-1), np.sum(e, axis=-1)
    if a.shape[-1] > 2 and close(sums[1], 1.0, 1e-6).all() and not _everywhere(*sums, 1e-3):
        worst = np.ravel(sums[0])[np.argmax(np.abs(np.ravel(sums[0]) - 1))]
        whose = "Your numbers" if a.ndim == 1 else "The numbers of each row"
        return f"{whose} should add up to 1, and here they make {worst:.3g}: what is left out?"
    if np.all(e >= 0) and np.any(a < 0):
        return "Some of your numbers are negative, and here none should be: what is subtracted?"
    if np.all((e >= 0) & (e <= 1)) and np.any(a > 1 + tolerance):
        return (
            "Some of your numbers are above 1, and here none should be: what makes them so large?"
        )
    if a.ndim == 1 and len(a) > 2:
        mine, right = np.sign(np.diff(a)), np.sign(np.diff(e))
        if np.all(right == right[0]) and np.all(mine == -right[0]) and right[0]:
            way, other = ("rise", "fall") if right[0] < 0 else ("fall", "rise")
            return (
                f"Your numbers {way} from entry to entry, and they should {other}: why would they?"
            )
    return ""


def _first_difference(a: Any, e: Any, tolerance: float) -> str:
    """Where to begin looking, if nothing else can be said."""
    wrong = ~close(a, e, tolerance)
    where = tuple(map(int, np.argwhere(wrong)[0])) if wrong.any() else (0,) * a.ndim
    way = "large" if a[where] > e[where] else "small"
    if wrong.all() and (np.all(a > e) or np.all(a < e)):
        return (
            f"{OTHERWISE}: all of yours are too {way}, but not by one factor or amount. Reckon the "
            "first one by hand, term by term."
        )
    at = where[0] if len(where) == 1 else where
    return (
        f"{OTHERWISE}: at index {at} yours is {a[where]:.3g}, which is too {way}. Reckon that one "
        "by hand, term by term."
    )
