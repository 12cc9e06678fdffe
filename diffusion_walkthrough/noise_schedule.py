"""The noise schedule: how much noise each step adds, and every table computed from it.

All tables are float64 NumPy arrays of shape ``(T,)``, computed once. Index ``t = 0`` is the
first step of noise, so ``betas[t]`` is the paper's β with index t + 1
(Ho et al. 2020, "Denoising Diffusion Probabilistic Models", arXiv 2006.11239).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough import checks
from diffusion_walkthrough.parameters import (
    REFERENCE_TIMESTEPS,
    SMALLEST_BETA as SMALLEST_BETA,
    ScheduleParameters,
)

FloatArray = NDArray[np.float64]

#: No step may add so much noise that nothing is left of the image (Nichol & Dhariwal 2021, §3.2).
LARGEST_BETA = 0.999

#: The log SNR that stands for minus infinity, in which there is no straight line.
NOTHING_LEFT = -1e4

#: Over which share of the steps β rises, in the schedules that then stay at ``beta_end``.
WARMUP_SHARES = {"warmup10": 0.1, "warmup50": 0.5, "const": 0.0}


def _rise(first: float, last: float, count: int) -> FloatArray:
    """``count`` numbers, evenly from first to last; a single one is the last, where noise is."""
    return np.linspace(first, last, count) if count > 1 else np.full(count, float(last))


def linear_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> FloatArray:
    """β rises evenly from ``beta_start`` to ``beta_end`` (Ho et al. 2020, §4). Shape ``(T,)``."""
    return _rise(beta_start, beta_end, timesteps)


def cosine_betas(timesteps: int, offset: float = 0.008) -> FloatArray:
    """β such that ᾱ falls like a squared cosine (Nichol & Dhariwal 2021, Eq. 17).

    Not clipped: :func:`make_betas` does that. Shape ``(T,)``, values in (0, 1].
    """
    progress = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    signal = np.cos((progress + offset) / (1 + offset) * np.pi / 2) ** 2
    return 1 - signal[1:] / signal[:-1]


def sigmoid_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> FloatArray:
    """β rises along a sigmoid, slowly at both ends (Xu et al. 2022, arXiv 2203.02923). ``(T,)``."""
    rise = 1 / (1 + np.exp(-_rise(-6, 6, timesteps)))
    return beta_start + (beta_end - beta_start) * rise


def quad_betas(timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> FloatArray:
    """√β rises evenly, so that β rises like a parabola (original DDPM code). Shape ``(T,)``."""
    return _rise(np.sqrt(beta_start), np.sqrt(beta_end), timesteps) ** 2


def warmup_betas(
    timesteps: int, beta_start: float = 1e-4, beta_end: float = 0.02, share: float = 0.1
) -> FloatArray:
    """β rises evenly over the first ``share`` of the steps and then stays (original DDPM code).

    ``share`` is from 0 to 1; with 0 it is constant. Shape ``(T,)``.
    """
    betas = np.full(timesteps, beta_end, dtype=np.float64)
    rising = int(timesteps * share)
    betas[:rising] = np.linspace(beta_start, beta_end, rising)
    return betas


def jsd_betas(timesteps: int) -> FloatArray:
    """β = 1/T, 1/(T-1), …, 1, so that ᾱ falls evenly to exactly 0 (original DDPM code). ``(T,)``.

    Its last step leaves nothing of the image (Sohl-Dickstein et al. 2015, arXiv 1503.03585, §2.4.1,
    chose it for diffusion of bits).
    """
    return 1.0 / np.arange(timesteps, 0, -1, dtype=np.float64)


def straight_betas(timesteps: int) -> FloatArray:
    """β such that √(1-ᾱ) / √ᾱ is s / (1 - s), with s = 1/T, 2/T, …, 1: the path of rectified flow.

    Divided by √ᾱ + √(1-ᾱ), x_t of Eq. 4 is then (1 - s) x_0 + s ε, on a straight line (Liu et al.
    2022, arXiv 2209.03003). Its last step leaves nothing of the image. Shape ``(T,)``.
    """
    share = np.arange(timesteps + 1, dtype=np.float64) / timesteps
    signal = (1 - share) ** 2 / ((1 - share) ** 2 + share**2)
    return 1 - signal[1:] / signal[:-1]


def make_betas(
    name: str = "linear",
    timesteps: int = REFERENCE_TIMESTEPS,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    scaled: bool = True,
) -> FloatArray:
    """Compute β, the variance of the noise that each step adds.

    Most schedules are multiplied by ``1000 / timesteps``, so that fewer steps add as much noise
    in all; ``scaled=False`` leaves them raw, and an image then survives a short chain. The
    schedules "cosine", "jsd" and "straight" fit any number of steps as they are and take no notice
    of the last three; "const" is ``beta_end`` throughout.

    Args:
        name: ``"linear"``, ``"cosine"``, ``"sigmoid"``, ``"quad"``, ``"warmup10"``,
            ``"warmup50"``, ``"const"``, ``"jsd"`` or ``"straight"``.
        timesteps: T, the number of steps, at least 1.
        beta_start: β of the first step at T = 1000, in (0, 1).
        beta_end: β of the last step at T = 1000, in (0, 1), not below ``beta_start``.
        scaled: whether to scale the schedule to T.

    Returns:
        float64 array of shape ``(timesteps,)``, values in (0, 0.999]; only those of ``"jsd"`` and
        ``"straight"`` end in 1. Raises TypeError or ValueError as :class:`ScheduleParameters` does.
    """
    checked = ScheduleParameters(name, timesteps, beta_start, beta_end, scaled)
    if checked.name == "jsd":
        return jsd_betas(checked.timesteps)
    if checked.name == "straight":
        return straight_betas(checked.timesteps)
    if checked.name == "cosine":
        return np.minimum(cosine_betas(checked.timesteps), LARGEST_BETA)
    ends = checked.timesteps, checked.beta_start, checked.beta_end
    if checked.name in WARMUP_SHARES:
        betas = warmup_betas(*ends, WARMUP_SHARES[checked.name])
    else:
        rule = {"linear": linear_betas, "sigmoid": sigmoid_betas, "quad": quad_betas}[checked.name]
        betas = rule(*ends)
    scale = REFERENCE_TIMESTEPS / checked.timesteps if checked.scaled else 1.0
    return np.minimum(scale * betas, LARGEST_BETA)


class NoiseSchedule:
    """Every table that the forward and the backward process look up, computed from β alone.

    Attributes (float64, shape ``(T,)``, unless noted):
        betas: β, the variance of the noise added at each step.
        alphas: α = 1 - β, the share of variance that each step keeps.
        alphas_cumprod: ᾱ, the share of the image's variance left after t + 1 steps.
        alphas_cumprod_prev: ᾱ one step earlier; 1 at t = 0.
        sqrt_alphas_cumprod: √ᾱ, the factor of the image in Eq. 4.
        sqrt_one_minus_alphas_cumprod: √(1-ᾱ), the factor of the noise in Eq. 4.
        sqrt_recip_alphas_cumprod: √(1/ᾱ), used to solve Eq. 4 for the image.
        sqrt_recipm1_alphas_cumprod: √(1/ᾱ - 1), likewise.
        posterior_variance: β̃, the variance of one backward step when x_0 is known (Eq. 7).
        posterior_log_variance_clipped: log β̃, with the value of t = 1 standing in at t = 0,
            where β̃ is 0 and its logarithm is minus infinity.
        posterior_mean_coef1: weight of x_0 in the posterior mean (Eq. 7).
        posterior_mean_coef2: weight of x_t in the posterior mean (Eq. 7).
        log_alphas_cumprod: log ᾱ, in which a stretch of steps is a difference.
        snr: the signal-to-noise ratio ᾱ / (1-ᾱ).
        log_snr: its natural logarithm.
        signal_left: √ᾱ of the last step, one number: how much of the image "pure noise" still
            holds. Near 0 is right; 0.2 is not noise.
    """

    def __init__(self, betas: ArrayLike) -> None:
        """Compute all tables from ``betas``, shape ``(T,)``, each from 1e-8 to below 1.

        Only the last may be 1: then nothing at all is left of the image (``signal_left`` is 0),
        the two tables that divide by ᾱ end in infinity, and a network can still predict x_0 or
        x_{t-1}, but no longer the noise.

        Raises:
            ValueError: if a value breaks that rule, or if so much noise is added in all that the
                computer holds ᾱ for zero: the tables of the way back would be infinite.
        """
        self.betas = _checked_betas(betas)
        self.alphas = 1.0 - self.betas
        self.alphas_cumprod = np.cumprod(self.alphas, dtype=np.float64)
        _check_something_is_left(self.alphas_cumprod)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        noise_variance = 1.0 - self.alphas_cumprod

        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(noise_variance)
        self.snr = self.alphas_cumprod / noise_variance
        with np.errstate(divide="ignore"):  # ᾱ may end in 0
            self.sqrt_recip_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod)
            self.sqrt_recipm1_alphas_cumprod = np.sqrt(1.0 / self.alphas_cumprod - 1.0)
            self.log_alphas_cumprod = np.log(self.alphas_cumprod)
            self.log_snr = np.log(self.snr)
        self.signal_left = float(self.sqrt_alphas_cumprod[-1])
        self._compute_posterior(noise_variance)

    def _compute_posterior(self, noise_variance: FloatArray) -> None:
        """Fill the tables of q(x_{t-1} | x_t, x_0), Eqs. 6 and 7."""
        earlier = self.alphas_cumprod_prev
        self.posterior_variance = self.betas * (1.0 - earlier) / noise_variance
        # β̃ is 0 at t = 0; the next one stands in, or β itself when there is only one step.
        first = self.posterior_variance[1] if len(self) > 1 else self.betas[0]
        self.posterior_log_variance_clipped = np.log([first, *self.posterior_variance[1:]])
        self.posterior_mean_coef1 = self.betas * np.sqrt(earlier) / noise_variance
        self.posterior_mean_coef2 = (1.0 - earlier) * np.sqrt(self.alphas) / noise_variance

    @classmethod
    def from_parameters(cls, parameters: ScheduleParameters) -> NoiseSchedule:
        """Build the schedule that :class:`ScheduleParameters` describe."""
        return cls(make_betas(**dataclasses.asdict(parameters)))

    def rates(self, t: Any, ndim: int) -> tuple[Any, Any]:
        """Look up a = √ᾱ and b = √(1-ᾱ) of x_t = a x_0 + b ε for each image (Eq. 4).

        A real t may lie between two steps. There log SNR is a straight line from one step to the
        next, as it is for diffusers; at a whole one the rates are to the last bit the table's.

        Args:
            t: int32 or real, ``(batch,)``, in 0 … T-1 or -1, the clean image: (a, b) = (1, 0).
            ndim: the number of axes of the images.

        Returns:
            Signal rate and noise rate, float32 ``(batch, 1, …, 1)`` with ``ndim`` axes: NumPy
            arrays unless ``t`` is a tensor.

        Raises:
            TypeError: if a step is no number.
            ValueError: if it is none of these, and can be seen (:func:`checked_steps`).
        """
        signal = np.append(1.0, self.sqrt_alphas_cumprod)
        noise = np.append(0.0, self.sqrt_one_minus_alphas_cumprod)
        t = checked_steps(t, first=-1, last=len(self) - 1)
        if is_real(t):
            return self._rates_between(t, signal, noise, ndim)
        if not isinstance(t, np.ndarray):
            return _looked_up(signal, t + 1, ndim), _looked_up(noise, t + 1, ndim)
        shape = (-1,) + (1,) * (ndim - 1)
        a, b = (table[t + 1].astype(np.float32).reshape(shape) for table in (signal, noise))
        return a, b

    def _rates_between(self, t: Any, signal: Any, noise: Any, ndim: int) -> tuple[Any, Any]:
        """Go from the step before a real t on, by as much as SNR falls from there to t."""
        from keras import ops  # here, so that the tables themselves need NumPy alone

        real = ops.convert_to_tensor(t, dtype="float32")
        before = ops.floor(real)
        step = ops.cast(before, "int32") + 1
        a, b = _looked_up(signal, step, ndim), _looked_up(noise, step, ndim)
        changes = np.concatenate([[0.0], np.diff(np.maximum(self.log_snr, NOTHING_LEFT)), [0.0]])
        change = _looked_up(changes, step, ndim) * _multiplying(real - before, ndim)
        # With SNR e^c times as large, ᾱ e^c and 1-ᾱ no longer add up to 1; at a whole t c is 0.
        root = ops.sqrt(1.0 + ops.square(a) * ops.expm1(change))
        rates = a * ops.exp(change / 2) / root, b / root
        if not isinstance(t, np.ndarray):
            return rates
        return ops.convert_to_numpy(rates[0]), ops.convert_to_numpy(rates[1])

    def alpha_bar(self, t: ArrayLike) -> FloatArray:
        """ᾱ at whole or real t in 0 … T-1, float64 of the same shape; see :meth:`rates`."""
        t = checked_steps(t, first=0, last=len(self) - 1)
        if not is_real(t):
            return np.asarray(self.alphas_cumprod[np.asarray(t)])
        log_snr = np.interp(
            np.asarray(t), np.arange(len(self)), np.maximum(self.log_snr, NOTHING_LEFT)
        )
        with np.errstate(under="ignore"):  # where nothing is left
            return np.exp(log_snr - np.logaddexp(0.0, log_snr))

    @property
    def timesteps(self) -> int:
        """T, the number of steps."""
        return len(self.betas)

    def __len__(self) -> int:
        return len(self.betas)

    def __repr__(self) -> str:
        return f"NoiseSchedule(T={len(self)}, signal_left={self.signal_left:.2g})"


def _checked_betas(betas: ArrayLike) -> FloatArray:
    checks.unmasked("betas", betas)
    array = np.asarray(betas)
    if array.dtype.kind not in "fiu":
        raise ValueError(
            f"betas are of type {array.dtype}; they must be numbers, float64. Build them with "
            "make_betas('linear', 1000)."
        )
    array = array.astype(np.float64)  # a copy
    if array.ndim != 1 or array.size == 0:
        raise ValueError(
            f"betas has shape {array.shape}; it must be one-dimensional with at least one step, "
            "shape (T,). Build it with make_betas('linear', 1000)."
        )
    fits = (array >= SMALLEST_BETA) & (array < 1)
    fits[-1] |= array[-1] == 1
    wrong = np.flatnonzero(~fits)
    if wrong.size:
        raise ValueError(
            f"betas[{wrong[0]}] = {array[wrong[0]]} must be at least {SMALLEST_BETA} and below 1 "
            "(only the last may be 1): it is the variance of the noise that step adds, and 1 "
            "leaves nothing of the image to go on with. Build betas with make_betas, or use "
            f"np.clip(betas, {SMALLEST_BETA}, {LARGEST_BETA})."
        )
    return array


def _check_something_is_left(alphas_cumprod: FloatArray) -> None:
    gone = np.flatnonzero(alphas_cumprod < np.finfo(np.float64).tiny)
    if gone.size and not (gone[0] == len(alphas_cumprod) - 1 and alphas_cumprod[-1] == 0):
        raise ValueError(
            f"alphas_cumprod[{gone[0]}] = {alphas_cumprod[gone[0]]:.3g} is too small to divide "
            "by: from this step on nothing is left of the image, and the way back divides by zero. "
            "Use smaller betas or fewer steps, for example make_betas('cosine', 1000)."
        )


def is_real(t: Any) -> bool:
    """Whether steps are given as real numbers, which may lie between two of them."""
    return "float" in str(getattr(t, "dtype", None) or np.asarray(t).dtype)


def checked_steps(t: Any, first: int, last: int) -> Any:
    """Steps as tables take them: a tensor as it is, all else as an array, int32 if they are whole.

    Raises TypeError for what is no number, and ValueError for steps not in ``first`` … ``last``, if
    they can be seen: a tensor's may not be known yet, or lie on an accelerator, to be waited for.
    """
    is_tensor = hasattr(t, "shape") and not isinstance(t, (np.ndarray, np.generic))
    steps = _seen(t) if is_tensor else np.asarray(t)
    if steps is None:
        return t
    if steps.dtype.kind not in "iu" and not is_real(steps):
        rule = f"steps must be whole or real numbers, and these are of type {steps.dtype}"
        remedy = f"Give numbers in {first} … {last}, without quotes"
        raise TypeError(checks.message("t", t, rule, remedy))
    inside = (steps >= 0) | (steps == first)  # the clean image, at -1, is no neighbour of step 0
    wrong = steps[~(inside & (steps >= first) & (steps <= last))]
    if wrong.size:
        raise ValueError(
            f"t = {wrong[0]} must lie in {first} … {last}: steps count from 0, so the first step "
            f"of noise is t = 0 and the last t = {last}."
        )
    if is_tensor:
        return t
    return steps if is_real(steps) else steps.astype("int32", copy=False)


def _seen(tensor: Any) -> Any:
    """A tensor's numbers, or None if it has none yet, or none in the memory of the CPU."""
    from keras import ops

    from diffusion_walkthrough.engine.labels import is_symbolic  # not without Keras, either

    if is_symbolic(tensor) or "cpu" not in str(getattr(tensor, "device", "")).lower():
        return None
    return ops.convert_to_numpy(tensor)


def extract(table: ArrayLike, t: Any, ndim: int) -> Any:
    """Look up ``table[t]`` for each image of a batch, shaped to multiply images.

    Args:
        table: one of the schedule's tables, shape ``(T,)``.
        t: int32, shape ``(batch,)``, values in 0 … T-1.
        ndim: the number of axes of the images, 4 for ``(batch, height, width, channels)``.

    Returns:
        float32 tensor of shape ``(batch, 1, …, 1)`` with ``ndim`` axes.

    Raises:
        TypeError: if ``t`` is real: a table has whole steps only.
        ValueError: if a step lies outside 0 … T-1, and can be seen (:func:`checked_steps`).
    """
    if is_real(t):
        raise TypeError(
            f"t is real, of type {getattr(t, 'dtype', 'float')}, but a table holds whole steps "
            "only: give t as int32, or ask schedule.rates(t, ndim), which knows those in between."
        )
    t = checked_steps(t, first=0, last=len(np.asarray(table)) - 1)
    return _looked_up(table, t, ndim)


def _looked_up(table: ArrayLike, t: Any, ndim: int) -> Any:
    from keras import ops

    values = ops.take(ops.convert_to_tensor(_in_float32(table), dtype="float32"), t, axis=0)
    return _multiplying(values, ndim)


def _multiplying(values: Any, ndim: int) -> Any:
    """One number for each image, ``(batch,)``, shaped to multiply images of ``ndim`` axes."""
    from keras import ops

    return ops.reshape(values, (-1,) + (1,) * (ndim - 1))


def _in_float32(table: ArrayLike) -> Any:
    """A table as the network's numbers have it; ValueError where it does not fit into them."""
    table = np.asarray(table, dtype=np.float64)
    with np.errstate(over="ignore"):
        narrow = table.astype(np.float32)
    too_large = np.flatnonzero(np.isinf(narrow) & np.isfinite(table))
    if too_large.size:
        raise ValueError(
            f"a table of the schedule holds {table[too_large[0]]:.2g} at t = {too_large[0]}, and "
            "float32 ends at 3.4e38: so much noise is added that nothing is left of the image. "
            "Use smaller betas or fewer steps, for example make_betas('cosine', 1000)."
        )
    return narrow
