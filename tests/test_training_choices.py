"""Everything that can be chosen trains and samples: schedule, prediction, variance and loss."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from pocket import pocket_model
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import (
    ENDING_IN_NOTHING,
    LOSS_NAMES,
    PREDICTION_NAMES,
    SCHEDULE_NAMES,
    VARIANCE_NAMES,
    ScheduleParameters,
)
from diffusion_walkthrough.training import DiffusionModel

pytestmark = pytest.mark.slow  # three dozen short runs

DIGITS = load_images("digits")[0][:256]
CHOICES = [
    (prediction, variance, loss)
    for prediction, variance, loss in itertools.product(
        PREDICTION_NAMES, VARIANCE_NAMES, LOSS_NAMES
    )
    if (variance, loss) != ("learned", "mse")  # the parameters refuse it
]
#: Where noise is nearly all there is, marks of the noise by the bound are huge, and a variance
#: learned from them is too: a network without normalization would answer to that with infinity.
NEEDS_A_UNET = ("noise", "learned", "kl")
QUICK = {"learning_rate": 2e-2, "batch_size": 64}


def assert_learns_and_draws(model: DiffusionModel) -> None:
    """The loss falls clearly in three epochs, and samples are finite and follow the seed."""
    model.compile(run_eagerly=keras.backend.backend() == "tensorflow")  # few steps, no graph
    before = model.evaluate(DIGITS[:64], verbose=0)
    model.fit(DIGITS, epochs=3, verbose=0)
    after = model.evaluate(DIGITS[:64], verbose=0)
    assert after < 0.9 * before
    drawn = model.sample(3, seed=0)
    assert drawn.shape == (3, 8, 8, 1)
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn, model.sample(3, seed=0))


@pytest.mark.parametrize(("prediction", "variance", "loss"), CHOICES)
def test_every_combination_trains_and_samples(prediction, variance, loss):
    choice = {"prediction": prediction, "variance": variance, "loss": loss}
    if (prediction, variance, loss) != NEEDS_A_UNET:
        assert_learns_and_draws(pocket_model(**choice, **QUICK))
        return
    training = dataclasses.replace(TINY.training, learning_rate=5e-3)
    keras.utils.set_random_seed(0)
    assert_learns_and_draws(
        DiffusionModel(dataclasses.replace(TINY, training=training, **choice), seed=0)
    )


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_every_schedule_trains_and_samples(name):
    prediction = "x_start" if name in ENDING_IN_NOTHING else "noise"
    schedule = ScheduleParameters(name, 10)
    assert_learns_and_draws(pocket_model(schedule=schedule, prediction=prediction, **QUICK))
