"""A step in parts is the step of the whole batch."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from same_noise import SameNoise
from tiny import TINY

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.training import AveragingAdam

PARTS = 4


def values(variables):
    return [ops.convert_to_numpy(variable.value) for variable in variables]


def test_the_optimizer_averages_clips_and_counts_whole_steps():
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(shape).astype("float32") for shape in ((3, 4), (5,))]
    steps = [[rng.standard_normal((PARTS, *w.shape)).astype("float32") for w in start]
             for _ in range(6)]  # fmt: skip
    options = {"learning_rate": 0.05, "global_clipnorm": 0.9, "use_ema": True, "ema_momentum": 0.5}
    whole, parted = [keras.Variable(w) for w in start], [keras.Variable(w) for w in start]
    optimizer = AveragingAdam(**options)
    in_parts = AveragingAdam(gradient_accumulation_steps=PARTS, **options)
    for gradients in steps:
        optimizer.apply([ops.convert_to_tensor(g.mean(axis=0)) for g in gradients], whole)
        for part in range(PARTS):
            in_parts.apply([ops.convert_to_tensor(g[part]) for g in gradients], parted)
    for mine, other in zip(values(parted), values(whole), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
    averages = (values(o._model_variables_moving_average) for o in (in_parts, optimizer))
    for mine, other, latest in zip(*averages, values(whole), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)
        assert np.abs(other - latest).max() > 1e-3  # the average is not just the weights
    tallies = values([in_parts.gradient_norms, optimizer.gradient_norms])
    np.testing.assert_allclose(*tallies, rtol=1e-5)
    assert int(in_parts.iterations) == int(optimizer.iterations) == len(steps)


@pytest.mark.parametrize("parts", [2, PARTS])
def test_fit_takes_the_same_steps_in_parts(parts):
    """With noise that follows from the images; only rounding may differ."""
    images = load_images("digits")[0][:32]
    models, histories = [], []
    for number in (1, parts):
        training = dataclasses.replace(
            TINY.training, batch_size=16, gradient_accumulation_steps=number, decay_steps=None
        )
        keras.utils.set_random_seed(3)
        model = SameNoise(dataclasses.replace(TINY, training=training), seed=0)
        model.compile()
        histories.append(model.fit(images, epochs=2, shuffle=False, verbose=0).history)
        models.append(model)
    whole, parted = (values(model.network.weights) for model in models)
    for mine, other in zip(parted, whole, strict=True):
        np.testing.assert_allclose(mine, other, atol=2e-5)
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=1e-4)
    norms = [history["gradient_norm"] for history in histories]
    np.testing.assert_allclose(norms[1], norms[0], rtol=1e-3)


def test_a_run_is_planned_in_whole_steps():
    images = load_images("digits")[0][:32]
    training = dataclasses.replace(
        TINY.training, batch_size=16, gradient_accumulation_steps=2, decay_steps=6, warmup_steps=1
    )
    model = SameNoise(dataclasses.replace(TINY, training=training), seed=0)
    model.compile()
    model.fit(images, verbose=0)
    assert int(model.optimizer.iterations) == 6


def test_a_batch_that_cannot_be_parted_is_refused():
    training = dataclasses.replace(TINY.training, batch_size=16, gradient_accumulation_steps=2)
    model = SameNoise(dataclasses.replace(TINY, training=training), seed=0)
    model.compile()
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        model.fit(load_images("digits")[0][:32], batch_size=15, verbose=0)
