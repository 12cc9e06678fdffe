"""A compiled network gives the same images sooner, and is traced once."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from tiny import TINY

from diffusion_walkthrough.backward_sampling import (
    STRIDE,
    p_sample_loop,
    p_sample_loop_progressive,
)
from diffusion_walkthrough.compiled import CompiledNetwork
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas
from diffusion_walkthrough.training import DiffusionModel

SCHEDULE = NoiseSchedule(make_betas("cosine", 2 * STRIDE + 3))  # no whole number of strides


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = DiffusionModel(TINY, seed=0)
    rng = np.random.default_rng(0)
    model.network.set_weights([0.2 * rng.standard_normal(w.shape) for w in model.network.weights])
    return model


def walked_step_by_step(model, shape, **options):
    stops = p_sample_loop_progressive(model.denoise, SCHEDULE, shape, **options)
    return ops.convert_to_numpy(list(stops)[-1].x)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variance": "fixed_large", "prediction": "x_start"},
        {"prediction": "x_prev"},
        {"clip": False, "shared_noise_steps": 5},
        {"shared_noise_steps": STRIDE + 1},
    ],
    ids=str,
)
def test_long_strides_lead_where_single_steps_do(model, options):
    shape = (3, *TINY.unet.image_shape)
    found = p_sample_loop(model.denoise, SCHEDULE, shape, seed=4, **options)
    expected = walked_step_by_step(model, shape, seed=4, **options)
    scale = np.abs(expected).max()
    assert expected.std() > 0.05
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=2e-4 * scale)


def test_a_walk_from_noisy_images_is_the_same_too(model):
    shape = (2, *TINY.unet.image_shape)
    x_T = np.random.default_rng(1).standard_normal(shape).astype("float32")
    options = {"seed": 3, "x_T": x_T, "steps": STRIDE + 2}
    found = ops.convert_to_numpy(p_sample_loop(model.denoise, SCHEDULE, shape, **options))
    np.testing.assert_allclose(found, walked_step_by_step(model, shape, **options), atol=1e-4)


def test_a_generator_stands_where_single_steps_would_leave_it(model):
    shape = (2, *TINY.unet.image_shape)
    states = []
    for walk in (p_sample_loop, walked_step_by_step):
        generator = keras.random.SeedGenerator(7)
        if walk is p_sample_loop:
            walk(model.denoise, SCHEDULE, shape, seed=generator)
        else:
            walk(model, shape, seed=generator)
        states.append(ops.convert_to_numpy(generator.state.value))
    np.testing.assert_array_equal(*states)


def test_a_misspelt_option_is_refused_before_any_work(model):
    with pytest.raises(TypeError, match="varianz"):
        p_sample_loop(model.denoise, SCHEDULE, (1, *TINY.unet.image_shape), varianz="fixed_large")


def test_a_learned_variance_is_walked_with_as_well():
    parameters = dataclasses.replace(TINY, variance="learned", loss="kl")
    model = DiffusionModel(parameters, seed=0)
    shape = (2, *TINY.unet.image_shape)
    found = p_sample_loop(model.denoise, SCHEDULE, shape, seed=1, variance="learned")
    expected = walked_step_by_step(model, shape, seed=1, variance="learned")
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-4 * scale)


def test_everything_is_traced_once(model, monkeypatch):
    """Whatever the batch, and however many steps and walks: tracing takes seconds each time."""
    traces = []
    call = type(model.network).call

    def counted(self, *arguments, **options):
        traces.append(1)
        return call(self, *arguments, **options)

    denoise = CompiledNetwork(model.network)
    monkeypatch.setattr(type(model.network), "call", counted)
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch runs the network as it is")
    first = traced = None
    for batch in (2, 5) if keras.backend.backend() == "tensorflow" else (2, 2):
        shape = (batch, *TINY.unet.image_shape)
        for seed in range(2):
            p_sample_loop(denoise, SCHEDULE, shape, seed=seed)
        denoise(ops.zeros(shape), ops.zeros((batch,), "int32"))
        traced = len(traces)
        first = first or traced
    assert first == traced
    assert traced >= 2  # the network alone, and the walk
