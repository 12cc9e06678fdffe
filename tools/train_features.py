"""Train the small classifiers whose features ship with the package, and say how good they are.

python tools/train_features.py digits mnist=mnist.npz faces

Each name is a data set; ``name=path`` takes its images from a file or folder. The classifier
replaces the one in ``diffusion_walkthrough/pretrained/features``.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import keras
import numpy as np

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.features import (
    FOLDER,
    Classifier,
    build_classifier,
    recognized,
    save_classifier,
)

BATCH_SIZE = 64
EPOCHS = {"digits": 60, "mnist": 4, "faces": 10}

Labels = dict[str, np.ndarray]


class Labelled(NamedTuple):
    """Images ``(n, height, width, channels)`` in [-1, 1], and the answer to each question."""

    images: np.ndarray
    labels: Labels


def load(name: str, source: str, split: str) -> Labelled:
    """One split of a data set: its labels answer one question, faces' attributes one each."""
    if name == "faces":
        from diffusion_walkthrough import faces

        images, attributes = faces.draw(10_000 if split == "train" else 2_000, split=split)
        # What cannot be seen, a bald head's hair colour say, is -1: an answer like the others.
        return Labelled(images, {name: values + 1 for name, values in attributes.items()})
    images, labels = load_images(source, split=split)
    return Labelled(images, {"digit": labels})


def garbage(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """What is none of the answers: uniform noise, and images whose blocks of pixels are shuffled.

    Without it a classifier is sure of nearly half of all noise.
    """
    noise, pixels, blocks = np.array_split(images, 3)
    noise = random.uniform(-1, 1, noise.shape)
    parts = noise, shuffled(pixels, 1, random), shuffled(blocks, 2, random)
    return np.concatenate(parts).astype("float32")


def shuffled(images: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """Images cut into blocks of ``side`` pixels, which are put together in another order."""
    count, height, width, channels = images.shape
    grid = (count, height // side, side, width // side, side, channels)
    blocks = np.swapaxes(images.reshape(grid), 2, 3)  # (n, rows, columns, side, side, channels)
    in_a_row = blocks.reshape(count, -1, side, side, channels)
    order = random.permuted(np.indices(in_a_row.shape[:2])[1], axis=1)
    mixed = in_a_row[np.arange(count)[:, None], order].reshape(blocks.shape)
    return np.swapaxes(mixed, 2, 3).reshape(images.shape)


def train(known: Labelled, epochs: int, seed: int = 0) -> keras.Model:
    """Train a classifier on images, and half as much garbage."""
    keras.utils.set_random_seed(seed)
    answers = {name: int(labels.max()) + 1 for name, labels in known.labels.items()}
    nothing = garbage(known.images[::2], np.random.default_rng(seed))
    images = np.concatenate([known.images, nothing])
    labels = {
        name: np.concatenate([known.labels[name], np.full(len(nothing), count)])
        for name, count in answers.items()
    }
    network = build_classifier(images.shape[1:], answers)
    steps = epochs * -(-len(images) // BATCH_SIZE)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss={name: keras.losses.SparseCategoricalCrossentropy(True) for name in answers},
    )
    network.fit(images, labels, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)
    return network


def report(classifier: Classifier, held_out: Labelled) -> None:
    """Print how often it is right, and how often sure, about images that it has not seen."""
    found: dict[str, Any] = classifier.probabilities(held_out.images)
    for name, labels in held_out.labels.items():
        print(f"{name}: {np.mean(found[name].argmax(axis=1) == labels):.4f} right")
    print(f"recognized, held-out: {recognized(held_out.images, classifier):.4f}")
    nothing = garbage(held_out.images, np.random.default_rng(1))
    print(f"recognized, noise and shuffled blocks: {recognized(nothing, classifier):.4f}")


if __name__ == "__main__":
    for argument in sys.argv[1:] or ["digits"]:
        data_set, _, file = argument.partition("=")
        trained = train(load(data_set, file or data_set, "train"), EPOCHS[data_set])
        report(Classifier(trained), load(data_set, file or data_set, "test"))
        FOLDER.mkdir(exist_ok=True)
        save_classifier(trained, FOLDER / f"{data_set}.safetensors")
        print(f"saved {data_set}: {(FOLDER / f'{data_set}.safetensors').stat().st_size} bytes")
