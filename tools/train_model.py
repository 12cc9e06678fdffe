"""Train a small model that ships with the package, and say how good it is.

python tools/train_model.py digits
python tools/train_model.py faces
python tools/train_model.py mnist --data mnist.npz
python tools/train_model.py digits-conditional
python tools/train_model.py faces-conditional

It learns from scratch, with the preset of that name and nothing else, and replaces the model in
``diffusion_walkthrough/pretrained``. Without ``--data``, MNIST comes through Keras. A model that is
told labels is also asked, with several scales of guidance, how often its images show them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from diffusion_walkthrough import faces
from diffusion_walkthrough.checkpoints import PRETRAINED, save_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import (
    density_coverage,
    expected_coverage,
    nearest_distance,
    nearest_label_accuracy,
    precision_recall,
)
from diffusion_walkthrough.faster_sampling import restart
from diffusion_walkthrough.features import load_features, recognized
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.training import DiffusionModel

PRESETS = {
    "digits": DiffusionParameters.digits,
    "faces": DiffusionParameters.faces,
    "mnist": DiffusionParameters.mnist,
    "digits-conditional": DiffusionParameters.digits_conditional,
    "faces-conditional": DiffusionParameters.faces_conditional,
}
DRAWN = 1000

#: Of how many images it is asked whether they show what they were told to, and how they are drawn.
TOLD, SCALES = 500, (0.0, 1.0, 2.0, 4.0)
WAY: dict[str, Any] = {"step": "ddim", "steps": 50}

#: Images drawn in 50 steps are marked as well, once each has been restarted so often, with so much
#: noise, and in so many steps (``faster_sampling.restart``).
RESTARTS, RESTART_SIGMA, RESTART_STEPS = 3, 0.4, 10


def data_of(name: str, split: str, source: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The images of a model's data set, and the labels that it is told of them."""
    data, told = source or name.partition("-")[0], PRESETS[name]().unet.labels
    attributes = [label for label, _ in told] if data == "faces" and told else None
    return load_images(data, split=split, attributes=attributes)


def train(
    name: str, images: np.ndarray, labels: np.ndarray | None = None, seed: int = 0, **options: Any
) -> DiffusionModel:
    """Train a preset's whole run on images in [-1, 1], and print how long it took."""
    keras.utils.set_random_seed(seed)
    model = DiffusionModel(PRESETS[name](), seed=seed)
    model.compile()
    start, busy = time.perf_counter(), time.process_time()
    model.fit(images, labels if model.takes_labels else None, **options)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"trained in {seconds:.0f} seconds, {busy:.0f} of one core, of {os.cpu_count()} cores")
    return model


def restarted(model: DiffusionModel, n: int) -> np.ndarray:
    """Draw images in 50 steps, and restart each of them."""
    images = model.sample(n, seed=2, steps=50)
    for seed in range(3, 3 + RESTARTS):
        known = model.denoise, model.schedule, images, RESTART_SIGMA
        images = np.asarray(restart(*known, seed=seed, steps=RESTART_STEPS))
    return images


def marks_of_digits(drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> None:
    """Print how drawn digits compare with held-out ones, in lots of as many as there are of these.

    Coverage depends on how many there are. The ± is the standard deviation of the lots.
    """
    n = len(held_out)
    lots = [drawn[start : start + n] for start in range(0, len(drawn) - n + 1, n)]
    marks: dict[str, Callable[[np.ndarray], float]] = {
        "precision": lambda images: precision_recall(training, images)[0],
        "coverage": lambda images: density_coverage(training, images)[1],
        "nearest distance": lambda images: nearest_distance(images, training).mean(),
    }
    for name, mark in marks.items():
        theirs, best = np.array([mark(lot) for lot in lots]), mark(held_out)
        print(
            f"{name} of {len(lots)} times {n}: {theirs.mean():.3f} ± {theirs.std(ddof=1):.3f}, "
            f"held-out digits {best:.3f}, ratio {theirs.mean() / best:.2f}"
        )


def marks_of_faces(drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> None:
    """Print how many drawn faces are legal, and what none of these shows."""
    read = faces.read(drawn)
    share = read.legal.mean()
    error = np.sqrt(share * (1 - share) / len(drawn))
    print(f"legal: {share:.3f} ± {error:.3f}, median distance {np.median(read.distance):.3f}")
    new = faces.STANDARD.split_of(read.attributes)[read.legal] != "train"
    print(f"of these, faces that training cannot have shown: {new.mean():.3f}")
    missing = [
        f"{name} {word}"
        for name, words in faces.STANDARD.names.items()
        for value, word in enumerate(words)
        if value not in read.attributes[name][read.legal]
    ]
    print(f"not among them: {', '.join(missing) or 'nothing'}")


def marks_of_mnist(drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> None:
    """Print how many drawn digits the classifier knows, and how much of the real ones they cover.

    Balls are drawn around as many held-out digits as are drawn ones.
    """
    known, best = recognized(drawn, "mnist"), recognized(held_out, "mnist")
    print(f"recognized: {known:.3f}, held-out digits {best:.3f}, ratio {known / best:.3f}")
    real, features = held_out[: len(drawn)], load_features("mnist")
    density, coverage = density_coverage(real, drawn, features=features)
    expected = expected_coverage(len(real), len(drawn))
    print(f"density {density:.3f}, at best 1; coverage {coverage:.3f}, at best {expected:.3f}")


def right_digits(drawn: np.ndarray, labels: np.ndarray) -> str:
    """How many drawn digits are nearest to a training digit of the class that they were to show."""
    return f"digit {nearest_label_accuracy(drawn, labels, *data_of('digits', 'train')):.3f}"


def right_faces(drawn: np.ndarray, labels: np.ndarray) -> str:
    """How many drawn faces are legal, how many show each attribute, and all, as they were to."""
    read = faces.read(drawn)
    names = [name for name, _ in PRESETS["faces-conditional"]().unet.labels]
    right = np.stack([read.attributes[name] for name in names], axis=1) == labels
    each = ", ".join(
        f"{name} {share:.3f}" for name, share in zip(names, right.mean(0), strict=True)
    )
    whole = np.mean(right.all(axis=1) & read.legal)
    return f"legal {read.legal.mean():.3f}; {each}; legal and all of these {whole:.3f}"


def obeyed(model: DiffusionModel, name: str) -> None:
    """Print how often images show what they were told to, for some scales of guidance.

    Of faces also those combinations that training has never shown.
    """
    right = right_faces if name.startswith("faces") else right_digits
    for split in ("test", "kept_out")[: 2 if name.startswith("faces") else 1]:
        images, labels = (part[:TOLD] for part in data_of(name, split))
        print(
            f"told the labels of {len(images)} {split} images, which show {right(images, labels)}"
        )
        for scale in SCALES:
            drawn = model.sample(len(labels), seed=1, labels=labels, guidance_scale=scale, **WAY)
            print(f"scale {scale:g}: {right(drawn, labels)}")


MARKS = {"digits": marks_of_digits, "faces": marks_of_faces, "mnist": marks_of_mnist}


def main(arguments: list[str] | None = None) -> None:
    """Train one model, save it, and print its marks."""
    parser = argparse.ArgumentParser(description="Train a small model that ships.")
    parser.add_argument("name", choices=PRESETS)
    parser.add_argument("--data", help="a folder or an .npz file of the images")
    options = parser.parse_args(arguments)
    (training, labels), (held_out, _) = (
        data_of(options.name, split, options.data) for split in ("train", "test")
    )
    model = train(options.name, training, labels)
    folder = save_model(model, PRETRAINED / options.name, overwrite=True)
    print(f"saved {folder.name}: {sum(file.stat().st_size for file in folder.iterdir())} bytes")
    drawings = {"all steps": model.sample(DRAWN, seed=1, progress=True)}
    drawings[f"50 steps and {RESTARTS} restarts"] = restarted(model, DRAWN)
    for how, drawn in drawings.items():
        print(f"{DRAWN} images in {how}:")
        MARKS[options.name.partition("-")[0]](drawn, training, held_out)
    if model.takes_labels:
        obeyed(model, options.name)


if __name__ == "__main__":
    main()
