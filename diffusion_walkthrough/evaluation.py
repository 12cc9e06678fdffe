"""How good are the generated images? Numbers that a small computer can measure honestly.

Precision asks whether what was drawn looks real, recall whether everything real can be drawn, and
the distance to the nearest training image whether the model merely copies. All three work on the
pixels themselves, which is fair for small, centred images such as digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

FloatArray = NDArray[np.float64]

_ROWS_AT_ONCE = 1024  # bounds the memory for distances to about 8 kB times the other set's size


def precision_recall(real: ArrayLike, generated: ArrayLike, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, Eqs. 1 and 2).

    Around each real image lies a ball that reaches to its ``k``-th nearest other real image.
    Precision is the share of generated images that lie in at least one of these balls. Recall is
    the same with the two sets exchanged.

    ``real`` is (n, ...) and ``generated`` (m, ...), with the same shape for each image and in the
    same units; both sets need more than ``k`` images. Compare with what held-out real images reach
    in place of the generated ones, in equal number: 1.0 is not what to expect.

    Returns (precision, recall), each from 0 to 1. Raises TypeError or ValueError for a ``k`` that
    is not a whole number from 1 to below n and m, and ValueError for sets that do not match.
    """
    real_rows, generated_rows = _flattened_pair("real", real, "generated", generated)
    _check_k(k, len(real_rows), len(generated_rows))
    precision = _share_within(generated_rows, real_rows, _ball_radii(real_rows, k))
    recall = _share_within(real_rows, generated_rows, _ball_radii(generated_rows, k))
    return precision, recall


def nearest_distance(images: ArrayLike, training_images: ArrayLike) -> FloatArray:
    """The Euclidean distance from each image to the nearest training image, shape (n,).

    ``images`` is (n, ...), ``training_images`` is (m, ...), in the same units. 0 means an exact
    copy. Compare with held-out real images: generated ones that lie closer were copied.

    Raises ValueError if a set is empty, holds NaN or infinity, or if the shapes do not match.
    """
    rows, training_rows = _flattened_pair("images", images, "training_images", training_images)
    return np.concatenate([part.min(axis=1) for part in _distances(rows, training_rows)])


def _flattened_pair(
    name_a: str, a: ArrayLike, name_b: str, b: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Both sets with one row of pixels for each image, checked."""
    sets = {name_a: np.asarray(a, dtype=np.float64), name_b: np.asarray(b, dtype=np.float64)}
    for name, images in sets.items():
        if images.ndim < 2 or images.size == 0:
            raise ValueError(
                f"{name} has shape {images.shape}: must be (number of images, ...) with at least "
                "one image. For a single image, add an axis: image[np.newaxis]."
            )
        if not np.isfinite(images).all():
            raise ValueError(f"{name} holds NaN or infinity. Find out which image, and why.")
    if sets[name_a].shape[1:] != sets[name_b].shape[1:]:
        raise ValueError(
            f"One image of {name_a} has shape {sets[name_a].shape[1:]}, one of {name_b} "
            f"{sets[name_b].shape[1:]}: they must be equal. Resize or reshape one of the sets."
        )
    flat_a, flat_b = (images.reshape(len(images), -1) for images in sets.values())
    return flat_a, flat_b


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


def _ball_radii(rows: FloatArray, k: int) -> FloatArray:
    """The distance from each row to its k-th nearest other row, shape (n,)."""
    # Each row is its own nearest, at distance 0, so the k-th other one is at index k.
    return np.concatenate([np.partition(part, k, axis=1)[:, k] for part in _distances(rows, rows)])


def _share_within(points: FloatArray, centres: FloatArray, radii: FloatArray) -> float:
    """The share of points that lie in at least one of the balls."""
    within = [(part <= radii).any(axis=1) for part in _distances(points, centres)]
    return float(np.concatenate(within).mean())
