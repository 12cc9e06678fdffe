"""How good are the generated images? Numbers that a small computer can measure honestly.

Precision and density ask whether what was drawn looks real, recall and coverage whether everything
real can be drawn, the distance to the nearest training image whether the model merely copies, and
the Fréchet distance whether the drawn images as a whole are spread like the real ones.

All of them compare images by *features*, a row of numbers for each image: the pixels themselves,
unless another function is given. Pixels are fair for small, centred images such as digits, but by
them a little blur is more precise than real digits are. What a small classifier has made of images
is in ``features.py``. Read every mark beside what as many real images reach in the place of drawn
ones (:func:`real_against_real`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist
from scipy.special import comb
from scipy.stats import mannwhitneyu

from diffusion_walkthrough import checks

FloatArray = NDArray[np.float64]
Features = Callable[[Any], Any]

_ROWS_AT_ONCE = 1024  # bounds the memory for distances to about 8 kB times the other set's size


def flatten(images: ArrayLike) -> NDArray[Any]:
    """The simplest features, the pixels: ``(n, ...)`` to ``(n, pixels)``."""
    images = np.asarray(images)
    return images.reshape(len(images), -1)


def precision_recall(
    real: ArrayLike, generated: ArrayLike, k: int = 3, features: Features = flatten
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, Eqs. 1 and 2).

    Around each real image lies a ball that reaches to its ``k``-th nearest other real image.
    Precision is the share of generated images that lie in at least one of these balls. Recall is
    the same with the two sets exchanged, so that garbage spread far out, whose balls are huge,
    has a better one than real images. Held-out real images do not reach 1.0 in either.

    Args:
        real: ``(n, ...)``.
        generated: ``(m, ...)``, of the same shape for each image and in the same units.
        k: to which neighbour a ball reaches, below n and m.
        features: from images ``(n, ...)`` to their features ``(n, numbers)``.

    Returns precision and recall, each from 0 to 1. Raises TypeError if ``k`` is not a whole number,
    and ValueError if it is out of its range, or the sets do not match.
    """
    real_rows, generated_rows = _features_of({"real": real, "generated": generated}, features)
    _check_k(k, len(real_rows), len(generated_rows))
    precision = _share_within(generated_rows, real_rows, ball_radii(real_rows, k))
    recall = _share_within(real_rows, generated_rows, ball_radii(generated_rows, k))
    return precision, recall


def density_coverage(
    real: ArrayLike, generated: ArrayLike, k: int = 5, features: Features = flatten
) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797, Eqs. 4 and 5).

    All balls are drawn around real images: garbage has none of its own. Density is the mean number
    of balls in which a generated image lies, over ``k``. Coverage is the share of balls in which at
    least one of them lies; it grows with their number.

    Takes and raises what :func:`precision_recall` does, but ``k`` need only be below n. If both
    sets are from one distribution, expect a density of 1 and :func:`expected_coverage`.
    """
    real_rows, generated_rows = _features_of({"real": real, "generated": generated}, features)
    _check_k(k, len(real_rows))
    radii, inside = ball_radii(real_rows, k), np.zeros(len(real_rows))
    for part in _distances(generated_rows, real_rows):
        inside += (part <= radii).sum(axis=0)
    return float(inside.sum() / (k * len(generated_rows))), float(np.mean(inside > 0))


def expected_coverage(real: int, generated: int, k: int = 5) -> float:
    """The coverage to expect if n real and m generated images are from one distribution (Lemma 2).

    A ball is missed if the ``k`` nearest of its n - 1 + m neighbours are all real ones. Exact if no
    two distances are equal; for large n = m it is 1 - 2⁻ᵏ.
    """
    _check_k(k, real)
    checks.integer("generated", generated, 1)
    return 1 - comb(real - 1, k, exact=True) / comb(real - 1 + generated, k, exact=True)


def ball_radii(rows: FloatArray, k: int) -> FloatArray:
    """The distance from each row to its k-th nearest other row, shape ``(n,)``."""
    # Each row is its own nearest, at distance 0, so the k-th other one is at index k.
    return np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _distances(rows, rows)])


def nearest_distance(
    images: ArrayLike, training_images: ArrayLike, features: Features = flatten
) -> FloatArray:
    """The Euclidean distance from each image to the nearest training image.

    0 means an exact copy, and many distances near 0 mean that images were copied; a mean a little
    below that of held-out images may only mean tidier ones. Takes ``(n, ...)`` and ``(m, ...)`` in
    the same units, and returns ``(n,)``. Raises ValueError if a set is empty, holds NaN or
    infinity, or if the shapes do not match.
    """
    return nearest(images, training_images, features)[1]


def nearest(
    images: ArrayLike, training_images: ArrayLike, features: Features = flatten
) -> tuple[NDArray[np.intp], FloatArray]:
    """The place of the nearest training image for each image, and the distance to it: ``(n,)``."""
    sets = {"images": images, "training_images": training_images}
    rows, training_rows = _features_of(sets, features)
    parts = [(part.argmin(axis=1), part.min(axis=1)) for part in _distances(rows, training_rows)]
    places, distances = zip(*parts, strict=True)
    return np.concatenate(places), np.concatenate(distances)


def memorization_test(
    drawn: ArrayLike, held_out: ArrayLike, training: ArrayLike, features: Features = flatten
) -> tuple[float, float]:
    """Do drawn images lie nearer to training images than held-out ones do? (Mann-Whitney's U.)

    Returns the share of pairs (drawn, held-out) in which the drawn one is nearer, 0.5 if they are
    alike, and the p-value: how likely so large a share is then. It asks about all of them together:
    a small p-value does not prove copying, as images that are blurred, or tidier than real ones,
    lie nearer too; a large one does not rule it out, as a few copies among many new images move it
    little. So look at the pairs (:func:`most_suspicious`). Takes images ``(n, ...)`` in the same
    units; raises ValueError as :func:`nearest_distance` does.
    """
    of_drawn = nearest_distance(drawn, training, features)
    of_held_out = nearest_distance(held_out, training, features)
    farther, p_value = mannwhitneyu(of_drawn, of_held_out, alternative="less")
    return float(1 - farther / (len(of_drawn) * len(of_held_out))), float(p_value)


def most_suspicious(
    drawn: ArrayLike, training: ArrayLike, count: int = 8, features: Features = flatten
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatArray]:
    """The pairs that look most like copies: the ``count`` to look at first.

    A copy is much nearer to one training image than to all others; a plain image such as a one is
    near to many. So what counts is the distance to the nearest training image over that to the
    second nearest, from 0, a copy, to 1. (Carlini et al. 2023, arXiv 2301.13188, divide by the mean
    distance to the 50 nearest.)

    Returns places in ``drawn``, places in ``training`` and ratios, each ``(count,)``, the smallest
    ratio first. Raises ValueError as :func:`nearest_distance` does, or for one training image.
    """
    rows, known = _features_of({"drawn": drawn, "training": training}, features)
    _check_k(1, len(known))
    checks.integer("count", count, 1)
    two = np.concatenate([np.partition(part, 1)[:, :2] for part in _distances(rows, known)])
    ratios = two[:, 0] / np.maximum(two[:, 1], np.finfo(np.float64).tiny)  # a copy of twins: 0 / 0
    places = np.argsort(ratios, kind="stable")[:count]
    return places, nearest(rows[places], known)[0], ratios[places]


def frechet_distance(real: ArrayLike, drawn: ArrayLike, features: Features = flatten) -> float:
    """The distance of two clouds of images, as if each were one Gaussian (squared, as is usual).

    |μ_1 - μ_2|² + tr(Σ_1 + Σ_2 - 2 (Σ_1 Σ_2)^½), with the means and the covariances of the
    features (Fréchet 1957, Dowson and Landau 1982). With the features of the Inception network it
    is the FID of Heusel et al. 2017 (arXiv 1706.08500). Few images make it too large.

    Takes images ``(n, ...)`` and ``(m, ...)``, at least 2 of each, and features as
    :func:`precision_recall` does. Returns 0 for the same mean and covariance, in the square of the
    features' unit. Raises ValueError for fewer images, or if the sets do not match.
    """
    sets = _features_of({"real": real, "drawn": drawn}, features)
    for name, rows in zip(("real", "drawn"), sets, strict=True):
        if len(rows) < 2:
            raise ValueError(
                f"{name} has {len(rows)} image: a covariance needs at least 2, and to be worth "
                "anything many more than there are features. Draw more images."
            )
    means, roots = [rows.mean(axis=0) for rows in sets], [_root(rows) for rows in sets]
    # The trace of (Σ_1 Σ_2)^½ is the sum of the singular values of R_1 R_2ᵀ, where RᵀR = Σ.
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    of_means = np.sum((means[0] - means[1]) ** 2)
    of_spreads = sum(np.sum(root**2) for root in roots) - 2 * shared
    return max(float(of_means + of_spreads), 0.0)  # rounding may end just below 0


def real_against_real(
    mark: Callable[..., Any],
    real: ArrayLike,
    count: int,
    others: int | None = None,
    repeats: int = 5,
    seed: int = 0,
    **options: Any,
) -> FloatArray:
    """What a mark says of ``count`` real images in the place of drawn ones: the floor, or ceiling.

    ``mark`` is a function ``(real, drawn, **options)`` such as :func:`density_coverage`. Each of
    the repeats takes ``count`` of the ``real`` images ``(n, ...)`` at random as the drawn ones, and
    ``others`` of the rest (None: all) as the real ones. Returns what the mark says each time,
    ``(repeats,)``, or ``(repeats, 2)`` for a pair. That of :func:`frechet_distance` falls like
    1/count + 1/others. Raises ValueError for fewer images than that, and as ``mark`` does.
    """
    real, random = np.asarray(real), np.random.default_rng(checks.seed("seed", seed))
    count, repeats = checks.integer("count", count, 0), checks.integer("repeats", repeats, 1)
    others = len(real) - count if others is None else checks.integer("others", others, 0)
    if not (count >= 1 and others >= 1 and count + others <= len(real)):
        raise ValueError(
            f"count={count} and others={others}: both must be at least 1 and together at most "
            f"{len(real)}, the number of real images. Ask for fewer, or give more images."
        )
    orders = (random.permutation(len(real))[: count + others] for _ in range(repeats))
    return np.array([mark(real[order[count:]], real[order[:count]], **options) for order in orders])


def _root(rows: FloatArray) -> FloatArray:
    """A matrix R with RᵀR the covariance of the rows, and no more rows than it needs."""
    spread = (rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(spread, mode="r"))


def nearest_label_accuracy(
    images: ArrayLike, labels: ArrayLike, known: ArrayLike, known_labels: ArrayLike
) -> float:
    """How often the nearest known image has the label that an image has, from 0 to 1.

    Images are ``(n, ...)`` and ``(m, ...)`` in the same units, labels ``(n,)`` and ``(m,)``, or
    with an axis of length 1 behind. Raises ValueError if there is not one label for each image.
    """
    own = _one_label_each("labels", labels, images)
    others = _one_label_each("known_labels", known_labels, known)
    places, _ = nearest(images, known)
    return float(np.mean(others[places] == own))


def _one_label_each(name: str, labels: ArrayLike, images: ArrayLike) -> NDArray[Any]:
    found, n = np.asarray(labels), len(np.asarray(images))
    if found.shape not in ((n,), (n, 1)):
        raise ValueError(
            f"{name} have shape {found.shape}, but must be ({n},), one for each image. Pass "
            f"as many as images; of those that are 0 and 1 for each class, {name}.argmax(axis=-1)."
        )
    return found.reshape(n)


def _features_of(sets: dict[str, ArrayLike], features: Features) -> list[FloatArray]:
    """Both sets with one row of features for each image, checked."""
    given = {name: np.asarray(images) for name, images in sets.items()}
    for name, x in given.items():
        if x.dtype.kind not in "fiub":
            raise ValueError(f"{name} is of type {x.dtype}: must be numbers, one for each pixel.")
    both = {name: x.astype(np.float64, copy=False) for name, x in given.items()}
    for name, x in both.items():
        if x.ndim < 2 or x.size == 0:
            raise ValueError(
                f"{name} has shape {x.shape}: must be (number of images, ...) with at least one "
                "image. For a single image, add an axis: image[np.newaxis]."
            )
        if not np.isfinite(x).all():
            raise ValueError(f"{name} holds NaN or infinity. Find out which image, and why.")
    (name_a, a), (name_b, b) = both.items()
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"One image of {name_a} has shape {a.shape[1:]}, one of {name_b} {b.shape[1:]}: they "
            "must be equal. Resize or reshape one of the sets."
        )
    return [_checked_rows(name, np.asarray(features(x), np.float64), x) for name, x in both.items()]


def _checked_rows(name: str, rows: FloatArray, images: FloatArray) -> FloatArray:
    if rows.ndim != 2 or len(rows) != len(images) or not np.isfinite(rows).all():
        raise ValueError(
            f"the features of {name}, {len(images)} images, have shape {rows.shape}: there must be "
            "one row of finite numbers for each image. Flatten or average what is left of height "
            "and width."
        )
    return rows


def _check_k(k: object, *sizes: int) -> None:
    if checks.integer("k", k, minimum=1) >= min(sizes):
        raise ValueError(
            f"k={k}: must be below the number of images that have balls, here {min(sizes)}. Use a "
            "smaller k or more images."
        )


def _distances(a: FloatArray, b: FloatArray) -> Iterator[FloatArray]:
    """The distances from each row of ``a`` to each of ``b``, some rows of ``a`` at a time."""
    for start in range(0, len(a), _ROWS_AT_ONCE):
        yield cdist(a[start : start + _ROWS_AT_ONCE], b)


def _share_within(points: FloatArray, centres: FloatArray, radii: FloatArray) -> float:
    """The share of points that lie in at least one of the balls."""
    within = [(part <= radii).any(axis=1) for part in _distances(points, centres)]
    return float(np.concatenate(within).mean())
