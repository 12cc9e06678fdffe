"""The data that a reader chooses at the head of a page, and a model that draws such images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from diffusion_walkthrough.checkpoints import model_of
from diffusion_walkthrough.data import Images, training_and_held_out


class StandIn:
    """What draws where there is no model yet: training images, with a little noise on them."""

    schedule = range(1)  # one step: there is no way back to walk

    def __init__(self, images: Images, noise: float = 0.1) -> None:
        """Remember the images, and how much noise they get."""
        self.images, self.noise = images, noise

    def sample(self, n: int, seed: int = 0, **options: Any) -> Images:
        """``n`` of the images, at random, noisy and clipped; options of a model are ignored."""
        random = np.random.default_rng(seed)
        chosen = self.images[random.integers(len(self.images), size=n)]
        noisy = chosen + self.noise * random.standard_normal(chosen.shape)
        return noisy.clip(-1, 1).astype("float32")


def load(
    data: str | os.PathLike[str] = "digits", training: int = 1500, held_out: int = 297
) -> tuple[Images, Images, Any]:
    """Load training images, held-out images, and the model that draws such images.

    Args:
        data: a data set's name, or a folder of pictures, as ``training_and_held_out`` takes it. Its
            model is the one that ships, or that chapter 05 has kept. If there is none, noisy
            training images stand in for its drawings, and a line says what to do.
        training: how many training images at most.
        held_out: how many held-out images at most.

    Raises:
        ValueError: if the model draws images of another shape than those of the data set.
        OSError, TypeError, ValueError: as ``training_and_held_out`` and ``model_of`` do.
    """
    images, _, others = training_and_held_out(data, training, held_out)
    try:
        model = model_of(data)
    except FileNotFoundError:
        print(
            f"There is no model of {data} yet: noisy training images stand in for the network's. "
            f"Run chapter 05 with DATA = {str(data)!r}: it trains one and keeps it."
        )
        return images, others, StandIn(images)
    shape = model.shape_of(1)[1:]
    if images.shape[1:] != shape:
        raise ValueError(
            f"The model of {data} draws images of shape {shape}, but the images have shape "
            f"{images.shape[1:]}. Run chapter 05 with DATA = {str(data)!r} again."
        )
    return images, others, model
