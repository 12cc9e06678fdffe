"""Backward sampling: from pure noise to an image, one small step at a time.

Equation and algorithm numbers are those of Ho et al. 2020 (arXiv 2006.11239). Everything here
takes a *denoise function*, any callable ``(x_t, t) -> prediction``: a network, a trained model's
``denoise``, or the exact :func:`optimal_denoiser` of a finite data set. What it predicts is said by
``prediction``: ``"noise"``, ``"x_start"`` (the clean image) or ``"x_prev"`` (the mean of the step
back). With ``variance="learned"`` it answers with twice the channels, the second half being the
logarithm of the variance of the step back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from keras.random import SeedGenerator

from diffusion_walkthrough.forward_diffusion import (
    as_float32,
    predict_noise_from_x_start,
    predict_x_start_from_noise,
    predict_x_start_from_x_prev,
    q_posterior_mean_variance,
    q_sample,
    same_shape,
)
from diffusion_walkthrough.fused import normals
from diffusion_walkthrough.noise_schedule import NoiseSchedule, extract
from diffusion_walkthrough.parameters import PREDICTION_NAMES

DenoiseFn = Callable[[Any, Any], Any]

#: How many steps a compiled network takes in one call.
STRIDE = 25


class BackwardStep(NamedTuple):
    """What the denoise function implies for one step back, p(x_{t-1} | x_t)."""

    mean: Any  # (batch, …)
    variance: Any  # (batch, 1, …, 1), or (batch, …) if learned
    log_variance: Any  # likewise
    x_start: Any  # (batch, …), the guess of the clean image


class Stop(NamedTuple):
    """One stop on the way from noise to images."""

    steps_left: int  # from T (pure noise) to 0 (images)
    x: Any  # (batch, …), how far the images have come
    x_start: Any  # (batch, …), what they were thought to become in the step that led here, or None


def fixed_variance(schedule: NoiseSchedule, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Look up the tables of variance and log variance, each float64 ``(T,)``.

    ``"fixed_small"`` is β̃ of Eq. 7, right if the data were a single image; ``"fixed_large"`` is
    β, right if the data were standard normal noise. Both take the log of β̃ at t = 1 for t = 0.

    Raises:
        ValueError: if ``variance`` is neither.
    """
    if variance == "fixed_small":
        return schedule.posterior_variance, schedule.posterior_log_variance_clipped
    if variance == "fixed_large":
        first = np.exp(schedule.posterior_log_variance_clipped[0])
        return schedule.betas, np.log(np.append(first, schedule.betas[1:]))
    raise ValueError(
        f"variance = {variance!r} must be one of ('fixed_small', 'fixed_large'), or 'learned' where"
        " a network predicts it: choose 'fixed_small' for few steps, 'fixed_large' for the "
        "digits, or to repeat the paper on CIFAR-10."
    )


def check_prediction(schedule: NoiseSchedule, prediction: str) -> None:
    """Refuse an unknown prediction, and that of noise where nothing but noise is left.

    Raises:
        ValueError: naming the reason and the remedy.
    """
    if prediction not in PREDICTION_NAMES:
        raise ValueError(f"prediction = {prediction!r} must be one of {PREDICTION_NAMES}.")
    if prediction == "noise" and schedule.alphas_cumprod[-1] == 0:
        raise ValueError(
            "prediction = 'noise' cannot be used with this schedule: after its last step nothing "
            "is left of the image (ᾱ = 0), so that no guess of the noise says what the image was; "
            "Eq. 15 divides by √ᾱ, and the first step back would be NaN. Predict 'x_start', or "
            "use another schedule, such as make_betas('cosine', 1000)."
        )


def predict_x_start(
    schedule: NoiseSchedule, x_t: Any, t: Any, answer: Any, prediction: str = "noise"
) -> Any:
    """Work out which clean image a prediction implies: Eq. 15, or Eq. 7 solved for x_0.

    Args:
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 ``(batch,)``.
        answer: what was predicted, same shape as ``x_t``.
        prediction: ``"noise"``, ``"x_start"`` or ``"x_prev"``.

    Returns:
        The clean image, same shape; not clipped.

    Raises:
        ValueError: as :func:`check_prediction`.
    """
    check_prediction(schedule, prediction)
    if prediction == "noise":
        return predict_x_start_from_noise(schedule, x_t, t, answer)
    if prediction == "x_prev":
        return predict_x_start_from_x_prev(schedule, x_t, t, answer)
    return as_float32(answer)


def predict_from_x_start(
    schedule: NoiseSchedule, x_t: Any, t: Any, x_start: Any, prediction: str = "noise"
) -> Any:
    """Work out which prediction a clean image implies: the inverse of :func:`predict_x_start`.

    The shapes, the names and the errors are those of :func:`predict_x_start`.
    """
    check_prediction(schedule, prediction)
    if prediction == "noise":
        return predict_noise_from_x_start(schedule, x_t, t, x_start)
    if prediction == "x_prev":
        return q_posterior_mean_variance(schedule, x_start, x_t, t)[0]
    return as_float32(x_start)


def backward_step(
    answer: Any,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    variance: str = "fixed_small",
    clip: bool = True,
    prediction: str = "noise",
) -> BackwardStep:
    """Work out p(x_{t-1} | x_t) from what a denoise function has answered (Eqs. 7, 11, 15).

    The arguments are those of :func:`p_mean_variance`, with ``answer`` in the place of the denoise
    function that gave it. A predicted ``"x_prev"`` is the mean as it stands: ``clip`` then holds
    only the guess of x_0, which is shown and not used.
    """
    x_t, answer = as_float32(x_t), as_float32(answer)
    answer, variances, log_variances = _split_variance(answer, schedule, x_t, t, variance)
    check_answer(answer, x_t, variance)
    x_start = predict_x_start(schedule, x_t, t, answer, prediction)
    if clip:
        x_start = ops.clip(x_start, -1.0, 1.0)
    mean = answer
    if prediction != "x_prev":
        mean, _, _ = q_posterior_mean_variance(schedule, x_start, x_t, t)
    return BackwardStep(mean, variances, log_variances, x_start)


def _split_variance(
    answer: Any, schedule: NoiseSchedule, x_t: Any, t: Any, variance: str
) -> tuple[Any, Any, Any]:
    """Take apart prediction, variance and log variance; a fixed variance is looked up."""
    ndim = len(x_t.shape)
    if variance != "learned":
        variances, log_variances = fixed_variance(schedule, variance)
        return answer, extract(variances, t, ndim), extract(log_variances, t, ndim)
    if answer.shape[-1] != 2 * x_t.shape[-1]:
        raise ValueError(
            f"variance = 'learned' needs an answer with {2 * x_t.shape[-1]} channels, the second "
            f"half for the log variance, but it has shape {tuple(answer.shape)}. Build the network "
            "with learned_variance=True, or use a fixed variance."
        )
    answer, log_variances = ops.split(answer, 2, axis=-1)
    return answer, ops.exp(log_variances), log_variances


def check_answer(answer: Any, x_t: Any, variance: str) -> None:
    """Refuse an answer that is not one number for each pixel: it would broadcast to nonsense.

    Raises:
        ValueError: naming both shapes, and the remedy.
    """
    if not same_shape(answer, x_t):
        raise ValueError(
            f"denoise_fn answered with shape {tuple(answer.shape)} to x_t of shape "
            f"{tuple(x_t.shape)}; with variance = {variance!r} it must predict one number for "
            "each pixel. A network with a learned variance needs variance='learned'."
        )


def p_mean_variance(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    variance: str = "fixed_small",
    clip: bool = True,
    prediction: str = "noise",
) -> BackwardStep:
    """Work out p(x_{t-1} | x_t): guess the noise, hence x_0, hence the posterior mean (Eq. 11).

    Args:
        denoise_fn: callable ``(x_t, t) -> prediction``.
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 ``(batch,)``.
        variance: ``"fixed_small"``, ``"fixed_large"`` or ``"learned"``.
        clip: whether to hold the guessed x_0 within [-1, 1]; turn it off for data that are not
            images.
        prediction: what ``denoise_fn`` predicts, ``"noise"``, ``"x_start"`` or ``"x_prev"``.

    Returns:
        Mean, variance, log variance and the guessed x_0.

    Raises:
        ValueError: if the prediction does not fit the schedule, the answer has the wrong shape, or
            a name is none of those above.
    """
    answer = denoise_fn(x_t, t)
    return backward_step(answer, schedule, x_t, t, variance, clip, prediction)


def p_sample(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    noise: Any,
    variance: str = "fixed_small",
    clip: bool = True,
    prediction: str = "noise",
) -> Any:
    """Take one step back: x_{t-1} = mean + σ z (Algorithm 2), with z = 0 at the last step.

    Args:
        denoise_fn: callable ``(x_t, t) -> prediction``.
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 ``(batch,)``; images at t = 0 get no new noise.
        noise: standard normal, same shape as ``x_t``: the z of Algorithm 2.
        variance: ``"fixed_small"``, ``"fixed_large"`` or ``"learned"``.
        clip: whether to hold the guessed x_0 within [-1, 1].
        prediction: what ``denoise_fn`` predicts, ``"noise"``, ``"x_start"`` or ``"x_prev"``.

    Returns:
        x_{t-1}, same shape as ``x_t``.
    """
    step = p_mean_variance(denoise_fn, schedule, x_t, t, variance, clip, prediction)
    return add_step_noise(step, t, noise)


def add_step_noise(step: BackwardStep, t: Any, noise: Any) -> Any:
    """Draw from p(x_{t-1} | x_t): mean + σ z, but the mean alone where t = 0 (Algorithm 2)."""
    not_last = ops.convert_to_tensor(t) > 0
    not_last = ops.reshape(not_last, (-1,) + (1,) * (len(step.mean.shape) - 1))
    step_noise = ops.exp(0.5 * step.log_variance) * as_float32(noise)
    return step.mean + ops.where(not_last, step_noise, 0.0)


def p_sample_loop_progressive(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    seed: Any = None,
    x_T: Any = None,
    steps: int | None = None,
    shared_noise_steps: int | None = None,
    **options: Any,
) -> Iterator[Stop]:
    """Walk from noise to images and hand out every stop on the way (Algorithm 2).

    Args:
        denoise_fn: callable ``(x_t, t) -> prediction``.
        schedule: the noise schedule.
        shape: shape of the result, ``(batch, height, width, channels)`` or any ``(batch, …)``.
        seed: makes the result repeatable; None draws a new one each time. A ``SeedGenerator`` of
            Keras goes on where it stands.
        x_T: noise to start from, drawn if None.
        steps: how many steps to walk, from 1 to T; None for all. With fewer, ``x_T`` must be given:
            images after that many steps of noise.
        shared_noise_steps: for how many steps, counted from the start, the whole batch gets the
            same noise (and the same start, if it is drawn); None for none, 0 for the start alone.
        **options: ``variance``, ``clip`` and ``prediction`` of :func:`p_mean_variance`.

    Yields:
        A :class:`Stop` ``(steps_left, x, x_start)`` for the start and after each step.
    """
    _check_options(schedule, **options)
    x, steps, shared, generator = _set_out(schedule, shape, seed, x_T, steps, shared_noise_steps)
    yield Stop(steps, x, None)
    for step_index in reversed(range(steps)):
        t = ops.full((shape[0],), step_index, dtype="int32")
        noise = _noise(shape, generator, steps - step_index <= shared)
        step = p_mean_variance(denoise_fn, schedule, x, t, **options)
        # Without stop_gradient, PyTorch would keep the whole way in memory.
        x, x_start = ops.stop_gradient(add_step_noise(step, t, noise)), step.x_start
        yield Stop(step_index, x, ops.stop_gradient(x_start))


def _set_out(
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    seed: Any,
    x_T: Any,
    steps: int | None,
    shared_noise_steps: int | None,
) -> tuple[Any, int, int, Any]:
    """The noise to start from, how many steps, how many of them share noise, the generator."""
    steps = _checked_steps(steps, schedule, x_T)
    generator = seed if isinstance(seed, SeedGenerator) else SeedGenerator(seed)
    shared = _checked_sharing(shared_noise_steps, steps)
    x = _noise(shape, generator, shared >= 0) if x_T is None else _as_noise(x_T, shape)
    return x, steps, shared, generator


def _check_options(
    schedule: NoiseSchedule,
    variance: str = "fixed_small",
    clip: bool = True,
    prediction: str = "noise",
) -> None:
    """Refuse a misspelt option, or a wrong name, before any work."""
    check_prediction(schedule, prediction)
    if variance != "learned":
        fixed_variance(schedule, variance)


def _noise(shape: tuple[int, ...], generator: Any, shared: bool) -> Any:
    """Standard normal noise, the same for every image of the batch if ``shared``."""
    if not shared:
        return keras.random.normal(shape, seed=generator)
    return ops.broadcast_to(keras.random.normal((1, *shape[1:]), seed=generator), shape)


def _noise_of_steps(
    count: int, shape: tuple[int, ...], generator: Any, taken: int, shared: int
) -> Any:
    """The noise of the next ``count`` steps: shared until ``shared`` steps have been taken."""
    alike = min(max(shared - taken, 0), count)
    parts = []
    if alike:
        noise = normals(alike, (1, *shape[1:]), generator)
        parts.append(ops.broadcast_to(noise, (alike, *shape)))
    if alike < count:
        parts.append(normals(count - alike, shape, generator))
    return ops.concatenate(parts)


def _checked_steps(steps: int | None, schedule: NoiseSchedule, x_T: Any) -> int:
    T = len(schedule)
    if steps is None:
        return T
    if not isinstance(steps, (int, np.integer)) or not 1 <= steps <= T:
        raise ValueError(
            f"steps = {steps} must lie in 1 … {T}, the length of the schedule, and be whole."
        )
    if steps < T and x_T is None:
        raise ValueError(
            f"steps = {steps} of {T} start from images that are noisy, not from pure noise: pass "
            "them as x_T, for example q_sample(schedule, images, t, noise) with t = steps - 1."
        )
    return steps


def _checked_sharing(shared_noise_steps: int | None, steps: int) -> int:
    """The number of steps with shared noise; -1 if not even the start is shared."""
    if shared_noise_steps is None:
        return -1
    if not 0 <= shared_noise_steps <= steps:
        raise ValueError(
            f"shared_noise_steps = {shared_noise_steps} must lie in 0 … {steps}, the number of "
            "steps walked; or None to share nothing."
        )
    return shared_noise_steps


def _as_noise(x_T: Any, shape: tuple[int, ...]) -> Any:
    if tuple(x_T.shape) != tuple(shape):
        raise ValueError(
            f"x_T has shape {tuple(x_T.shape)}, but shape = {tuple(shape)} is asked for; "
            "pass shape=x_T.shape."
        )
    return as_float32(x_T)


def p_sample_loop(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    progress: bool = False,
    **options: Any,
) -> Any:
    """Walk all the way from noise to images (Algorithm 2).

    Args:
        denoise_fn: callable ``(x_t, t) -> prediction``.
        schedule: the noise schedule.
        shape: shape of the result, ``(batch, height, width, channels)`` or any ``(batch, …)``.
        progress: whether to show a progress bar.
        **options: as for :func:`p_sample_loop_progressive`.

    A denoise function that can take many steps in one call, as a trained model's ``denoise`` can,
    is asked to: the images are the same, sooner.

    Returns:
        float32 tensor of that shape. Images lie in [-1, 1], unless ``"x_prev"`` is predicted: it
        is taken as it stands.
    """
    walk = getattr(denoise_fn, "walk", None)
    if walk is None:
        journey = p_sample_loop_progressive(denoise_fn, schedule, shape, **options)
    else:
        journey = _in_long_strides(walk, schedule, shape, **options)
    stop = next(journey)
    steps = stop.steps_left
    bar = keras.utils.Progbar(steps, unit_name="step") if progress else None
    for stop in journey:
        if bar:
            bar.update(steps - stop.steps_left)
    return stop.x


def _in_long_strides(
    walk: Callable[..., Any],
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    seed: Any = None,
    x_T: Any = None,
    steps: int | None = None,
    shared_noise_steps: int | None = None,
    **options: Any,
) -> Iterator[Stop]:
    """The same walk with the same noise, but handing out only every ``STRIDE``-th stop."""
    _check_options(schedule, **options)
    x, steps, shared, generator = _set_out(schedule, shape, seed, x_T, steps, shared_noise_steps)
    yield Stop(steps, x, None)
    for steps_left in range(steps, 0, -STRIDE):
        count = min(STRIDE, steps_left)
        noise = _noise_of_steps(count, shape, generator, steps - steps_left, shared)
        rest = [(0, STRIDE - count)] + [(0, 0)] * len(shape)  # always as many: compiled once
        x = walk(x, steps_left - 1, count, ops.pad(noise, rest), schedule, **options)
        yield Stop(steps_left - count, x, None)


def p_sample_loop_trajectory(
    denoise_fn: DenoiseFn,
    schedule: NoiseSchedule,
    shape: tuple[int, ...],
    *,
    stops: int = 11,
    x_start: bool = False,
    **options: Any,
) -> tuple[list[int], np.ndarray]:
    """Walk from noise to images and keep evenly spaced pictures of the journey.

    Args:
        denoise_fn: callable ``(x_t, t) -> prediction``.
        schedule: the noise schedule.
        shape: shape of the result, ``(batch, …)``.
        stops: how many pictures to keep, at least 2: the first is the noise, the last the image.
        x_start: whether to keep the predictions of the clean image on the way, in the place of the
            noisy images; the first picture is then the prediction of the first step.
        **options: as for :func:`p_sample_loop_progressive`.

    Returns:
        The number of steps left at each stop, from T to 0, and the pictures, float32 NumPy
        ``(stops, batch, …)``.

    Raises:
        ValueError: if ``stops`` is not between 2 and one more than the number of steps.
    """
    steps = options.get("steps") or len(schedule)
    longest = steps if x_start else steps + 1
    if not 2 <= stops <= longest:
        raise ValueError(
            f"stops = {stops} must lie between 2 and {longest}, the number of pictures that "
            f"a journey of {steps} steps has."
        )
    wanted = {round((longest - 1) * (1 - i / (stops - 1))) for i in range(stops)}
    kept = []
    for stop in p_sample_loop_progressive(denoise_fn, schedule, shape, **options):
        if stop.steps_left in wanted:
            kept.append(ops.convert_to_numpy(stop.x_start if x_start else stop.x))
    return sorted(wanted, reverse=True), np.stack(kept)


def interpolate(
    denoise_fn: DenoiseFn,
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

    Both images get ``t`` + 1 steps of noise, each its own; the noisy images are mixed,
    (1-λ) x_t + λ x'_t, and the way back is walked from there (section 4.4 of the paper). That is
    the double exposure of the clean images under noise of a smaller variance, (1-λ)² + λ² times
    1-ᾱ: at small t it stays one; with enough noise, the way back makes an image of it.

    Args:
        denoise_fn: callable ``(x_t, t) -> prediction``.
        schedule: the noise schedule.
        image_1: in [-1, 1], ``(height, width, channels)`` or any shape, without a batch axis.
        image_2: the other one, same shape.
        t: how much noise, in 0 … T-1: little keeps both images, much forgets them.
        weights: the shares λ of the second image, each from 0 to 1.
        seed: makes the result repeatable; None draws new noise each time.
        **options: as for :func:`p_sample_loop_progressive`. Unless ``shared_noise_steps`` says
            otherwise, all get the same noise on the way back, so that only λ makes the difference.

    Returns:
        float32 ``(len(weights), …)``.

    Raises:
        ValueError: if the images differ in shape, or ``t`` or a weight is out of its range.
    """
    generator = SeedGenerator(seed)
    mixed = _mixed(schedule, image_1, image_2, t, weights, generator)
    options.setdefault("shared_noise_steps", t + 1)
    return p_sample_loop(
        denoise_fn, schedule, mixed.shape, seed=generator, x_T=mixed, steps=t + 1, **options
    )


def _mixed(
    schedule: NoiseSchedule, image_1: Any, image_2: Any, t: int, weights: Any, generator: Any
) -> Any:
    """(1-λ) x_t + λ x'_t for each weight λ, with one draw of noise for each image."""
    image_1, image_2 = as_float32(image_1)[None], as_float32(image_2)[None]
    if image_1.shape != image_2.shape:
        raise ValueError(
            f"image_1 has shape {tuple(image_1.shape[1:])} and image_2 {tuple(image_2.shape[1:])}; "
            "only images of the same size can be mixed."
        )
    share = np.asarray(weights, dtype="float32")
    if share.ndim != 1 or not share.size or not (share.min() >= 0 and share.max() <= 1):
        raise ValueError(f"weights = {weights} must be a list of numbers from 0 to 1.")
    if not isinstance(t, (int, np.integer)):
        raise ValueError(f"t = {t} must be a whole number, such as {len(schedule) // 2}.")
    step = np.array([t], dtype="int32")
    noisy_1, noisy_2 = (
        q_sample(schedule, image, step, keras.random.normal(image_1.shape, seed=generator))
        for image in (image_1, image_2)
    )
    share = as_float32(share.reshape((-1,) + (1,) * (len(image_1.shape) - 1)))
    return (1 - share) * noisy_1 + share * noisy_2


def optimal_denoiser(images: Any, schedule: NoiseSchedule, prediction: str = "noise") -> DenoiseFn:
    """Build the perfect denoise function of a finite data set, without any network.

    If the data are exactly ``images``, each equally likely, Bayes's rule gives E[ε | x_t] in
    closed form: average the images, each weighted by how well it explains x_t. It is what a
    network of unlimited size and patience would learn, and it draws nothing but its own images.

    Args:
        images: the whole data set, ``(n, …)`` in [-1, 1].
        schedule: the noise schedule.
        prediction: what it shall answer with, ``"noise"``, ``"x_start"`` or ``"x_prev"``.

    Returns:
        Callable ``(x_t, t) -> expected noise`` (or x_0, or x_{t-1}), same shape as ``x_t``. It
        needs memory for batch · n · pixels numbers, so draw few images at a time from a large set.

    Source: Bayes's rule on Eq. 4; see also Karras et al. 2022 (arXiv 2206.00364), appendix B.3.
    """
    check_prediction(schedule, prediction)
    flat_images = ops.reshape(as_float32(images), (len(images), -1))

    def denoise(x_t: Any, t: Any) -> Any:
        x_t = as_float32(x_t)
        flat = ops.reshape(x_t, (x_t.shape[0], -1))  # (batch, pixels)
        means = extract(schedule.sqrt_alphas_cumprod, t, 3) * flat_images  # (batch, n, pixels)
        distances = ops.sum(ops.square(flat[:, None, :] - means), axis=-1)  # (batch, n)
        noise_variance = extract(1.0 - schedule.alphas_cumprod, t, 2)
        weights = ops.softmax(-distances / (2.0 * noise_variance), axis=-1)
        x_start = ops.reshape(ops.matmul(weights, flat_images), x_t.shape)
        return predict_from_x_start(schedule, x_t, t, x_start, prediction)

    return denoise
