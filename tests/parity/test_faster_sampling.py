"""Our steps and spacings against diffusers' schedulers: the t and σ, then one step, then a walk.

They agree to 1e-5, mostly to 1e-6. What differs there, and how the comparison is kept fair:

- Its σ are float32, of tables in float32. So its code is given tables in double precision from our
  β; its σ stay float32, as ours are, but at the end of a schedule of 1000 steps, where float32
  leaves three digits of ᾱ.
- ``DDIMScheduler`` leaves out T // n steps at a time, whatever t it is at, so n must divide T, and
  "trailing" must be chosen. With "leading", its default, it never asks at T-1. Where x_0 is
  clipped, it keeps the noise that went with what was not; ours is that of
  ``use_clipped_model_output=True``: x_0 and ε always make up x_t.
- ``DPMSolverMultistepScheduler`` does not clip: it is given clipped x_0 in the place of an answer.
  It rounds the t of every spacing to whole ones, but keeps the σ; so the network here looks at x_t
  alone. Its last step is of first order because its last σ is "zero". "lu" is our "log_snr".
- ``HeunDiscreteScheduler`` walks x/a, and has other β than all the rest. Its "karras" begins and
  ends at the σ of the spacing that it would have had without: "linspace" for ours.
- ``EDMEulerScheduler`` is DDIM in x/a. What it takes for a network's answer is x_0 in parts, which
  are put together to begin with; its σ are given.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    HeunDiscreteScheduler,
)
from keras import ops

from diffusion_walkthrough.backward_sampling import Denoiser, stops
from diffusion_walkthrough.faster_sampling import (
    ddim_step,
    dpm_2m_step,
    heun_step,
    spaced,
    time_of,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

T = 1000
SHAPE = (3, 2, 4, 4)  # channels first, on both sides
TOLERANCE = 1e-5
PREDICTIONS = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}
SCHEDULES = {name: NoiseSchedule(make_betas(name, T)) for name in ("linear", "cosine")}

RANDOM = np.random.default_rng(7)
PIXELS = int(np.prod(SHAPE[1:]))
WEIGHTS = RANDOM.standard_normal((PIXELS, PIXELS)) / np.sqrt(PIXELS)
BIAS = RANDOM.standard_normal(PIXELS)
X_T = RANDOM.standard_normal(SHAPE)


def clean(x_t):
    """A network that looks at x_t alone, in float64: x_0, up to 1.5."""
    flat = np.asarray(x_t, "float64").reshape(len(x_t), -1)
    return 1.5 * np.tanh(flat @ WEIGHTS + BIAS).reshape(np.shape(x_t))


def answer(x_t, sigma, prediction):
    """What it says when it is asked for something else."""
    a = 1 / np.sqrt(1 + sigma**2)
    x_start = clean(x_t)
    noise = (np.asarray(x_t, "float64") - a * x_start) / (a * sigma)
    return {"noise": noise, "x_start": x_start, "v": a * noise - a * sigma * x_start}[prediction]


def ours(name, prediction="x_start", clip=False):
    """The same as a denoise function; all images are at the same t."""
    schedule = SCHEDULES[name]

    def network(shown, training):
        x_t, t = map(ops.convert_to_numpy, shown)
        alpha_bar = schedule.alpha_bar(t)[0]
        sigma = np.sqrt(1 / alpha_bar - 1)
        return ops.convert_to_tensor(answer(x_t, sigma, prediction), "float32")

    return Denoiser(network, schedule, prediction, clip=clip)


def theirs(kind, name, **settings):
    """A scheduler with our β, its tables in double precision."""
    schedule = SCHEDULES[name]
    scheduler = kind(num_train_timesteps=T, trained_betas=schedule.betas, **settings)
    scheduler.betas = torch.from_numpy(schedule.betas)
    scheduler.alphas = 1.0 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    return scheduler


def our_way(step, name, times, prediction="x_start", clip=False, **options):
    """All our stops, in NumPy, and z of each step."""
    drawn = []

    @functools.wraps(step)
    def noted(denoise, schedule, x_t, t, s, z, **own):
        drawn.append(torch.from_numpy(ops.convert_to_numpy(z).astype("float64")))
        return step(denoise, schedule, x_t, t, s, z, **own)

    denoise, schedule = ours(name, prediction, clip), SCHEDULES[name]
    walked = stops(noted, denoise, schedule, SHAPE, steps=times, x_T=X_T, seed=1, **options)
    return [ops.convert_to_numpy(stop.x) for stop in walked], drawn


def difference(a, b):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert np.isfinite(b).all()
    return np.abs(a - b).max() / max(1.0, np.abs(b).max())


def assert_the_same_way(found, expected):
    """Step by step, so that what is off is seen where it begins."""
    assert len(found) == len(expected)
    for number, (x, y) in enumerate(zip(found, expected, strict=True)):
        assert difference(x, y) < TOLERANCE, number
    assert np.std(expected[-1]) > 0.3


def sigmas_of(name, times):
    return np.sqrt(1 / SCHEDULES[name].alpha_bar(np.asarray(times)) - 1)


# The t and σ at which is asked -------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 7, 10, 50, 999, 1000])
def test_even_times_are_those_of_trailing(steps):
    scheduler = theirs(DDIMScheduler, "linear", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == spaced(SCHEDULES["linear"], steps)


@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_times_and_sigmas_of_karras(name, steps):
    """diffusers reads a real t off its σ as we do: log σ is straight between two steps."""
    scheduler = theirs(
        HeunDiscreteScheduler, name, use_karras_sigmas=True, timestep_spacing="linspace"
    )
    scheduler.set_timesteps(steps)
    times = spaced(SCHEDULES[name], steps, "karras")
    first_of_each = [0, *range(1, 2 * steps - 1, 2)]
    np.testing.assert_allclose(scheduler.timesteps[first_of_each], times, atol=2e-3)
    np.testing.assert_allclose(scheduler.sigmas[first_of_each], sigmas_of(name, times), rtol=1e-6)
    assert scheduler.sigmas[-1] == 0


@pytest.mark.parametrize("steps", [2, 5, 20])
@pytest.mark.parametrize("name", SCHEDULES)
def test_times_and_sigmas_even_in_log_snr(name, steps):
    scheduler = theirs(DPMSolverMultistepScheduler, name, use_lu_lambdas=True)
    scheduler.set_timesteps(steps)
    times = spaced(SCHEDULES[name], steps, "log_snr")
    assert np.abs(scheduler.timesteps.numpy() - times).max() < 1  # theirs are cut to whole ones
    np.testing.assert_allclose(scheduler.sigmas[:-1], sigmas_of(name, times), rtol=1e-6)
    assert scheduler.sigmas[-1] == 0


def test_times_from_a_sigma_of_80():
    schedule = SCHEDULES["linear"]
    first = np.sqrt(1 / schedule.alphas_cumprod[0] - 1)
    scheduler = EDMEulerScheduler(sigma_min=float(first), sigma_max=80.0)
    scheduler.set_timesteps(9)
    times = spaced(schedule, 9, "karras", sigma_max=80)
    np.testing.assert_allclose(scheduler.sigmas[:-1], sigmas_of("linear", times), rtol=1e-6)
    assert times[0] == time_of(schedule, 80)


# DDIM -------------------------------------------------------------------------------------------


def their_ddim(name, steps, zs, prediction, clip, eta, x=X_T):
    scheduler = theirs(
        DDIMScheduler,
        name,
        clip_sample=clip,
        set_alpha_to_one=True,
        prediction_type=PREDICTIONS[prediction],
        timestep_spacing="trailing",
    )
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(x)
    found = [x.numpy()]
    for t, z in zip(scheduler.timesteps.tolist(), zs, strict=True):
        said = torch.from_numpy(answer(x.numpy(), sigmas_of(name, t), prediction))
        how = {"eta": eta, "use_clipped_model_output": clip, "variance_noise": z}
        x = scheduler.step(said, t, x, **how).prev_sample
        found.append(x.numpy())
    return found


@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        *(("linear", prediction) for prediction in PREDICTIONS),
        ("cosine", "x_start"),
        ("cosine", "v"),
    ],
)
def test_a_walk_of_ddim(name, prediction, eta, clip):
    """But for a guess of the noise at σ = 20,000: what float32 leaves of x_0 is worth nothing."""
    found, zs = our_way(ddim_step, name, 20, prediction, clip, eta=eta)
    assert_the_same_way(found, their_ddim(name, 20, zs, prediction, clip, eta))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_step_of_ddim_from_every_t(eta):
    """From t to t - 1, an image each; the last is to the clean image."""
    schedule, t = SCHEDULES["linear"], np.arange(T, dtype="int32")
    x_t, guess, z = np.random.default_rng(3).standard_normal((3, T, 2))
    got, _ = ddim_step(lambda x_t, t: guess, schedule, x_t, t, t - 1, z, eta)
    scheduler = theirs(DDIMScheduler, "linear", clip_sample=False, prediction_type="sample")
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(T)
    x_t, guess, z = map(torch.from_numpy, (x_t, guess, z))
    steps = [
        scheduler.step(guess[i], i, x_t[i], eta=eta, variance_noise=z[i]).prev_sample for i in t
    ]
    assert difference(ops.convert_to_numpy(got), torch.stack(steps).numpy()) < TOLERANCE


@pytest.mark.parametrize("steps", [5, 12])
def test_a_walk_of_euler_from_a_sigma_of_80(steps):
    schedule = SCHEDULES["linear"]
    first = np.sqrt(1 / schedule.alphas_cumprod[0] - 1)
    times = spaced(schedule, steps, "karras", sigma_max=80)
    found, _ = our_way(ddim_step, "linear", times)
    scheduler = EDMEulerScheduler(sigma_min=float(first), sigma_max=80.0)
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(X_T) * np.sqrt(1 + 80.0**2)
    expected = [X_T]
    for number, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number].double()
        scheduler.scale_model_input(x, t)
        wanted = torch.from_numpy(clean((x / torch.sqrt(1 + sigma**2)).numpy()))
        skipped = scheduler.precondition_outputs(x, torch.zeros_like(x), sigma)
        share = scheduler.precondition_outputs(torch.zeros_like(x), torch.ones_like(x), sigma)
        x = scheduler.step((wanted - skipped) / share, t, x).prev_sample
        expected.append((x / torch.sqrt(1 + scheduler.sigmas[number + 1] ** 2)).numpy())
    assert_the_same_way(found, expected)


# DPM-Solver++(2M) ---------------------------------------------------------------------------------


def their_2m(name, steps, prediction, clip, **spacing):
    scheduler = theirs(
        DPMSolverMultistepScheduler,
        name,
        prediction_type=PREDICTIONS[prediction],
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        lower_order_final=True,
        final_sigmas_type="zero",
        **spacing,
    )
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)  # or it would begin at the second of two t that are alike
    x = torch.from_numpy(X_T)
    found = [X_T]
    for number, t in enumerate(scheduler.timesteps):
        said = answer(x.numpy(), float(scheduler.sigmas[number]), prediction)
        said = torch.from_numpy(np.clip(said, -1, 1) if clip else said)
        x = scheduler.step(said, t, x).prev_sample.double()
        found.append(x.numpy())
    return found


@pytest.mark.parametrize(
    ("name", "prediction", "clip"),
    [
        ("linear", "noise", False),
        ("linear", "x_start", True),
        ("linear", "v", False),
        ("cosine", "x_start", False),
        ("cosine", "v", False),
    ],
)
@pytest.mark.parametrize("steps", [2, 8, 20])
def test_a_walk_of_2m(name, prediction, clip, steps):
    """Below and above 15 steps, where diffusers' ``lower_order_final`` makes a difference."""
    found, _ = our_way(dpm_2m_step, name, steps, prediction, clip)
    expected = their_2m(name, steps, prediction, clip, timestep_spacing="trailing")
    assert_the_same_way(found, expected)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("spacing", "word"), [("log_snr", "use_lu_lambdas"), ("karras", "use_karras_sigmas")]
)
@pytest.mark.parametrize("steps", [6, 20])
def test_a_walk_of_2m_between_the_steps(name, spacing, word, steps):
    found, _ = our_way(dpm_2m_step, name, spaced(SCHEDULES[name], steps, spacing))
    assert_the_same_way(found, their_2m(name, steps, "x_start", False, **{word: True}))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_single_step_is_euler_s_for_all(name):
    """Which leads to the guess of x_0 itself."""
    for step in (ddim_step, dpm_2m_step, heun_step):
        found, _ = our_way(step, name, 1)
        assert_the_same_way(found, [X_T, clean(X_T)])
    assert_the_same_way(found, their_2m(name, 1, "x_start", False, timestep_spacing="trailing"))


# Heun -------------------------------------------------------------------------------------------


def their_heun(name, steps, prediction, clip, **spacing):
    """Their stops where ours are: after each second step, and the last, which stands alone."""
    scheduler = theirs(
        HeunDiscreteScheduler,
        name,
        prediction_type=PREDICTIONS[prediction],
        clip_sample=clip,
        **spacing,
    )
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(X_T) * torch.sqrt(1 + scheduler.sigmas[0].double() ** 2)
    found, asked = [X_T], 0
    for t in scheduler.timesteps:
        here = scheduler.scale_model_input(x, t).numpy()
        sigma = float(scheduler.sigmas[scheduler.step_index])
        said = torch.from_numpy(answer(here, sigma, prediction))
        x = scheduler.step(said, t, x).prev_sample
        asked += 1
        if scheduler.state_in_first_order or asked == 2 * steps - 1:
            next_sigma = scheduler.sigmas[scheduler.step_index].double()
            found.append((x / torch.sqrt(1 + next_sigma**2)).numpy())
    assert asked == 2 * steps - 1
    return found


@pytest.mark.parametrize(
    ("prediction", "clip"), [("noise", False), ("x_start", True), ("v", False), ("x_start", False)]
)
@pytest.mark.parametrize("steps", [4, 10])
def test_a_walk_of_heun(prediction, clip, steps):
    """With fewer the first step is so long that it makes much of what float32 rounds."""
    found, _ = our_way(heun_step, "linear", steps, prediction, clip)
    expected = their_heun("linear", steps, prediction, clip, timestep_spacing="trailing")
    assert_the_same_way(found, expected)


@pytest.mark.parametrize("steps", [5, 18])
def test_a_walk_of_heun_with_karras_sigmas(steps):
    found, _ = our_way(heun_step, "linear", spaced(SCHEDULES["linear"], steps, "karras"))
    assert_the_same_way(
        found, their_heun("linear", steps, "x_start", False, use_karras_sigmas=True)
    )
