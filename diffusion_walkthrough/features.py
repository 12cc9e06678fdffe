"""Features that a small classifier has learned, and how sure it is of what it sees.

Two pictures of a seven can have few pixels in common, and a smudge can have the right mean and
covariance in every pixel. What a classifier makes of images on its last layer but one tells such
things apart better than the pixels do; the marks of :mod:`~diffusion_walkthrough.evaluation` take
it as their ``features``. Inception, the network of the published FID, was made for photographs of
299 x 299 pixels. Those here were made for the course's own images, by ``tools/train_features.py``;
their figures compare with nothing but what real images reach by the same ones.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough import checks
from diffusion_walkthrough.data import check_image_range
from diffusion_walkthrough.files.weights import load_weights, named_weights, opened

#: The classifiers that ship with the package, one file each.
FOLDER = Path(__file__).parent / "pretrained" / "features"

FEATURES = 32  # numbers for each image
_IMAGES_AT_ONCE = 1024


def build_classifier(image_shape: tuple[int, ...], answers: Mapping[str, int]) -> keras.Model:
    """Build a network that answers one or more questions about an image, all from its features.

    Convolutions halve the sides until at most 4 pixels are left; then come the layer "features",
    of :data:`FEATURES` numbers, and one layer of logits for each question.

    Args:
        image_shape: (height, width, channels).
        answers: how many answers each question has, such as ``{"digit": 10}``. One more, the last,
            is added to each: none of these.

    Returns:
        A functional model from images ``(n, *image_shape)`` in [-1, 1] to logits by question, each
        ``(n, answers + 1)``.
    """
    side = max(image_shape[:2])
    images = keras.Input(image_shape)
    kind = {"padding": "same", "activation": "relu", "data_format": "channels_last"}
    x = layers.Conv2D(16, 3, name="conv_in", **kind)(images)
    while side > 4:
        x = layers.Conv2D(32, 3, strides=2, name=f"conv_{side}", **kind)(x)
        side = -(-side // 2)
    x = layers.Conv2D(32, 3, name="conv_out", **kind)(x)
    x = layers.Dropout(0.3)(layers.Flatten("channels_last")(x))
    x = layers.Dense(FEATURES, activation="relu", name="features")(x)
    return keras.Model(
        images, {name: layers.Dense(n + 1, name=name)(x) for name, n in answers.items()}
    )


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained network of :func:`build_classifier`, for arrays of any length.

    Both methods take images ``(n, height, width, channels)`` in [-1, 1] and raise ValueError for
    images of another size or range.
    """

    network: keras.Model

    def features(self, images: ArrayLike) -> NDArray[np.float32]:
        """What the network has made of each image on its last layer but one: ``(n, 32)``."""
        layer = self.network.get_layer("features").output
        return self._asked(keras.Model(self.network.input, {"features": layer}), images)["features"]

    def probabilities(self, images: ArrayLike) -> dict[str, NDArray[np.float32]]:
        """How likely the network holds each answer, by question: ``(n, answers + 1)``, sum 1."""
        logits = self._asked(self.network, images)
        return {name: ops.convert_to_numpy(ops.softmax(x)) for name, x in logits.items()}

    def _asked(self, network: Any, images: ArrayLike) -> dict[str, NDArray[np.float32]]:
        images, size = np.asarray(images, np.float32), self.network.input_shape[1:]
        if images.shape[1:] != size:
            raise ValueError(
                f"images have shape {images.shape}, but this classifier was made for (n, "
                f"{', '.join(map(str, size))}). Load the one of their data set, or resize them."
            )
        check_image_range(images)
        parts = [
            network(images[start : start + _IMAGES_AT_ONCE], training=False)
            for start in range(0, len(images), _IMAGES_AT_ONCE)
        ]
        return {
            name: np.concatenate([ops.convert_to_numpy(part[name]) for part in parts])
            for name in parts[0]
        }


def recognized(images: ArrayLike, classifier: Classifier | str, sure: float = 0.9) -> float:
    """The share of images for which a classifier is sure of an answer to every question.

    An answer counts if it is not "none of these" and has a probability of at least ``sure``. Ask
    held-out real images too: not all of them are recognized. It says nothing about variety, and not
    much about pictures unlike all that the classifier was trained on: of the pictures it was shown
    as none of these, noise and shuffled blocks, it lets none pass, but digits put together of two
    halves and digits upside down it often takes for digits.

    Args:
        images: ``(n, height, width, channels)`` in [-1, 1].
        classifier: one, or the name of one that ships, such as ``"digits"``.
        sure: from 0 to 1.

    Raises:
        TypeError, ValueError: as :func:`load_classifier` and :class:`Classifier` do, and for
            ``sure`` outside its range.
    """
    checks.real("sure", sure, "from 0 to 1", lambda value: 0 <= value <= 1)
    if not isinstance(classifier, Classifier):
        classifier = load_classifier(classifier)
    answers = classifier.probabilities(images).values()
    return float(np.mean(np.all([p[:, :-1].max(axis=1) >= sure for p in answers], axis=0)))


def load_features(name: str) -> Callable[[ArrayLike], NDArray[np.float32]]:
    """The features of a classifier that ships: a function from images to ``(n, 32)``.

    Hand it to a mark: ``frechet_distance(real, drawn, features=load_features("digits"))``. Raises
    as :func:`load_classifier` does.
    """
    return load_classifier(name).features


def load_classifier(name: str) -> Classifier:
    """Load a classifier that ships with the package, once; ``classifier_names()`` lists them.

    Raises TypeError or ValueError for another name, and ValueError for a damaged file.
    """
    return _loaded(FOLDER / f"{checks.choice('name', name, classifier_names())}.safetensors")


def classifier_names() -> tuple[str, ...]:
    """The classifiers that ship, by the name of what they were trained on."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.safetensors")))


@functools.cache
def _loaded(path: Path) -> Classifier:
    with opened(path) as arrays:
        made_for = arrays.meaning
    network = build_classifier(tuple(made_for["image_shape"]), made_for["answers"])
    load_weights(network, path, made_for)
    return Classifier(network)


def save_classifier(network: keras.Model, path: Path) -> None:
    """Write a network of :func:`build_classifier` as one file, which says what it was made for."""
    from safetensors.numpy import save

    answers = {name: logits.shape[-1] - 1 for name, logits in network.output.items()}
    made_for = json.dumps({"image_shape": network.input_shape[1:], "answers": answers})
    weights = zip(named_weights(network), network.get_weights(), strict=True)
    arrays = {name: np.array(weight, "float32", order="C") for name, weight in weights}
    path.write_bytes(save(arrays, {"parameters": made_for}))
