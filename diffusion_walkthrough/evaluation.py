"""How good are the generated images? Numbers that a small computer can measure honestly.

Precision asks whether what was drawn looks real, recall whether everything real can be drawn, the
distance to the nearest training image whether the model merely copies, and the Fréchet distance
whether the drawn images as a whole are spread like the real ones.

All of them compare images by *features*, a row of numbers for each image: the pixels themselves,
unless another function is given. Pixels are fair for small, centred images such as digits. For
photographs give what a classifier has made of them on its last layer but one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

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
    the same with the two sets exchanged. Compare with what held-out real images reach in place of
    the generated ones, in equal number: 1.0 is not what to expect.

    Args:
        real: ``(n, ...)``.
        generated: ``(m, ...)``, of the same shape for each image and in the same units.
        k: to which neighbour a ball reaches, below n and m.
        features: from images ``(n, ...)`` to their features ``(n, numbers)``.

    Returns:
        Precision and recall, each from 0 to 1.

    Raises:
        TypeError: if ``k`` is not a whole number.
        ValueError: if it is out of its range, or the sets do not match.
    """
    real_rows, generated_rows = _features_of({"real": real, "generated": generated}, features)
    _check_k(k, len(real_rows), len(generated_rows))
    precision = _share_within(generated_rows, real_rows, ball_radii(real_rows, k))
    recall = _share_within(real_rows, generated_rows, ball_radii(generated_rows, k))
    return precision, recall


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


def frechet_distance(real: ArrayLike, drawn: ArrayLike, features: Features = flatten) -> float:
    """The distance of two clouds of images, as if each were one Gaussian (squared, as is usual).

    |μ_1 - μ_2|² + tr(Σ_1 + Σ_2 - 2 (Σ_1 Σ_2)^½), with the means and the covariances of the
    features (Fréchet 1957, Dowson and Landau 1982). With the features of the Inception network it
    is the FID of Heusel et al. 2017 (arXiv 1706.08500). Few images make it too large: compare only
    with what as many held-out real images reach.

    Args:
        real: ``(n, ...)``, at least 2 images.
        drawn: ``(m, ...)``, at least 2.
        features: as for :func:`precision_recall`.

    Returns:
        0 for two sets with the same mean and covariance, larger the more they differ; in the
        square of the features' unit.

    Raises:
        ValueError: if a set has fewer than 2 images, or the sets do not match.
    """
    sets = _features_of({"real": real, "drawn": drawn}, features)
    for name, rows in zip(("real", "drawn"), sets, strict=True):
        if len(rows) < 2:
            raise ValueError(
                f"{name} has {len(rows)} image: a covariance needs at least 2, and to be worth "
                "anything many more than there are features. Draw more images."
            )
    means = [rows.mean(axis=0) for rows in sets]
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) for rows in sets]
    # The trace of (Σ_1 Σ_2)^½ is the sum of the singular values of Σ_1^½ Σ_2^½.
    shared = np.linalg.svd(_root(covariances[0]) @ _root(covariances[1]), compute_uv=False).sum()
    of_means = np.sum((means[0] - means[1]) ** 2)
    of_spreads = np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * shared
    return max(float(of_means + of_spreads), 0.0)  # rounding may end just below 0


def _root(covariance: FloatArray) -> FloatArray:
    """The symmetric matrix whose square is a covariance, also if that has no inverse."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def nearest_label_accuracy(
    images: ArrayLike, labels: ArrayLike, known: ArrayLike, known_labels: ArrayLike
) -> float:
    """How often the nearest known image has the label that an image has, from 0 to 1.

    Images are ``(n, ...)`` and ``(m, ...)`` in the same units, labels ``(n,)`` and ``(m,)``.
    """
    places, _ = nearest(images, known)
    return float(np.mean(np.asarray(known_labels)[places] == np.asarray(labels)))


def _features_of(sets: dict[str, ArrayLike], features: Features) -> list[FloatArray]:
    """Both sets with one row of features for each image, checked."""
    both = {name: np.asarray(images, dtype=np.float64) for name, images in sets.items()}
    for name, images in both.items():
        if images.ndim < 2 or images.size == 0:
            raise ValueError(
                f"{name} has shape {images.shape}: must be (number of images, ...) with at least "
                "one image. For a single image, add an axis: image[np.newaxis]."
            )
        if not np.isfinite(images).all():
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
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
        raise TypeError(f"k={k!r}: must be a whole number. Use 3, as in the paper.")
    if not 1 <= k < min(sizes):
        raise ValueError(
            f"k={k}: must be at least 1 and below the number of images in each set, here "
            f"{min(sizes)} in the smaller. Use a smaller k or more images."
        )


def _distances(a: FloatArray, b: FloatArray) -> Iterator[FloatArray]:
    """The distances from each row of ``a`` to each of ``b``, some rows of ``a`` at a time."""
    for start in range(0, len(a), _ROWS_AT_ONCE):
        yield cdist(a[start : start + _ROWS_AT_ONCE], b)


def _share_within(points: FloatArray, centres: FloatArray, radii: FloatArray) -> float:
    """The share of points that lie in at least one of the balls."""
    within = [(part <= radii).any(axis=1) for part in _distances(points, centres)]
    return float(np.concatenate(within).mean())
