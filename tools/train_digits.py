"""Train the small model that ships with the package, and say how good it is.

python tools/train_digits.py

It learns scikit-learn's 1,500 training digits from scratch, exactly as chapter 05 does, and
replaces ``diffusion_walkthrough/pretrained/digits``.
"""

from __future__ import annotations

import keras
import numpy as np

from diffusion_walkthrough.checkpoints import PRETRAINED, save_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import nearest_distance, precision_recall
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.training import DiffusionModel


def train(images: np.ndarray, seed: int = 0) -> DiffusionModel:
    """Train the preset's whole run on images in [-1, 1]."""
    keras.utils.set_random_seed(seed)
    model = DiffusionModel(DiffusionParameters.digits(), seed=seed)
    model.compile()
    model.fit(images)
    return model


def report(model: DiffusionModel, images: np.ndarray, held_out: np.ndarray) -> None:
    """Print how 1,000 drawn digits compare with held-out real ones."""
    drawn = model.sample(1000, seed=1, progress=True)
    for name, theirs, best in zip(
        ("precision", "recall"),
        precision_recall(images, drawn, k=3),
        precision_recall(images, held_out, k=3),
        strict=True,
    ):
        print(f"{name}: {theirs:.3f}, held-out digits {best:.3f}, ratio {theirs / best:.3f}")
    distance = nearest_distance(drawn, images).mean() / nearest_distance(held_out, images).mean()
    print(f"nearest distance to the training set, over that of held-out digits: {distance:.3f}")


if __name__ == "__main__":
    training_digits, _ = load_images("digits", split="train")
    held_out_digits, _ = load_images("digits", split="test")
    trained = train(training_digits)
    report(trained, training_digits, held_out_digits)
    print(f"saved to {save_model(trained, PRETRAINED / 'digits', overwrite=True).name}")
