"""Backward sampling: from pure noise to an image, one step at a time.

Equation and algorithm numbers are those of Ho et al. 2020 (arXiv 2006.11239). Throughout,

- ``denoise`` is a *denoise function*: any callable ``(x_t, t, *labels) -> x_start`` that says which
  clean images lie behind noisy ones, such as a trained model's ``denoise``, a :class:`Denoiser`
  around any network, or the exact one of a finite data set (``exact_denoiser``);
- ``schedule`` is the noise schedule, of T steps, and ``x_t`` are noisy images ``(batch, …)``;
- ``t``, int32 ``(batch,)``, is where each stands in 0 … T-1; ``s`` where it is to go, -1 is clean;
  both may be real, float32, and then lie between steps (``NoiseSchedule.rates``);
- ``noise`` or ``z`` is standard normal, of the shape of ``x_t``;
- ``variance``, of a step back, is ``"fixed_small"``, ``"fixed_large"`` or ``"learned"``; None takes
  the denoise function's own, its attribute ``variance``, or else ``"fixed_small"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.checks import within
from diffusion_walkthrough.engine.drawing import bound, check_options, kind_of, steps_in_one_call
from diffusion_walkthrough.engine.labels import checked_told, telling
from diffusion_walkthrough.engine.noise import NoiseOfPart, WalkNoise, checked_clean, generator_of
from diffusion_walkthrough.forward_diffusion import (
    as_float32,
    check_same_shape,
    q_posterior_mean_variance,
    q_sample,
)
from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract, is_real
from diffusion_walkthrough.parameters import VARIANCE_NAMES
from diffusion_walkthrough.predictions import (
    SMALLEST,
    Denoiser as Denoiser,
    check_answer,
    check_variance,
)

DenoiseFn = Callable[..., Any]

#: A walk may take noise for x_t where no more than this is left of the image, the rate a of Eq. 4.
MOST_LEFT_IN_NOISE = 0.1


class BackwardStep(NamedTuple):
    """What the denoise function implies for one step back, p(x_{t-1} | x_t)."""

    mean: Any  # (batch, …)
    variance: Any  # (batch, 1, …, 1), or (batch, …) if learned
    log_variance: Any  # likewise
    x_start: Any  # (batch, …), the guess of the clean image


class Stop(NamedTuple):
    """One stop on the way from noise to images."""

    x: Any  # (batch, …), how far the images have come
    x_start: Any  # (batch, …), what they were thought to become in the step that led here, or None
    t: float  # the noise step at which x stands, whole or real: T-1 is pure noise, -1 images


def p_mean_variance(
    denoise: DenoiseFn, schedule: NoiseSchedule, x_t: Any, t: Any, variance: str | None = None
) -> BackwardStep:
    """Work out p(x_{t-1} | x_t): guess x_0, hence the posterior mean (Eq. 7).

    Where no guess is clipped, that is the mean of Eq. 11; clipping is the original program's.
    """
    x_t = as_float32(x_t)
    x_start, log_variance, name = _asked(denoise, x_t, t, variance)
    mean, _, _ = q_posterior_mean_variance(schedule, x_start, x_t, t)
    if name == "learned":
        return BackwardStep(mean, ops.exp(log_variance), log_variance, x_start)
    small_or_large = fixed_variance(schedule, name)
    of_step, log_of_step = (extract(table, t, len(x_t.shape)) for table in small_or_large)
    return BackwardStep(mean, of_step, log_of_step, x_start)


def fixed_variance(schedule: NoiseSchedule, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Look up the tables of variance and log variance, each float64 ``(T,)``.

    ``"fixed_small"`` is β̃ of Eq. 7, right if the data were a single image; ``"fixed_large"`` is
    β, right if the data were standard normal noise. Both take the log of β̃ at t = 1 for t = 0.
    """
    check_variance(variance, VARIANCE_NAMES[:2])
    if variance == "fixed_small":
        return schedule.posterior_variance, schedule.posterior_log_variance_clipped
    first = np.exp(schedule.posterior_log_variance_clipped[0])
    return schedule.betas, np.log(np.append(first, schedule.betas[1:]))


def p_sample(
    denoise: DenoiseFn, schedule: NoiseSchedule, x_t: Any, t: Any, noise: Any, variance: Any = None
) -> Any:
    """Take one step back: x_{t-1} = mean + σ z (Algorithm 2), with z = 0 at the last step."""
    step = p_mean_variance(denoise, schedule, x_t, t, variance)
    moved = step.mean + ops.exp(0.5 * step.log_variance) * as_float32(noise)
    return ops.where(_is_clean(ops.convert_to_tensor(t) - 1, step.mean), step.mean, moved)


def ddpm_step(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    s: Any,
    z: Any,
    variance: Any = None,
) -> tuple[Any, Any]:
    """Step as :func:`p_sample` does, but to any s below t; return x_s and the guess of x_0.

    A long step is one of a schedule without the noise levels in between: Eqs. 6 and 7 hold with its
    α and β. A learned variance is that of a step to t - 1.
    """
    x_t, t, s = as_float32(x_t), ops.convert_to_tensor(t), ops.convert_to_tensor(s)
    x_start, log_variance, name = _asked(denoise, x_t, t, variance)
    of_x_start, of_x_t, small, beta = step_weights(schedule, t, s, len(x_t.shape))
    mean = of_x_start * x_start + of_x_t * x_t
    sigma = ops.sqrt(beta if name == "fixed_large" else small)
    if name == "learned":
        sigma = ops.exp(0.5 * log_variance)
    return ops.where(_is_clean(s, x_t), x_start, mean + sigma * as_float32(z)), x_start


def step_weights(schedule: NoiseSchedule, t: Any, s: Any, ndim: int) -> tuple[Any, ...]:
    """Work out q(x_s | x_t, x_0): the weights of x_0 and x_t in its mean, its variance, and β.

    Each is ``(batch, 1, …, 1)``; α and β are those of a single step of noise from s to t.
    """
    if is_real(t) or is_real(s):
        return _step_weights_between(schedule, t, s, ndim)
    log_kept = np.append(0.0, np.maximum(schedule.log_alphas_cumprod, -1e4))  # of s = -1 at first
    # A difference of two is too coarse in float32: what rounding leaves over is kept beside them.
    rates = schedule.rates(np.arange(-1, len(schedule)), 1)
    levels = np.stack([log_kept, log_kept - np.float32(log_kept), *rates], axis=1)  # (T + 1, 4)
    table = ops.convert_to_tensor(levels, "float32")
    log_t, rest_t, _, b_t = ops.unstack(ops.take(table, t + 1, axis=0), 4, axis=1)
    log_s, rest_s, a_s, b_s = ops.unstack(ops.take(table, s + 1, axis=0), 4, axis=1)
    log_alpha = (log_t - log_s) + (rest_t - rest_s)
    beta, noise_kept = -ops.expm1(log_alpha), ops.square(b_s / b_t)
    weights = a_s * beta / ops.square(b_t), ops.exp(0.5 * log_alpha) * noise_kept
    shape = (-1,) + (1,) * (ndim - 1)
    return tuple(ops.reshape(x, shape) for x in (*weights, beta * noise_kept, beta))


def _step_weights_between(schedule: NoiseSchedule, t: Any, s: Any, ndim: int) -> tuple[Any, ...]:
    """The same at real t or s, from the share of the noise that is left: b_s / a_s of b_t / a_t."""
    (a_t, b_t), (a_s, b_s) = schedule.rates(t, ndim), schedule.rates(s, ndim)
    left = a_t * b_s / ops.maximum(a_s * b_t, SMALLEST)  # where nothing is, nothing is left
    gone = 1.0 - ops.square(left)
    return a_s * gone, left * b_s / b_t, gone * ops.square(b_s), gone * ops.square(b_t)


def times(
    schedule: NoiseSchedule,
    steps: int | Sequence[float] | np.ndarray | None = None,
    start: int | None = None,
) -> list[float]:
    """List the t at which a walk asks: ``steps`` of them (None: all), evenly from ``start`` down.

    ``steps`` may be such a list itself, whole or real numbers that fall, of a walk that begins with
    the first of them. Raises ValueError if ``start`` (None: T-1) or a listed t is not in 0 … T-1,
    if ``steps`` is not in 1 … start + 1, or if a list does not fall.
    """
    steps = steps.tolist() if isinstance(steps, np.ndarray) else steps
    if isinstance(steps, Sequence):
        return _checked_times(schedule, list(steps), start)
    start = within("start", start, 0, len(schedule) - 1)
    steps = within("steps", steps, 1, start + 1)
    places = start + 1 - (start + 1) * np.arange(steps) / steps
    return [int(place) - 1 for place in np.round(places)]


def _checked_times(schedule: NoiseSchedule, listed: list[Any], start: int | None) -> list[float]:
    last = len(schedule) - 1
    fits = listed and all(isinstance(t, (int, float, np.integer, np.floating)) for t in listed)
    fits = fits and not any(isinstance(t, bool) for t in listed)
    if not (fits and last >= listed[0] and listed[-1] >= 0 and all(np.diff(listed) < 0)):
        raise ValueError(
            f"steps = {listed} must be a whole number, or a list of numbers that fall, all in "
            f"0 … {last}. Use for example times(schedule, 10)."
        )
    if start not in (None, listed[0]):
        raise ValueError(
            f"start = {start}, but the list of steps begins with {listed[0]}. Leave out start."
        )
    return listed


def stops(
    step: Callable[..., Any],
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    shape: Sequence[int],
    *,
    steps: int | Sequence[float] | None = None,
    start: int | None = None,
    seed: Any = None,
    x_T: Any = None,
    shared_noise_steps: int | None = None,
    told: Sequence[Any] = (),
    every_stop: bool = True,
    **own: Any,
) -> Iterator[Stop]:
    """Walk from noise to images and hand out every stop: the start, and the end of each step.

    Args:
        step: a kind of step, such as :func:`ddpm_step`, whose arguments and result it has.
        steps, start: how many, evenly spaced, or the t at which to ask; see :func:`times`.
        x_T, seed: what stands at the start, noise if None; seed of all noise, or a SeedGenerator.
        shared_noise_steps: for how many steps the batch shares its noise; 0 for the start alone.
        told: what ``denoise`` is told beside x_t and t, such as labels, each ``(batch, …)``.
        every_stop, own: False leaves out most, which is faster; options of the step.
    """
    visited = [*_times_from_noise(schedule, steps, start, x_T), -1]
    if "variance" in check_options(step, own):
        _check_not_learned(denoise, own.get("variance"), visited)
    told, one_step = checked_told(denoise, told, shape[0]), bound(step, own)
    noise = WalkNoise(shape, len(visited) - 1, seed, shared_noise_steps)
    asked, take_steps = telling(denoise, told), None if every_stop else steps_in_one_call(denoise)
    x = x_start = noise.start(x_T)
    yield Stop(x, None, visited[0])
    way, kind = [-1, *visited], kind_of(visited)  # no step has led to the first stop
    for place, zs in noise.strides():
        ahead = way[place : place + len(zs) + 2]
        if take_steps:
            x, x_start = take_steps(step, denoise, schedule, (x, x_start), ahead, zs, own, told)
            yield Stop(x, None, ahead[-1])
            continue
        for i, z in enumerate(zs):
            before, t, s = (ops.full(shape[:1], stop, dtype=kind) for stop in ahead[i : i + 3])
            both = one_step(asked, schedule, x, t, s, z, before=(before, x_start))
            x, x_start = map(ops.stop_gradient, both)  # or PyTorch would keep it all in memory
            yield Stop(x, x_start, ahead[i + 2])


def _times_from_noise(schedule: NoiseSchedule, steps: Any, start: Any, x_T: Any) -> list[float]:
    """The same as ``times``, once it is sure that the walk has something to begin with."""
    asked = times(schedule, steps, start)
    left, _ = schedule.rates(np.array(asked[:1]), 1)
    if x_T is None and asked[0] < len(schedule) - 1 and left > MOST_LEFT_IN_NOISE:
        raise ValueError(
            f"start = {asked[0]} of {len(schedule) - 1} begins with images that are noisy: pass "
            "them as x_T, for example q_sample(schedule, images, t, noise) with t = start."
        )
    return asked


def walk(
    step: Callable[..., Any],
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    shape: Sequence[int],
    *,
    progress: bool = False,
    **options: Any,
) -> Any:
    """Walk from noise to images, a float32 tensor of ``shape``; the options: see :func:`stops`.

    ``progress`` shows a bar. A trained model's denoise function takes many steps in one call.
    """
    visited = [*times(schedule, options.get("steps"), options.get("start")), -1]
    bar = keras.utils.Progbar(len(visited) - 1, unit_name="step") if progress else None
    for stop in stops(step, denoise, schedule, shape, every_stop=False, **options):
        if bar:
            bar.update(visited.index(stop.t))
    return stop.x


def p_sample_loop(
    denoise: DenoiseFn, schedule: NoiseSchedule, shape: Sequence[int], **options: Any
) -> Any:
    """Walk from noise to images as DDPM does (Algorithm 2): :func:`walk` with its step."""
    return walk(ddpm_step, denoise, schedule, shape, **options)


def p_sample_loop_progressive(
    denoise: DenoiseFn, schedule: NoiseSchedule, shape: Sequence[int], **options: Any
) -> Iterator[Stop]:
    """Walk from noise to images as DDPM does, stop by stop: :func:`stops` with its step."""
    return stops(ddpm_step, denoise, schedule, shape, **options)


def p_sample_loop_trajectory(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    shape: Sequence[int],
    *,
    stops: int = 11,
    x_start: bool = False,
    **options: Any,
) -> tuple[list[float], np.ndarray]:
    """Walk as DDPM does and keep pictures of ``stops`` evenly spaced stops, the last at t = -1.

    With ``x_start``, they show what the images were thought to become, from the first step on.
    Returns the t of each stop, and the pictures, float32 NumPy ``(stops, batch, …)``.
    """
    walked = len(times(schedule, options.get("steps"), options.get("start")))
    stops = within("stops", stops, 2, walked + 1 - x_start)
    wanted = np.round(np.linspace(int(x_start), walked, stops))
    way = enumerate(p_sample_loop_progressive(denoise, schedule, shape, **options))
    kept = [stop for taken, stop in way if taken in wanted]
    pictures = [ops.convert_to_numpy(stop.x_start if x_start else stop.x) for stop in kept]
    return [stop.t for stop in kept], np.stack(pictures)


def interpolate(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    image_1: Any,
    image_2: Any,
    t: int,
    weights: Sequence[float] | np.ndarray = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    *,
    seed: int | None = None,
    **options: Any,
) -> Any:
    """Draw images that lie between two others: mix their noisy versions, then walk back.

    Both images, ``(…)`` in [-1, 1] without a batch axis, get ``t`` + 1 steps of noise, each its
    own; the noisy images are mixed, (1-λ) x_t + λ x'_t for each λ of ``weights``; and the way back
    is walked from there (section 4.4 of the paper), by default with the same noise for every λ.
    That is the double exposure of the clean images under noise of a smaller variance, (1-λ)² + λ²
    times 1-ᾱ: at small t it stays one; with enough noise, the way back makes an image of it.

    Returns float32 ``(len(weights), …)``; ``options`` are those of :func:`p_sample_loop`. Raises
    ValueError for images that do not lie in [-1, 1], or differ in shape, and for other weights.
    """
    generator = generator_of(seed)
    options.setdefault("shared_noise_steps", len(times(schedule, options.get("steps"), t)))
    images = as_float32(checked_clean(image_1))[None], as_float32(checked_clean(image_2))[None]
    check_same_shape(*images, "image_1", "image_2", "only images of the same size can be mixed")
    share = np.asarray(weights, "float32").reshape((-1,) + (1,) * len(images[0].shape[1:]))
    if not share.size or not (share.min() >= 0 and share.max() <= 1):
        raise ValueError(f"weights = {weights} must be a list of numbers from 0 to 1.")
    noises = (NoiseOfPart(generator, 1).draw(image.shape) for image in images)
    noisy_1, noisy_2 = (q_sample(schedule, x, [t], z) for x, z in zip(images, noises, strict=True))
    mixed = as_float32(1 - share) * noisy_1 + as_float32(share) * noisy_2
    options = {"seed": generator, "x_T": mixed, "start": t, **options}
    return p_sample_loop(denoise, schedule, mixed.shape, **options)


def _is_clean(s: Any, like: Any) -> Any:
    return ops.reshape(s < 0, (-1,) + (1,) * (len(like.shape) - 1))


def _asked(denoise: Any, x_t: Any, t: Any, variance: str | None) -> tuple[Any, Any, str]:
    """The guess of x_0, the log variance if it is learned, and the name of the variance."""
    name = _chosen_variance(denoise, variance)
    if name == "learned":
        return (*denoise.with_variance(x_t, t), name)
    return guess_x_start(denoise, x_t, t), None, name


def guess_x_start(denoise: DenoiseFn, x_t: Any, t: Any) -> Any:
    """Ask a denoise function; ValueError unless it answers with one number for each pixel."""
    x_start = as_float32(denoise(x_t, t))
    check_answer(x_start, x_t)
    return x_start


def _chosen_variance(denoise: DenoiseFn, variance: str | None) -> str:
    own = getattr(denoise, "variance", None)
    knows_it = own == "learned" or (own is None and hasattr(denoise, "with_variance"))
    name = variance or own or "fixed_small"
    check_variance(name, VARIANCE_NAMES if knows_it else VARIANCE_NAMES[:2])
    return name


def _check_not_learned(denoise: DenoiseFn, variance: str | None, visited: list[float]) -> None:
    all_steps = list(range(int(visited[0]), -2, -1))
    if visited != all_steps and _chosen_variance(denoise, variance) == "learned":
        raise ValueError(
            "steps leave out noise levels, but a learned variance is that of a step to the next "
            "one. Walk all steps, or use variance='fixed_small'."
        )
