"""What a network is asked for, and the clean image that its answer implies.

A noisy image is x_t = a x_0 + b ε (Eq. 4 of Ho et al. 2020, arXiv 2006.11239; a and b are the
schedule's rates at t). Whoever knows x_t and one of x_0, ε, or a fixed mix of the two, knows the
other as well: so a network may be asked for any of them. Each :class:`Prediction` is two short
formulas, one there and one back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.forward_diffusion import (
    as_float32,
    q_posterior_mean_variance,
    same_shape,
)
from diffusion_walkthrough.noise_schedule import (
    NoiseSchedule,
    checked_steps,
    extract,
    is_real,
)
from diffusion_walkthrough.parameters import PREDICTION_NAMES, VARIANCE_NAMES

#: The smallest number above 0 that float32 holds with all its digits.
SMALLEST = float(np.finfo(np.float32).tiny)


class Prediction(NamedTuple):
    """One thing that a network can be asked for: the right answer, and the way back from it."""

    target: Callable[..., Any]  # (schedule, x_start, noise, x_t, t) -> answer, (batch, …)
    to_x_start: Callable[..., Any]  # (schedule, x_t, t, answer) -> clean image, not clipped
    divides_by: str | None = None  # the schedule's table by which to_x_start divides, if it does


def predict_x_start_from_noise(schedule: NoiseSchedule, x_t: Any, t: Any, noise: Any) -> Any:
    """Solve Eq. 4 for the clean image: x_0 = √(1/ᾱ) x_t - √(1/ᾱ - 1) ε (Eq. 15).

    Args:
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: int32 or real, ``(batch,)``.
        noise: the noise in ``x_t``, or a guess of it, same shape.

    Returns:
        The clean image that this noise implies, same shape; not clipped.
    """
    x_t, noise = as_float32(x_t), as_float32(noise)
    ndim = len(x_t.shape)
    if is_real(t):
        a, b = _rates(schedule, t, x_t)
        return (x_t - b * noise) / a
    return (
        extract(schedule.sqrt_recip_alphas_cumprod, t, ndim) * x_t
        - extract(schedule.sqrt_recipm1_alphas_cumprod, t, ndim) * noise
    )


def predict_noise_from_x_start(schedule: NoiseSchedule, x_t: Any, t: Any, x_start: Any) -> Any:
    """Solve Eq. 4 for the noise, ε = (x_t - √ᾱ x_0) / √(1-ᾱ): the way back, same shapes."""
    x_t, x_start = as_float32(x_t), as_float32(x_start)
    a, b = _rates(schedule, t, x_t)
    return (x_t - a * x_start) / b


def predict_x_start_from_x_prev(schedule: NoiseSchedule, x_t: Any, t: Any, x_prev: Any) -> Any:
    """Solve the posterior mean (Eq. 7) for the clean image: x_0 = (x_{t-1} - coef2 x_t) / coef1.

    Shapes as for :func:`predict_x_start_from_noise`; ``x_prev`` is the mean of q(x_{t-1} | x_t,
    x_0), or a guess of it; ``t`` is whole. At large t the result is worth little: coef1 is small
    there, and the smallest error of ``x_prev`` is divided by it.
    """
    x_t, x_prev = as_float32(x_t), as_float32(x_prev)
    ndim = len(x_t.shape)
    rest = x_prev - extract(schedule.posterior_mean_coef2, t, ndim) * x_t
    return rest / extract(schedule.posterior_mean_coef1, t, ndim)


def _x_prev(schedule: NoiseSchedule, x_start: Any, noise: Any, x_t: Any, t: Any) -> Any:
    return q_posterior_mean_variance(schedule, x_start, x_t, t)[0]


def _rates(schedule: NoiseSchedule, t: Any, x: Any) -> tuple[Any, Any]:
    a, b = schedule.rates(t, len(x.shape))
    return as_float32(a), as_float32(b)


def _v(schedule: NoiseSchedule, x_start: Any, noise: Any, x_t: Any, t: Any) -> Any:
    a, b = _rates(schedule, t, noise)
    return a * as_float32(noise) - b * as_float32(x_start)


def _v_to_x_start(schedule: NoiseSchedule, x_t: Any, t: Any, answer: Any) -> Any:
    a, b = _rates(schedule, t, x_t)
    return a * as_float32(x_t) - b * as_float32(answer)


def _flow(schedule: NoiseSchedule, x_start: Any, noise: Any, x_t: Any, t: Any) -> Any:
    return as_float32(noise) - as_float32(x_start)


def _flow_to_x_start(schedule: NoiseSchedule, x_t: Any, t: Any, answer: Any) -> Any:
    a, b = _rates(schedule, t, x_t)
    return (as_float32(x_t) - b * as_float32(answer)) / (a + b)


#: By the word that stands in the parameters: the noise (Eq. 14), the clean image, the mean of the
#: step back (Eq. 8), v = a ε - b x_0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D; it needs
#: a² + b² = 1), and the flow ε - x_0 (Liu et al. 2022, arXiv 2209.03003).
PREDICTIONS = {
    "noise": Prediction(
        lambda schedule, x_start, noise, x_t, t: noise,
        predict_x_start_from_noise,
        divides_by="sqrt_alphas_cumprod",
    ),
    "x_start": Prediction(
        lambda schedule, x_start, noise, x_t, t: x_start,
        lambda schedule, x_t, t, answer: as_float32(answer),
    ),
    "x_prev": Prediction(_x_prev, predict_x_start_from_x_prev, divides_by="posterior_mean_coef1"),
    "v": Prediction(_v, _v_to_x_start),
    "flow": Prediction(_flow, _flow_to_x_start),
}


def check_prediction(schedule: NoiseSchedule, prediction: str) -> None:
    """Refuse an unknown prediction, and one that would divide by (almost) nothing in float32.

    Raises ValueError naming the step, the reason and the remedy.
    """
    if prediction not in PREDICTION_NAMES:
        raise ValueError(f"prediction = {prediction!r} must be one of {PREDICTION_NAMES}.")
    name = PREDICTIONS[prediction].divides_by
    if name is None:
        return
    table = getattr(schedule, name)
    gone = np.flatnonzero(table < SMALLEST)
    if gone.size:
        raise ValueError(
            f"prediction = {prediction!r} cannot be used with this schedule: the clean image is "
            f"worked out by dividing by {name}, which at t = {gone[0]} of {len(schedule)} steps is "
            f"{table[gone[0]]:.2g}, too little for float32: nothing is left of the image there, "
            "and the step back would be NaN. Predict 'x_start', or use a schedule that adds less "
            "noise, such as make_betas('cosine', 1000)."
        )


def check_variance(variance: str, names: tuple[str, ...] = VARIANCE_NAMES) -> None:
    """Refuse a variance of a step back that is none of ``names`` with a ValueError."""
    if variance not in names:
        raise ValueError(
            f"variance = {variance!r} must be one of {names}: choose 'fixed_small' for few steps, "
            "'fixed_large' for the digits, or to repeat the paper on CIFAR-10; 'learned' is for a "
            "Denoiser that is made with it."
        )


def check_answer(answer: Any, x_t: Any) -> None:
    """Refuse an answer that is not one number for each pixel with a ValueError."""
    if not same_shape(answer, x_t):
        raise ValueError(
            f"the answer to x_t of shape {tuple(x_t.shape)} has shape {tuple(answer.shape)}: there "
            "must be one number for each pixel, or broadcasting would compare pixels with others. "
            "Only variance = 'learned' goes with twice the channels, and learned_variance = True "
            "of build_unet makes them."
        )


def of_each(t: Any, x_t: Any) -> Any:
    """The t of each image, ``(batch,)``, as it is; one number stands for all.

    Raises ValueError if there are as many as images neither way.
    """
    tensor = ops.convert_to_tensor(t, "float32" if is_real(t) else None)
    if len(tensor.shape) == 0:
        return ops.broadcast_to(tensor, ops.shape(x_t)[:1])
    found, n = tuple(tensor.shape), x_t.shape[0]
    if len(found) != 1 or (None not in (found[0], n) and found[0] != n):
        raise ValueError(
            f"t has shape {found}, but there are {n} images: pass one t for each of them, "
            f"({n},), or one number for all."
        )
    return t


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """A network as a denoise function: asks it, and reads the clean image off its answer.

    With a ``"learned"`` variance of the step back, the answer has twice the channels, the second
    half being the log variance. Raises ValueError for an unknown name, or a prediction that the
    schedule does not allow.
    """

    network: Any  # callable ([x_t, t, *labels], training=False) -> answer
    schedule: NoiseSchedule  # the one that it was trained on
    prediction: str = "noise"  # what it answers with, one of PREDICTIONS
    variance: str = "fixed_small"
    clip: bool = True  # whether the clean image is held within [-1, 1], as images should be

    def __post_init__(self) -> None:
        checks.flag("clip", self.clip)
        check_prediction(self.schedule, self.prediction)
        check_variance(self.variance)

    def checked_told(self, n: int, *told: Any) -> list[Any]:
        """What it is told of ``n`` images beside x_t and t; ValueError for what it cannot be."""
        if hasattr(self.network, "check_shown"):
            x_t, t = ((n, *shape) for shape, _ in self.network.specs[:2])
            self.network.check_shown(np.broadcast_to(0, x_t), np.broadcast_to(0, t), *told)
        return [*told]

    def ask(self, x_t: Any, t: Any, *labels: Any) -> Any:
        """Ask the network itself: its answer, float32, for ``"noise"`` the noise that it sees."""
        # Keras refuses arrays and tensors in one list.
        x_t = as_float32(x_t)
        shown = [x_t, *map(ops.convert_to_tensor, (of_each(t, x_t), *labels))]
        return ops.cast(self.network(shown, training=False), "float32")

    def __call__(self, x_t: Any, t: Any, *labels: Any) -> Any:
        """Say which clean images lie behind ``x_t``, float32 ``(batch, …)``."""
        return self.with_variance(x_t, t, *labels)[0]

    def with_variance(self, x_t: Any, t: Any, *labels: Any) -> tuple[Any, Any]:
        """The same, and the log variance of the step back if it is learned, else None."""
        x_t = as_float32(x_t)
        t = of_each(checked_steps(t, 0, len(self.schedule) - 1), x_t)
        answer, log_variance = self.ask(x_t, t, *labels), None
        if self.variance == "learned":
            channels = x_t.shape[-1]
            answer, log_variance = answer[..., :channels], answer[..., channels:]
            check_answer(log_variance, x_t)
        check_answer(answer, x_t)
        x_start = PREDICTIONS[self.prediction].to_x_start(self.schedule, x_t, t, answer)
        return (ops.clip(x_start, -1.0, 1.0) if self.clip else x_start), log_variance
