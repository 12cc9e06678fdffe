"""Our noise schedule, q_sample, p_sample and p_sample_loop against diffusers' DDPMScheduler.

They agree to 1e-6 at every step of every shared schedule, with every kind of variance, in one step
and on the whole way. What differs there, and how the comparison is kept fair:

- Its tables are float32, so that 1 - ᾱ of the first steps, and with it their variance, is off by
  up to 1e-3 of itself. So its code is given tables in double precision (``in_double``), computed
  from β by its own two lines; where not said otherwise, from our β. Its own β, which it has for
  four schedules, are compared before that. How far it is off as it comes, the last test says.
- Ours computes with float32 images, as a learner's program does: measured are differences of up to
  6e-7, its rounding. They are relative to the largest value if that is above 1 (an x_0 that is not
  clipped can be in the thousands), and those of a guess of x_0 from the noise relative to √(1/ᾱ),
  the size of the two numbers that it is the difference of.
- Its variance at t = 0 is clamped at 1e-20; ours is 0. Neither is ever used.
- ``fixed_small_log`` is the deviation of ``fixed_small`` by way of its logarithm.
  ``fixed_large_log`` is the logarithm itself, of which its ``step`` takes the root: NaN. So only
  the table is compared.
- ``learned``: it takes the second half of the channels for the variance; ours, as the original
  code, for the logarithm of the variance. So it is given the exponential of what ours is given.
- It has no prediction of x_{t-1}; there its mean is handed to ours.
- Its ``v_prediction`` is ours; it has no flow in this scheduler.
- Long steps: its ``previous_timestep`` with fewer ``timesteps`` is our s.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from keras import ops

from diffusion_walkthrough.backward_sampling import (
    Denoiser,
    ddpm_step,
    fixed_variance,
    p_mean_variance,
    p_sample,
    p_sample_loop,
    times,
)
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.noise_schedule import NoiseSchedule, make_betas

T = 1000
SHAPE = (4, 4, 2)
#: Our name, and theirs.
SHARED = {
    "linear": "linear",
    "cosine": "squaredcos_cap_v2",
    "quad": "scaled_linear",
    "sigmoid": "sigmoid",
}
#: All that can be sampled from, with prediction of the noise.
SCHEDULES = [*SHARED, "warmup10", "warmup50", "const"]
#: Our name, and those of theirs that mean it.
VARIANCES = [
    ("fixed_small", "fixed_small"),
    ("fixed_small", "fixed_small_log"),
    ("fixed_large", "fixed_large"),
    ("learned", "learned"),
]
PREDICTIONS = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}
TOLERANCE = 1e-6


def ours(name, timesteps=T, scaled=True):
    return NoiseSchedule(make_betas(name, timesteps, scaled=scaled))


def in_double(scheduler, betas=None):
    """Give a scheduler its tables in double precision."""
    scheduler.betas = scheduler.betas.double() if betas is None else torch.from_numpy(betas)
    scheduler.alphas = 1.0 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, dim=0)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def theirs(schedule, **settings):
    """A DDPMScheduler with our β, in double precision."""
    scheduler = DDPMScheduler(num_train_timesteps=len(schedule), **settings)
    return in_double(scheduler, schedule.betas)


def difference(a, b):
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    assert a.shape == b.shape
    assert np.isfinite(b).all()
    return np.abs(a - b).max() / max(1.0, np.abs(b).max())


def channels_first(x):
    """(batch, height, width, channels) in NumPy to (batch, channels, height, width) in PyTorch."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x, "float64"), -1, 1)))


def channels_last(x):
    return np.moveaxis(x.numpy(), 1, -1)


class GivenNoise:
    """Stands where diffusers draws its noise, and hands out what it was given."""

    noise = None

    def __call__(self, *_, **__):
        return self.noise


GIVEN = GivenNoise()


@pytest.fixture(autouse=True)
def given_noise(monkeypatch):
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", GIVEN)


def step_of(scheduler, answer, t, x_t, noise):
    """Take diffusers' step with this noise."""
    GIVEN.noise = noise
    return scheduler.step(answer, t, x_t)


# ---------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("timesteps", [T, 50])
def test_betas_and_what_is_left_of_the_image(name, timesteps):
    """With their own β in float32; and ᾱ computed from that in double comes closer still."""
    scheduler = DDPMScheduler(num_train_timesteps=timesteps, beta_schedule=SHARED[name])
    schedule = ours(name, timesteps, scaled=False)
    np.testing.assert_allclose(schedule.betas, scheduler.betas, rtol=TOLERANCE)
    np.testing.assert_allclose(schedule.alphas_cumprod, scheduler.alphas_cumprod, atol=TOLERANCE)
    in_double(scheduler)
    np.testing.assert_allclose(schedule.alphas_cumprod, scheduler.alphas_cumprod, atol=1e-8)


@pytest.mark.parametrize("name", [*SCHEDULES, "jsd"])
def test_the_posterior_of_every_step(name):
    """Eq. 7: the two coefficients of the mean, and the variance, both sides in double."""
    schedule = ours(name)
    scheduler = theirs(schedule, prediction_type="sample", clip_sample=False)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    steps = range(T)
    coef1 = [step_of(scheduler, one, t, zero, zero).prev_sample.item() for t in steps]
    coef2 = [step_of(scheduler, zero, t, one, zero).prev_sample.item() for t in steps]
    variance = [scheduler._get_variance(t).item() for t in steps]
    np.testing.assert_allclose(schedule.posterior_mean_coef1, coef1, rtol=1e-11)
    np.testing.assert_allclose(schedule.posterior_mean_coef2, coef2, rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(schedule.posterior_variance, variance, rtol=1e-11, atol=2e-20)
    clipped = schedule.posterior_log_variance_clipped
    np.testing.assert_allclose(clipped[1:], np.log(variance[1:]), rtol=1e-11)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_large_variance_and_its_logarithm_at_every_step(name):
    schedule = ours(name)
    scheduler = theirs(schedule)
    variances, log_variances = fixed_variance(schedule, "fixed_large")
    for kind, table in [("fixed_large", variances), ("fixed_large_log", log_variances)]:
        expected = [scheduler._get_variance(t, variance_type=kind).item() for t in range(1, T)]
        np.testing.assert_allclose(table[1:], expected, rtol=1e-11)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_added_in_one_leap_to_every_step(name):
    schedule = ours(name)
    images, noise, t = some_images(), some_noise(1), np.arange(T, dtype="int32")
    got = ops.convert_to_numpy(q_sample(schedule, images, t, noise))
    tensors = [torch.from_numpy(array) for array in (images, noise, t.astype("int64"))]
    assert difference(got, theirs(schedule).add_noise(*tensors)) < TOLERANCE


# ---------------------------------------------------------------------------------------------
# One step back
# ---------------------------------------------------------------------------------------------


def some_images():
    """One image for each step, float64 in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1, 1, (T, *SHAPE))


def some_noise(seed):
    return np.random.default_rng(seed).standard_normal((T, *SHAPE))


def some_answers(schedule, prediction, variance):
    """What a middling network could say at each step, off by a quarter of the noise.

    With a learned variance the second half of the channels is a logarithm between those of the two
    fixed variances.
    """
    guess = some_noise(1) + 0.25 * some_noise(2)
    answers = some_images() + 0.25 * guess if prediction == "x_start" else guess
    if variance != "learned":
        return answers
    _, small = fixed_variance(schedule, "fixed_small")
    _, large = fixed_variance(schedule, "fixed_large")
    share = np.random.default_rng(3).uniform(size=(T, *SHAPE))
    column = (slice(None), None, None, None)
    return np.concatenate([answers, share * small[column] + (1 - share) * large[column]], axis=-1)


def always(answers):
    """A network that says the same whatever it is asked."""
    return lambda shown, training: ops.convert_to_tensor(answers, dtype="float32")


def exponential_of_the_second_half(answers):
    """diffusers takes the second half of the channels for the variance itself."""
    first, second = np.split(answers, 2, axis=-1)
    return np.concatenate([first, np.exp(second)], axis=-1)


def every_step_of(scheduler, answers, x_t, noise):
    """diffusers' step at t = 0 … T-1, each with an image of its own: x_{t-1} and x_0."""
    answers, x_t, noise = (channels_first(array) for array in (answers, x_t, noise))
    steps = [
        step_of(scheduler, answers[t, None], t, x_t[t, None], noise[t, None]) for t in range(T)
    ]
    both = ([getattr(s, name) for s in steps] for name in ("prev_sample", "pred_original_sample"))
    return tuple(channels_last(torch.cat(tensors)) for tensors in both)


@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("variance", "their_variance"), VARIANCES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_one_step_back_from_every_step(name, variance, their_variance, prediction, clip):
    schedule, noise, t = ours(name), some_noise(4), np.arange(T, dtype="int32")
    rate = schedule.alphas_cumprod[:, None, None, None]
    x_t = np.sqrt(rate) * some_images() + np.sqrt(1 - rate) * some_noise(1)
    answers = some_answers(schedule, prediction, variance)
    denoise = Denoiser(always(answers), schedule, prediction, variance, clip)
    got = p_sample(denoise, schedule, x_t, t, noise)
    same, _ = ddpm_step(denoise, schedule, x_t, t, t - 1, noise)
    guess = p_mean_variance(denoise, schedule, x_t, t).x_start
    scheduler = theirs(
        schedule,
        variance_type=their_variance,
        prediction_type=PREDICTIONS[prediction],
        clip_sample=clip,
    )
    their_answers = exponential_of_the_second_half(answers) if variance == "learned" else answers
    expected, their_guess = every_step_of(scheduler, their_answers, x_t, noise)
    assert difference(ops.convert_to_numpy(got), expected) < TOLERANCE
    assert difference(ops.convert_to_numpy(same), expected) < TOLERANCE
    if prediction == "noise":  # a difference of two numbers that many times as large
        their_guess, guess = their_guess * np.sqrt(rate), guess * np.sqrt(rate)
    assert difference(ops.convert_to_numpy(guess), their_guess) < TOLERANCE


def test_a_predicted_mean_is_where_their_step_leads():
    """With prediction="x_prev" the answer is the mean; theirs is its step without noise."""
    schedule, noise, t = ours("linear"), some_noise(4), np.arange(T, dtype="int32")
    x_t, answers = some_noise(5), some_answers(schedule, "x_start", "fixed_small")
    scheduler = theirs(schedule, prediction_type="sample", clip_sample=False)
    mean, _ = every_step_of(scheduler, answers, x_t, np.zeros_like(noise))
    expected, x_start = every_step_of(scheduler, answers, x_t, noise)
    denoise = Denoiser(always(mean), schedule, "x_prev", clip=False)
    step = p_mean_variance(denoise, schedule, x_t, t)
    got = p_sample(denoise, schedule, x_t, t, noise)
    assert difference(ops.convert_to_numpy(got), expected) < TOLERANCE
    # The guess of x_0 is divided by a coefficient that falls to 1e-4, and so is its rounding.
    errors = np.abs(ops.convert_to_numpy(step.x_start) - x_start).max(axis=(1, 2, 3))
    assert (errors * schedule.posterior_mean_coef1).max() < TOLERANCE


def test_the_schedule_that_ends_in_nothing_but_noise():
    """jsd, with prediction of x_0; diffusers can do that too."""
    schedule, noise, t = ours("jsd"), some_noise(4), np.arange(T, dtype="int32")
    x_t, answers = some_noise(5), some_answers(schedule, "x_start", "fixed_small")
    got = p_sample(Denoiser(always(answers), schedule, "x_start"), schedule, x_t, t, noise)
    scheduler = theirs(schedule, prediction_type="sample")
    expected, _ = every_step_of(scheduler, answers, x_t, noise)
    assert difference(ops.convert_to_numpy(got), expected) < TOLERANCE


# ---------------------------------------------------------------------------------------------
# The whole way
# ---------------------------------------------------------------------------------------------


class Network:
    """Random but always the same: it guesses x_0 as 1.5 tanh(x_t W + b), or the noise for that.

    Like a trained network, and unlike one that says any noise, it forgets in later steps what was
    wrong in earlier ones; otherwise a rounding would grow by √(1/ᾱ) on the whole way, 157 times.
    """

    def __init__(self, schedule, prediction, variance):
        rng = np.random.default_rng(7)
        pixels = int(np.prod(SHAPE))
        self.weights = rng.standard_normal((pixels, pixels)) / np.sqrt(pixels)
        self.bias = rng.standard_normal(pixels)
        self.schedule, self.prediction, self.variance = schedule, prediction, variance

    def __call__(self, shown, training=False):
        """Answer in NumPy, in double precision; all images are at the same step."""
        x_t, t = (ops.convert_to_numpy(x) for x in shown)
        x_t, t = x_t.astype("float64"), int(t[0])
        flat = x_t.reshape(len(x_t), -1)
        guess = 1.5 * np.tanh(flat @ self.weights + self.bias)
        signal = self.schedule.alphas_cumprod[t]
        noise = (flat - np.sqrt(signal) * guess) / np.sqrt(1 - signal)
        answer = (noise if self.prediction == "noise" else guess).reshape(x_t.shape)
        if self.variance != "learned":
            return answer
        log_variance = self.schedule.posterior_log_variance_clipped[t] + 0.5 * guess**2
        return np.concatenate([answer, log_variance.reshape(x_t.shape)], axis=-1)


def recorded_loop(network, schedule, monkeypatch, clip=True, **options):
    """Our loop from a seed, and all the noise that it has drawn: the start, then each step's."""
    drawn = []
    draw = keras.random.normal

    def draw_and_record(*args, **kwargs):
        noise = draw(*args, **kwargs)
        drawn.extend([noise] if not drawn else noise)  # the start, and then many steps at a time
        return noise

    monkeypatch.setattr(keras.random, "normal", draw_and_record)
    denoise = Denoiser(network, schedule, network.prediction, network.variance, clip)
    images = p_sample_loop(denoise, schedule, (2, *SHAPE), seed=11, **options)
    return ops.convert_to_numpy(images), [ops.convert_to_numpy(noise) for noise in drawn]


def their_loop(network, scheduler, noises, dtype=torch.float64):
    """The loop of diffusers' own pipeline, with this noise."""
    x = channels_first(noises[0]).to(dtype)
    for t, noise in zip(scheduler.timesteps.tolist(), noises[1:], strict=True):
        answer = network([channels_last(x), np.full(len(x), t)])
        if network.variance == "learned":
            answer = exponential_of_the_second_half(answer)
        answer, noise = channels_first(answer).to(dtype), channels_first(noise).to(dtype)
        x = step_of(scheduler, answer, t, x, noise).prev_sample
    return channels_last(x)


@pytest.mark.parametrize(
    ("name", "prediction", "variance", "clip"),
    [
        ("linear", "noise", "fixed_small", True),
        ("linear", "noise", "fixed_small", False),
        ("linear", "noise", "fixed_large", True),
        ("linear", "noise", "fixed_large", False),
        ("linear", "noise", "learned", True),
        ("linear", "noise", "learned", False),
        ("linear", "x_start", "fixed_large", True),
        ("linear", "x_start", "learned", False),
        ("cosine", "noise", "fixed_small", True),
        ("cosine", "noise", "fixed_large", False),
        ("cosine", "noise", "learned", True),
        ("cosine", "x_start", "fixed_small", False),
    ],
)
def test_the_whole_way_with_the_same_noise(name, prediction, variance, clip, monkeypatch):
    """All 1000 steps, the noise of each being that which our loop has drawn."""
    schedule = ours(name)
    network = Network(schedule, prediction, variance)
    got, noises = recorded_loop(network, schedule, monkeypatch, clip)
    assert len(noises) == 1 + T
    scheduler = theirs(
        schedule,
        variance_type=variance,
        prediction_type=PREDICTIONS[prediction],
        clip_sample=clip,
    )
    expected = their_loop(network, scheduler, noises)
    assert expected.std() > 0.3
    assert (np.abs(expected).max() <= 1) == clip
    assert difference(got, expected) < TOLERANCE


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [10, 50])
def test_the_whole_way_in_fewer_steps(name, variance, steps, monkeypatch):
    """The same noise levels are visited, with the posterior of the long step between two.

    Where the last of them is not t = 0, theirs adds noise to the image in the end. So it is given
    none there. And the answer is x_0: a guess of the noise at t = 999 of the cosine schedule would
    be magnified 20,000 times, with its rounding, and long steps make much of it.
    """
    schedule = ours(name)
    network = Network(schedule, "x_start", variance)
    got, noises = recorded_loop(network, schedule, monkeypatch, steps=steps)
    scheduler = theirs(schedule, variance_type=variance, prediction_type="sample")
    scheduler.set_timesteps(timesteps=times(schedule, steps))
    noises[-1] = np.zeros_like(noises[-1])
    assert difference(got, their_loop(network, scheduler, noises)) < TOLERANCE


@pytest.mark.parametrize("name", SHARED)
def test_the_whole_way_of_diffusers_as_it_comes(name, monkeypatch):
    """With its own β, tables and images, all float32, it is off by 1e-4 after 1000 steps.

    That is its tables: once they are in double, its float32 images agree to 1e-6 as well.
    """
    schedule = ours(name)
    network = Network(schedule, "noise", "fixed_small")
    got, noises = recorded_loop(network, schedule, monkeypatch)
    scheduler = DDPMScheduler(beta_schedule=SHARED[name])
    assert difference(got, their_loop(network, scheduler, noises, torch.float32)) < 3e-4
    in_double(scheduler)
    assert difference(got, their_loop(network, scheduler, noises, torch.float32)) < TOLERANCE
