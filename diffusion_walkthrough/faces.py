"""Pixel faces: a data set of 16x16 pixels in colour that this project draws itself.

A face is made of the parts of ``face_parts.py``, laid over each other. Which ones are its
*attributes*: a dictionary from a name, such as "hat", to int32 ``(n,)``; ``STANDARD.names`` says
what the values mean. So every face has its labels, and whether a model's image is a face, which one
and of a kind that training has shown, has an exact answer. Only what can be seen counts: a colour
that nothing wears is ``NOT_SEEN``, and parts that look alike, as hair below a hat, are the first.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough import checks
from diffusion_walkthrough.face_parts import COLOURS, FIGURE, INKS, LAYERS, PARTS, ZONES

SIDE = 16
NOT_SEEN = -1
SPLIT_NAMES = ("train", "test", "kept_out")

#: Pairs that training never shows together, though it shows each of the two often.
KEPT_OUT = (
    {"hat": "crown", "glasses": "sunglasses"},
    {"hat": "wizard hat", "beard": "full beard"},
    {"hair_colour": "green", "clothes_colour": "red"},
)
TEST_EVERY = 10  #: the test's faces are those whose attributes add up to a multiple of this
#: How far from the nearest face an image may be and still count as one (see ``Parts.read``). Smooth
#: errors of 0.05 a pixel (mean, absolute) lead to 0.15 at most, noise of σ = 0.15 to 0.25; of faces
#: with half of another hat 98 % are farther, with a second mouth 94 %, of halves of two faces all.
LEGAL_DISTANCE = 0.3

Images: TypeAlias = NDArray[np.float32]
Attributes: TypeAlias = dict[str, NDArray[np.int32]]
Given: TypeAlias = Mapping[str, ArrayLike]  # attributes, from a reader

#: Colours with one zone of their own, so that zones can be read apart; the others may be anywhere.
_ZONE_OF_COLOUR = {"background": "h", "eye_colour": "e", "hat_colour": "h", "clothes_colour": "c"}
_SHARE_WITHOUT = {"beard": 0.75, "glasses": 0.65, "hat": 0.55}
_BLOCK = 1024  # faces from one generator, so that 20 faces are the first 20 of 10,000
_READ_AT_ONCE = 256  # bounds the memory for reading to about 100 MB

# The inks are one more colour, of a single value. A character's number is its place in _CHARACTERS.
_ALL_COLOURS = {**COLOURS, "inks": ("".join(INKS), {"": " ".join(INKS.values())})}
_CHARACTERS = "." + "".join(characters for characters, _ in _ALL_COLOURS.values())


def _table(characters: str, values: Mapping[str, str]) -> Images:
    """What a colour makes of its characters, in [-1, 1]: (values, characters, 3), 0 for others."""
    table = np.zeros((len(values), len(_CHARACTERS), 3), np.float32)
    pixels = [[[*bytes.fromhex(code[1:])] for code in text.split()] for text in values.values()]
    table[:, [*map(_CHARACTERS.index, characters)]] = np.array(pixels, np.float32) / 127.5 - 1
    return table


_TABLES = {colour: _table(*meaning) for colour, meaning in _ALL_COLOURS.items()}


def _picture(rows: Sequence[str], top: int = 0) -> NDArray[np.uint8]:
    """The numbers of the characters of a whole image, (256,), 0 where nothing is drawn."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    picture[top : top + len(rows)] = [[*map(_CHARACTERS.index, row)] for row in rows]
    return picture.ravel()


def _check_part(layer: str, name: str, rows: Sequence[str]) -> None:
    """Raise ValueError unless the rows can be drawn in this layer, naming row and character."""
    zone, top = LAYERS[layer]
    own = "".join(v[0] for c, v in _ALL_COLOURS.items() if _ZONE_OF_COLOUR.get(c, zone) == zone)
    if not 1 <= len(rows) <= SIDE - top:
        rule = f"has {len(rows)} rows, and there is room for 1 to {SIDE - top}"
        raise ValueError(f"{layer} {name!r} {rule}. Leave out rows of dots below it.")
    for i, row in enumerate(rows):
        if len(row) != SIDE:
            rule = f"row {i}, {row!r}, has {len(row)} characters, and must have {SIDE}"
            raise ValueError(f"{layer} {name!r}: {rule}. Fill up with dots, which draw nothing.")
        for column, (character, here) in enumerate(zip(row, ZONES.split()[top + i], strict=True)):
            if character not in (known := f".{own}" if here == zone else "."):
                rule = f"row {i}, {row!r}, has {character!r} as its character {column} (from 0)"
                raise ValueError(
                    f"{layer} {name!r}: {rule}, where only {known} can stand. What they mean, and "
                    "in ZONES where each layer draws, stands in face_parts.py."
                )


class Reading(NamedTuple):
    """What has been read: the nearest faces, how far they are, and whether that is near enough."""

    attributes: Attributes
    legal: NDArray[np.bool_]
    distance: NDArray[np.float64]


class _Zone(NamedTuple):
    """All that a zone can look like: one picture for each lower part with each upper part."""

    pictures: NDArray[np.uint8]  # (lower * upper parts, 256): numbers, 0 outside the zone
    counts: list[int]  # how many lower and upper parts
    parts: Attributes  # for each layer, the part in the first picture that looks the same
    shows: dict[str, NDArray[np.bool_]]  # for each colour, whether it can be seen
    looks: dict[tuple[bool, ...], int]  # how many different pictures show these colours


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts that faces are made of: for each layer their names, and rows of characters.

    Raises ValueError if a part cannot be drawn, naming its row and character.
    """

    shapes: Mapping[str, Mapping[str, Sequence[str]]]

    def __post_init__(self) -> None:
        for layer, parts in self.shapes.items():
            for name, rows in parts.items():
                _check_part(layer, name, rows)

    def with_part(self, layer: str, name: str, rows: str | Sequence[str]) -> Parts:
        """These parts and one more of your own in a layer, such as "hat" or "glasses".

        ``rows`` are of 16 characters, as in ``face_parts.py``, in one text or a sequence; the first
        lies where the layer begins, a hat's at the top. Raises ValueError for an unknown layer, a
        name that is there already, and for what cannot be drawn, with row and character.
        """
        checks.choice("layer", layer, tuple(LAYERS))
        if name in self.shapes[layer]:
            raise ValueError(f"{layer} has a part {name!r} already. Choose another name.")
        added = tuple(rows.split() if isinstance(rows, str) else rows)
        return Parts({**self.shapes, layer: {**self.shapes[layer], name: added}})

    @functools.cached_property
    def names(self) -> dict[str, tuple[str, ...]]:
        """What the values of each attribute mean: ``names["hat"][0]`` is "none"."""
        colours = {colour: tuple(values) for colour, (_, values) in COLOURS.items()}
        return {layer: tuple(parts) for layer, parts in self.shapes.items()} | colours

    def draw(self, n: int, seed: int = 0, split: str = "train") -> tuple[Images, Attributes]:
        """Draw faces by chance: images, float32 (n, 16, 16, 3) in [-1, 1], and their attributes.

        All values of an attribute are equally likely, but 75 % of the faces have no beard, 65 % no
        glasses and 55 % no hat. ``split`` is "train", "test" or "kept_out" (see ``split_of``); no
        face is in two of them. The same seed gives the same faces, and more of them begin with the
        same ones. Raises TypeError or ValueError for values out of range.
        """
        n, seed = checks.integer("n", n, 1), checks.integer("seed", seed, 0)
        checks.choice("split", split, SPLIT_NAMES)
        blocks: list[Attributes] = []
        while sum(len(block["hat"]) for block in blocks) < n:
            random = np.random.default_rng([seed, len(blocks)])
            rolled = self.canonical(self._rolled(random, KEPT_OUT if split == "kept_out" else ()))
            chosen = self.split_of(rolled) == split
            blocks.append({name: values[chosen] for name, values in rolled.items()})
        drawn = {name: np.concatenate([b[name] for b in blocks])[:n] for name in self.names}
        return self.paint(drawn), drawn

    def _rolled(self, random: np.random.Generator, pairs: Sequence[dict[str, str]]) -> Attributes:
        """The attributes of a block of faces, each rolled by itself; then one of ``pairs`` set."""
        rolled = {}
        for name, words in self.names.items():
            least = int(name in _SHARE_WITHOUT)  # 0, "none", comes below
            rolled[name] = random.integers(least, len(words), size=_BLOCK, dtype=np.int32)
        for name, share in _SHARE_WITHOUT.items():
            rolled[name][random.random(_BLOCK) < share] = 0
        for i, pair in enumerate(pairs):
            for name, word in pair.items():
                rolled[name][i :: len(pairs)] = self.names[name].index(word)
        return rolled

    def split_of(self, attributes: Given) -> NDArray[np.str_]:
        """Which split each face belongs to: "kept_out", "test" or "train", (n,).

        Kept out are the faces with one of the pairs in ``KEPT_OUT``. Of the others, those whose
        attributes add up to a multiple of ``TEST_EVERY`` are the test's.
        """
        faces = self.canonical(attributes)
        tested = np.sum([*faces.values()], axis=0) % TEST_EVERY == 0
        splits = np.where(tested, "test", "train").astype("<U8")
        for pair in KEPT_OUT:
            both = [faces[name] == self.names[name].index(word) for name, word in pair.items()]
            splits[np.all(both, axis=0)] = "kept_out"
        return splits

    def canonical(self, attributes: Given) -> Attributes:
        """The attributes as they can be read off the images: two faces with equal ones look alike.

        Raises ValueError for attributes that are missing or out of range.
        """
        faces, looks = self._looks(attributes)
        for zone, place in looks:
            faces |= {layer: parts[place] for layer, parts in zone.parts.items()}
        for colour in COLOURS:
            seen = np.any([zone.shows[colour][place] for zone, place in looks], axis=0)
            faces[colour] = np.where(seen, faces[colour], np.int32(NOT_SEEN))
        return faces

    def paint(self, attributes: Given) -> Images:
        """The images of faces, float32 (n, 16, 16, 3) in [-1, 1], from all their attributes, (n,).

        ``NOT_SEEN`` counts as 0. Raises ValueError as ``canonical`` does.
        """
        faces, looks = self._looks(attributes)
        numbers = np.add.reduce([zone.pictures[place] for zone, place in looks], dtype=np.intp)
        colours = np.zeros((len(numbers), len(_CHARACTERS), 3), np.float32)
        for colour, table in _TABLES.items():
            colours += table[np.maximum(faces.get(colour, 0), 0)]
        return np.take_along_axis(colours, numbers[..., None], axis=1).reshape(-1, SIDE, SIDE, 3)

    def _looks(self, attributes: Given) -> tuple[Attributes, list[tuple[_Zone, NDArray[np.intp]]]]:
        """The attributes, checked; and for each zone, which of its pictures each face has, (n,)."""
        checks.keys("attributes", attributes, self.names)
        faces = {name: np.asarray(attributes[name]) for name in self.names}
        for name, values in faces.items():
            most, shape = len(self.names[name]) - 1, (faces["hat"].size,)
            if values.shape != shape or not np.isin(values, range(NOT_SEEN, most + 1)).all():
                rule = f"{name} must be {shape} whole numbers from {NOT_SEEN} to {most}"
                raise ValueError(checks.message(name, values, rule, f"See names[{name!r}]"))
            faces[name] = values.astype(np.int32)
        looks = []
        for zone in self._zones:
            parts = [np.maximum(faces[layer], 0) for layer in zone.parts]
            looks.append((zone, np.ravel_multi_index(parts, zone.counts)))
        return faces, looks

    def combinations(self) -> int:
        """How many different images of faces there are, those of all splits together.

        All colours of the palette differ, so that two images are alike only if the pictures of all
        zones are, and the colours that can be seen in them.
        """
        total = 0
        for looks in itertools.product(*(zone.looks.items() for zone in self._zones)):
            shown, counts = zip(*looks, strict=True)
            visible = itertools.compress(_TABLES.values(), np.any(shown, axis=0))
            total += math.prod(counts) * math.prod(map(len, visible))
        return total

    def read(self, images: ArrayLike) -> Reading:
        """Find the face that is nearest to each image, and say whether the image is one.

        All faces are compared: in each zone every picture, and for each the colours that fit best.
        The nearest one is the likeliest under Gaussian noise: 99 % of faces are read without any
        mistake up to σ = 0.23. The distance is the root mean square error of the worst patch of 3x3
        pixels, so that one wrong thing counts, and small errors everywhere do not: up to
        ``LEGAL_DISTANCE`` an image is legal.

        ``images`` is (n, 16, 16, 3) in units of [-1, 1]; noise may lead beyond. Returns canonical
        attributes, int32 (n,), legal, bool (n,), and the distance, float64 (n,). Raises ValueError
        for another shape, and if a value is not finite.
        """
        images = np.asarray(images, np.float32)
        if images.shape[1:] != (SIDE, SIDE, 3) or not (images.size and np.isfinite(images).all()):
            rule = f"must be (n, {SIDE}, {SIDE}, 3), n at least 1, and finite"
            remedy = "Give one image as image[np.newaxis]"
            raise ValueError(checks.message("images.shape", images.shape, rule, remedy))
        starts = range(0, len(images), _READ_AT_ONCE)
        found = [self._nearest(images[start : start + _READ_AT_ONCE]) for start in starts]
        nearest = self.canonical({k: np.concatenate([f[k] for f in found]) for k in self.names})
        errors = np.square(images - self.paint(nearest), dtype=np.float64).mean(axis=-1)
        patches = sliding_window_view(errors, (3, 3), axis=(1, 2)).mean(axis=(-1, -2))
        distance = np.sqrt(patches.max(axis=(1, 2)))
        return Reading(nearest, distance <= LEGAL_DISTANCE, distance)

    def _nearest(self, images: Images) -> dict[str, Any]:
        """The attributes of the nearest faces: the best of each zone, for each skin and hair."""
        costs, colours = zip(*(_costs(zone, images) for zone in self._zones), strict=True)
        best = np.sum(np.broadcast_arrays(*(cost.min(axis=1) for cost in costs)), axis=0)
        skin, hair = np.unravel_index(best.reshape(len(best), -1).argmin(axis=1), best.shape[1:])
        everyone, found = np.arange(len(images)), {"skin": skin, "hair_colour": hair}
        for zone, cost, chosen in zip(self._zones, costs, colours, strict=True):
            cost = np.broadcast_to(cost, (*cost.shape[:2], *best.shape[1:]))
            place = cost[everyone, :, skin, hair].argmin(axis=1)
            found |= {layer: parts[place] for layer, parts in zone.parts.items()}
            found |= {colour: values[everyone, place] for colour, values in chosen.items()}
        return found

    @functools.cached_property
    def _zones(self) -> list[_Zone]:
        return [self._zone(letter) for letter in dict.fromkeys(zone for zone, _ in LAYERS.values())]

    def _zone(self, letter: str) -> _Zone:
        """In one zone, every upper part over every lower one, and these over the figure."""
        layers = {layer: top for layer, (zone, top) in LAYERS.items() if zone == letter}
        pictures = _picture([row.replace(".", "b") for row in FIGURE.split()])[np.newaxis]
        for layer, top in layers.items():
            over = np.stack([_picture(rows, top) for rows in self.shapes[layer].values()])
            pictures = np.where(over > 0, over, pictures[:, np.newaxis]).reshape(-1, SIDE**2)
        pictures *= np.array([[zone == letter for zone in "".join(ZONES.split())]], np.uint8)
        _, firsts, like = np.unique(pictures, axis=0, return_index=True, return_inverse=True)
        counts, first = [len(self.names[layer]) for layer in layers], firsts[like.ravel()]
        parts = dict(zip(layers, np.array(np.unravel_index(first, counts), np.int32), strict=True))
        table = first.reshape(counts[0], -1)
        hiding = np.all(table == table[0], axis=0)  # upper parts below which all looks alike
        parts[next(iter(layers))][hiding[first % table.shape[1]]] = NOT_SEEN
        shows = {c: np.asarray(table[0][pictures].any((1, 2))) for c, table in _TABLES.items()}
        looks = collections.Counter(map(tuple, np.stack([*shows.values()], axis=1)[firsts]))
        return _Zone(pictures, counts, parts, shows, looks)


def _costs(zone: _Zone, images: Images) -> tuple[Images, dict[str, NDArray[np.intp]]]:
    """How far each picture is with each skin and hair, and the values of all other colours.

    The sum of |template|² - 2 image · template over the templates, which hold a picture's pixels of
    one colour in one value, and 0 elsewhere: its squared distance from the image, but for |image|².
    Returns (n, pictures, skins, hairs), and the best values of the other colours, (n, pictures).
    """
    total, chosen = np.zeros((len(images), 1, 1, 1), np.float32), {}
    pixels = images.reshape(len(images), -1)
    for colour in itertools.compress(_TABLES, map(np.any, zone.shows.values())):
        templates = _TABLES[colour][:, zone.pictures].reshape(-1, len(zone.pictures), SIDE**2 * 3)
        cost = np.square(templates).sum(axis=2) - 2 * np.tensordot(pixels, templates, (1, 2))
        if colour in ("skin", "hair_colour"):  # the zones have to agree on these
            total = total + np.expand_dims(cost.swapaxes(1, 2), 3 if colour == "skin" else 2)
        else:
            chosen[colour] = cost.argmin(axis=1)
            total = total + cost.min(axis=1)[:, :, np.newaxis, np.newaxis]
    return total, chosen


STANDARD = Parts(PARTS)  #: the parts of the course, and what one does with them, for short
draw, paint, read = STANDARD.draw, STANDARD.paint, STANDARD.read
