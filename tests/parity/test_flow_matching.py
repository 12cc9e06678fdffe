"""Our straight path against diffusers' flow scheduler: its σ is our s, and its sign is ours.

``FlowMatchEulerDiscreteScheduler(shift=1.0)`` has x_σ = (1 - σ) x_0 + σ ε, time steps of 1000 σ and
the velocity ε - x_0. Asked for n steps it would go evenly from σ = 1 to 1/1000 and leap to 0 from
there; so it is given our own s: even in n steps, down to 0.
"""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from keras import ops

from diffusion_walkthrough import flow_matching as flow
from diffusion_walkthrough.backward_sampling import Denoiser, stops, times
from diffusion_walkthrough.faster_sampling import ddim_step
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

T, SHAPE = 1000, (3, 2, 4, 4)
SCHEDULE = NoiseSchedule(make_betas("straight", T))
RANDOM = np.random.default_rng(7)
PIXELS = int(np.prod(SHAPE[1:]))
WEIGHTS = RANDOM.standard_normal((PIXELS, PIXELS)) / np.sqrt(PIXELS)
X_T = RANDOM.standard_normal(SHAPE)


def network(x_s, s):
    """Something that depends on both, in float64: a velocity."""
    flat = np.asarray(x_s, "float64").reshape(len(x_s), -1)
    return np.tanh(flat @ WEIGHTS + s).reshape(np.shape(x_s))


def theirs(steps):
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=T, shift=1.0)
    scheduler.set_timesteps(sigmas=(1 - np.arange(steps) / steps).tolist())
    return scheduler


def their_way(steps):
    scheduler, x = theirs(steps), torch.from_numpy(X_T)
    way = [x.numpy()]
    for t in scheduler.timesteps:
        answer = torch.from_numpy(network(x.numpy(), float(t) / T))
        x = scheduler.step(answer, t, x, return_dict=False)[0]
        way.append(x.numpy())
    return way


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
def test_their_sigma_is_our_share_of_noise(steps):
    scheduler = theirs(steps)
    s = flow.share_of_noise(SCHEDULE, np.array([*times(SCHEDULE, steps), -1]))
    np.testing.assert_allclose(scheduler.sigmas.numpy(), s, atol=1e-6)
    np.testing.assert_allclose(scheduler.timesteps.numpy() / T, s[:-1], atol=1e-6)


def test_images_are_hidden_alike():
    scheduler, (x_start, noise) = theirs(10), RANDOM.standard_normal((2, *SHAPE))
    t = np.array(times(SCHEDULE, 10)[2:5])
    known = map(torch.from_numpy, (x_start, noise))
    x_start_there, noise_there = known
    found = scheduler.scale_noise(x_start_there, scheduler.timesteps[2:5], noise_there)
    ours = flow.between(x_start, noise, flow.share_of_noise(SCHEDULE, t))
    np.testing.assert_allclose(found.numpy(), ours, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
def test_eulers_walk_is_theirs(steps):
    way = flow.euler(lambda x, s: network(x, s[0]), X_T, steps)
    np.testing.assert_allclose(way, their_way(steps), atol=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 10, 50])
def test_ddim_on_the_schedule_called_straight_is_theirs(steps):
    """As the package draws: x_t with rates of Eq. 4, and a network asked for "flow"."""

    def answer(shown, training):
        x_t, t = map(ops.convert_to_numpy, shown)
        s = float(flow.share_of_noise(SCHEDULE, t)[0])
        a, b = (float(rate[0, 0]) for rate in SCHEDULE.rates(t, 2))
        return ops.convert_to_tensor(network(x_t / (a + b), s), "float32")

    denoise = Denoiser(answer, SCHEDULE, "flow", clip=False)
    walked = stops(ddim_step, denoise, SCHEDULE, SHAPE, steps=steps, x_T=X_T, seed=1)
    for stop, expected in zip(walked, their_way(steps), strict=True):
        found = flow.straightened(SCHEDULE, stop.x, np.full(len(X_T), int(stop.t)))
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)
