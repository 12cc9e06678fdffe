"""Pictures that follow the hand: HTML made from arrays in a millisecond, without matplotlib.

A small image is a PNG of its own few pixels that the browser enlarges; a curve is a line of SVG in
the page's own text colour, so that both are sharp at any size and in any theme. Every function
returns a string; rows of them make a picture for :func:`widgets.explore`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    to_png,
)
from diffusion_walkthrough.data import to_uint8

_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, GREY)
_LETTER, _LINE = 6.2, 13  # how wide and how tall a letter of a chart is at most, in CSS pixels


def pixels(image: ArrayLike, caption: str, value_range: float = 1.0, size: int = 104) -> str:
    """An image of grey levels or colours, enlarged, over its caption.

    Args:
        image: ``(height, width)`` or ``(height, width, 1 or 3)``.
        caption: what it is, in a few words; also its alternative text.
        value_range: ``-value_range`` is black and ``value_range`` white.
        size: its width on the page, in CSS pixels.

    Raises:
        ValueError: for another shape, and for NaN, which has no colour.
    """
    values = np.asarray(image, dtype=np.float32)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 and (values.ndim != 3 or values.shape[-1] != 3):
        raise ValueError(f"an image is (height, width, 1 or 3), and this is {values.shape}.")
    height = round(size * values.shape[0] / values.shape[1])
    rendering = "pixelated" if size >= values.shape[1] else "auto"
    source = base64.b64encode(to_png(to_uint8(values / value_range))).decode()
    said = html.escape(caption)
    return (
        f'<figure style="margin:0;text-align:center;width:{size}px">'
        f'<img alt="{said}" src="data:image/png;base64,{source}" width="{size}" height="{height}" '
        f'style="image-rendering:{rendering};outline:1px solid #999"/>'
        f'<figcaption style="line-height:1.25">{said}</figcaption></figure>'
    )


def sign(text: str, size: int = 104) -> str:
    """A sign between two images, such as + or =, at half the height of images of that size."""
    style = f"font-size:150%;line-height:{size}px"
    return f'<div style="{style}">{html.escape(text, quote=False)}</div>'


def row(*parts: str) -> str:
    """Lay parts out side by side; they wrap where the page is narrow."""
    style = "display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start;margin:6px 0"
    return f'<div style="{style}">{"".join(parts)}</div>'


def stack(*parts: str) -> str:
    """Lay parts out below each other."""
    return "".join(f'<div style="margin:4px 0">{part}</div>' for part in parts)


def gauge(share: float, caption: str, width: int = 220) -> str:
    """A bar that is empty at 0 and full at 1 (and beyond), with its caption beside it.

    Raises:
        ValueError: for NaN.
    """
    if np.isnan(share):
        raise ValueError(f"{caption!r}: the share is NaN, and a bar has no length for it.")
    filled = float(np.clip(share, 0, 1)) * width
    said = html.escape(caption)
    return (
        '<div style="display:flex;gap:8px;align-items:center">'
        f'<svg aria-hidden="true" width="{width}" height="12" '
        f'viewBox="0 0 {width} 12">'
        f'<rect width="{width}" height="12" rx="3" fill="currentColor" opacity="0.15"/>'
        f'<rect width="{filled:.1f}" height="12" rx="3" fill="{BLUE}"/></svg>'
        f"<span>{said}</span></div>"
    )


@dataclass(frozen=True)
class _Frame:
    """Where a chart's numbers lie: from ``first`` to ``last`` across, ``low`` to ``high`` up."""

    first: float
    last: float
    low: float
    high: float
    left: float
    right: float
    top: float
    bottom: float

    def across(self, x: ArrayLike) -> NDArray[np.float64]:
        share = (np.asarray(x, np.float64) - self.first) / ((self.last - self.first) or 1.0)
        return self.left + share * (self.right - self.left)

    def down(self, y: ArrayLike) -> NDArray[np.float64]:
        share = (np.asarray(y, np.float64) - self.low) / (self.high - self.low)
        return np.clip(self.bottom - share * (self.bottom - self.top), -1e4, 1e4)


def curves(
    x: ArrayLike,
    lines: Mapping[str, ArrayLike],
    label: str,
    marks: Mapping[str, tuple[float, float]] | None = None,
    limits: tuple[float, float] | None = None,
    size: tuple[int, int] = (330, 150),
) -> str:
    """Curves over one axis, each named at its end if there are several, with named points.

    Args:
        x: where, ``(n,)``, rising.
        lines: one to six curves by name, each ``(n,)``; one breaks off where it is not finite.
        label: what is drawn, in a few words; stands above, and begins the alternative text.
        marks: points ``(x, y)`` by name, drawn as dots: hollow ones at the edge for what
            lies beyond the limits, none for what is not finite.
        limits: the lowest and highest y; those of curves and marks if None.
        size: width and height in CSS pixels.

    Raises:
        ValueError: for no curve or more than six, one of another length than x, or limits that
            do not rise.
    """
    places = np.asarray(x, dtype=np.float64)
    values = {name: np.asarray(line, dtype=np.float64) for name, line in lines.items()}
    marks = marks or {}
    low, high = limits or _limits([*values.values(), np.array([y for _, y in marks.values()])])
    _check(places, values, low, high)
    frame = _frame(places, low, high, list(values) if len(values) > 1 else [], size)
    parts = [_axes(frame)]
    for line, colour in zip(values.values(), _COLOURS, strict=False):
        parts.append(_line(frame, places, line, colour))
    if len(values) > 1:
        parts += _names(frame, values)
    parts += [
        _mark(frame, name, *point) for name, point in marks.items() if np.isfinite(point).all()
    ]
    said, told = html.escape(label), html.escape(_told(frame, places, label, values, marks))
    return (
        f'<figure style="margin:0"><figcaption>{said}</figcaption><svg role="img" '
        f'aria-label="{told}" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}" font-size="11" fill="currentColor">'
        f"{''.join(parts)}</svg></figure>"
    )


def _told(
    frame: _Frame,
    x: NDArray[np.float64],
    label: str,
    values: Mapping[str, NDArray[np.float64]],
    marks: Mapping[str, tuple[float, float]],
) -> str:
    """What a chart shows, in words: its axes, where each curve begins and ends, its marks."""
    wide, tall = frame.last - frame.first, frame.high - frame.low
    told = [f"{label}. Across: {_number(frame.first, wide)} to {_number(frame.last, wide)}"]
    for name, line in values.items():
        finite = np.flatnonzero(np.isfinite(line))
        if len(finite):
            top = finite[line[finite].argmax()]
            begin, end, most = (_number(line[i], tall) for i in (*finite[[0, -1]], top))
            told.append(f"{name}: from {begin} to {end}, highest {most} at {_number(x[top], wide)}")
    for name, (at, up) in marks.items():
        if np.isfinite((at, up)).all():
            told.append(f"{name or 'dot'} at {_number(at, wide)}, {_number(up, tall)}")
    return ". ".join(told)


def _check(
    places: NDArray[np.float64], values: Mapping[str, NDArray[np.float64]], low: float, high: float
) -> None:
    """Refuse what :func:`curves` cannot draw."""
    if not 1 <= len(values) <= len(_COLOURS):
        raise ValueError(f"{len(values)} curves: a chart holds 1 to {len(_COLOURS)}.")
    for name, line in values.items():
        if line.shape != places.shape or places.ndim != 1 or not len(places):
            raise ValueError(f"{name!r} has shape {line.shape}, and x has {places.shape}.")
    if not low < high:
        raise ValueError(f"limits={(low, high)}: the first has to be lower than the second.")


def _limits(values: list[NDArray[np.float64]]) -> tuple[float, float]:
    """The lowest and highest finite value; half below and above if it is only one."""
    joined = np.concatenate(values)
    finite = joined[np.isfinite(joined)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _frame(
    places: NDArray[np.float64], low: float, high: float, names: list[str], size: tuple[int, int]
) -> _Frame:
    """The frame within a chart of that size that leaves room for numbers and names."""
    first, last = float(places[0]), float(places[-1])
    left = 8 + _LETTER * max(len(_number(low, high - low)), len(_number(high, high - low)))
    room = 8 + _LETTER * max(map(len, names), default=0)
    return _Frame(first, last, low, high, left, size[0] - room, 8, size[1] - 20)


def _axes(frame: _Frame) -> str:
    """The two axes, with a number at each end."""
    left, right, top, bottom = frame.left, frame.right, frame.top, frame.bottom
    path = f"M{left:.0f} {top:.0f}V{bottom:.0f}H{right:.0f}"
    return (
        f'<path d="{path}" fill="none" stroke="currentColor" opacity="0.5"/>'
        + _text(left, bottom + 14, _number(frame.first, frame.last - frame.first))
        + _text(right, bottom + 14, _number(frame.last, frame.last - frame.first), anchor="end")
        + _text(left - 4, bottom, _number(frame.low, frame.high - frame.low), anchor="end")
        + _text(left - 4, top + 6, _number(frame.high, frame.high - frame.low), anchor="end")
    )


def _line(frame: _Frame, x: NDArray[np.float64], y: NDArray[np.float64], colour: str) -> str:
    """One curve, cut off at the frame's edges; a piece of its own between values not finite."""
    finite = np.isfinite(y)
    # In tenths of a pixel: whole numbers are written four times as fast as fractions.
    across = np.rint(10 * frame.across(x)).astype(int)
    down = np.rint(10 * frame.down(np.where(finite, y, 0.0))).astype(int)
    ends = np.flatnonzero(np.diff(finite)) + 1
    pieces = zip(np.split(across, ends), np.split(down, ends), np.split(finite, ends), strict=True)
    points = [
        " ".join(f"{a},{d}" for a, d in zip(at.tolist(), down.tolist(), strict=True))
        for at, down, drawn in pieces
        if drawn[0]
    ]
    wide, tall = frame.right + 1, frame.bottom - frame.top + 2
    drawn = "".join(f'<polyline points="{piece}"/>' for piece in points)
    return (
        f'<svg y="{frame.top - 1:.0f}" width="{wide:.0f}" height="{tall:.0f}" '
        f'viewBox="0 {10 * frame.top - 10:.0f} {wide:.0f}0 {tall:.0f}0" fill="none" '
        f'stroke="{colour}" stroke-width="20" stroke-linejoin="round">{drawn}</svg>'
    )


def _names(frame: _Frame, values: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """The curves' names at their right ends, moved apart where they would overlap."""
    ends: list[list[Any]] = []
    for (name, line), colour in zip(values.items(), _COLOURS, strict=False):
        finite = line[np.isfinite(line)]
        at = float(frame.down(finite[-1])) if len(finite) else frame.bottom
        ends.append([min(max(at, frame.top), frame.bottom), name, colour])
    ends.sort(key=lambda end: end[0])
    for above, below in pairwise(ends):
        below[0] = max(below[0], above[0] + _LINE)
    ends[-1][0] = min(ends[-1][0], frame.bottom)
    for above, below in reversed(list(pairwise(ends))):
        above[0] = min(above[0], below[0] - _LINE)
    return [
        f'<circle cx="{frame.right + 1:.1f}" cy="{down:.1f}" r="2.5" fill="{colour}"/>'
        + _text(frame.right + 6, down + 4, name)
        for down, name, colour in ends
    ]


def _mark(frame: _Frame, name: str, x: float, y: float) -> str:
    """A dot and its name, which stands on the side where there is room."""
    across, down = float(frame.across(x)), float(frame.down(y))
    edge = min(max(down, frame.top), frame.bottom)
    inside = abs(edge - down) < 0.5
    fill = "currentColor" if inside else "none"
    to_the_left = across + 8 + _LETTER * len(name) > frame.right
    beside = across - 7 if to_the_left else across + 7
    above = edge - 5 if edge - 5 > frame.top + 6 else edge + 14
    dot = f'<circle cx="{across:.1f}" cy="{edge:.1f}" r="4" fill="{fill}" stroke="currentColor"/>'
    return dot + _text(beside, above, name, anchor="end" if to_the_left else "start")


def _text(across: float, down: float, words: str, anchor: str = "start") -> str:
    said = html.escape(words, quote=False)
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{said}</text>'


def _number(value: float, extent: float) -> str:
    """An axis's end, as exact as can be seen: to a thousandth of the axis's extent."""
    digits = 2 - int(np.floor(np.log10(abs(extent) or 1.0)))
    return f"{round(value, digits) + 0.0:.6g}"
