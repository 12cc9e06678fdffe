"""Everything that can be chosen trains and samples: schedule, prediction, variance and loss."""

from __future__ import annotations

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import (
    LOSS_NAMES,
    PREDICTION_NAMES,
    SCHEDULE_NAMES,
    VARIANCE_NAMES,
    DiffusionParameters,
    ScheduleParameters,
)
from diffusion_walkthrough.training import DiffusionModel

pytestmark = pytest.mark.slow  # two dozen short runs

QUICK = dataclasses.replace(TINY, training=dataclasses.replace(TINY.training, learning_rate=5e-3))


def digits(n: int) -> np.ndarray:
    return load_images("digits")[0][:n]


CHOICES = [
    (prediction, variance, loss)
    for prediction, variance, loss in itertools.product(
        PREDICTION_NAMES, VARIANCE_NAMES, LOSS_NAMES
    )
    if (variance, loss) != ("learned", "mse")
]


def assert_learns_and_draws(parameters: DiffusionParameters) -> None:
    """The loss falls clearly in two epochs, and samples are finite and follow the seed."""
    keras.utils.set_random_seed(0)
    model = DiffusionModel(parameters, seed=0)
    model.compile(run_eagerly=keras.backend.backend() == "tensorflow")  # few steps, no graph
    before = model.evaluate(digits(64), verbose=0)
    model.fit(digits(256), epochs=2, verbose=0)
    after = model.evaluate(digits(64), verbose=0)
    assert after < 0.9 * before
    drawn = model.sample(3, seed=0)
    assert drawn.shape == (3, 8, 8, 1)
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn, model.sample(3, seed=0))


@pytest.mark.parametrize(("prediction", "variance", "loss"), CHOICES)
def test_every_combination_trains_and_samples(prediction, variance, loss):
    assert_learns_and_draws(
        dataclasses.replace(QUICK, prediction=prediction, variance=variance, loss=loss)
    )


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_every_schedule_trains_and_samples(name):
    prediction = "x_start" if name == "jsd" else "noise"
    schedule = ScheduleParameters(name, 10)
    assert_learns_and_draws(dataclasses.replace(QUICK, schedule=schedule, prediction=prediction))
