"""Fewer steps: other ways back from noise, and better places to ask on the way.

A step back needs no noise. Divide x_t = a x_0 + b ε by a, and write σ = b/a: what is left is the
image with noise of deviation σ on it, x_t / a = x_0 + σ ε. Where σ falls, it moves along a curve
whose slope is ε, the *probability-flow equation* (Song et al. 2021, arXiv 2011.13456; in these
letters Karras et al. 2022, arXiv 2206.00364):

    d(x/a) / dσ = ε(x, σ) = (x - a x_0(x, σ)) / b.

The steps here follow that curve; each is a few lines, which say what is taken for ε on the way from
σ_t to σ_s. All have the arguments and the result of ``ddpm_step``, and are walked with ``walk``,
``stops`` or a model's ``sample`` as it is:

- ``x_t`` ``(batch, …)`` at ``t`` ``(batch,)``, to go to ``s`` below ``t``, -1 being clean; ``t``
  and ``s`` are int32, or float32 and then real; ``z`` is standard normal, shaped like ``x_t``;
- the result is x_s and the guess of x_0 at t, each ``(batch, …)``, float32.

Where to ask counts as much as how to step: see :func:`spaced`. A network was trained at whole steps
only; asked between two of them, it goes by the waves of its time embedding, which are smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from diffusion_walkthrough.backward_sampling import (
    DenoiseFn,
    ddpm_step,
    guess_x_start,
    stops,
    times,
    walk,
)
from diffusion_walkthrough.checks import LARGEST, choice, integer, message, real, within
from diffusion_walkthrough.engine.drawing import check_options, if_any
from diffusion_walkthrough.engine.noise import NoiseOfPart, checked_clean, generator_of
from diffusion_walkthrough.forward_diffusion import as_float32, q_sample
from diffusion_walkthrough.noise_schedule import NOTHING_LEFT, FloatArray, NoiseSchedule
from diffusion_walkthrough.predictions import SMALLEST, predict_noise_from_x_start

# One step -------------------------------------------------------------------------------------


def ddim_step(
    denoise: DenoiseFn, schedule: NoiseSchedule, x_t: Any, t: Any, s: Any, z: Any, eta: float = 0.0
) -> tuple[Any, Any]:
    """DDIM: the noise seen in x_t is left in x_s, less of it (Song et al. 2021, 2010.02502 Eq. 12).

    ``eta`` η says how much of that noise is new: none with 0, and with 1 as much as ``ddpm_step``
    with the variance ``"fixed_small"`` has. With 0 it is Euler's step on the curve, of order 1.
    Asks once. Raises TypeError or ValueError unless η is a number in 0 … 1.
    """
    eta = real("eta", eta, "from 0 to 1", lambda eta: 0 <= eta <= 1)
    x_start = guess_x_start(denoise, x_t, t)
    return _moved(schedule, x_start, x_t, t, s, z, eta), x_start


def dpm_2m_step(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    x_t: Any,
    t: Any,
    s: Any,
    z: Any,
    before: tuple[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """DPM-Solver++(2M): DDIM towards where x_0 is heading (Lu et al. 2022, 2211.01095, Alg. 2).

    What the step before saw costs nothing: x_0 is carried on from there in a straight line over
    log σ, by half of this step. That makes order 2. The first step, and the last, whose log σ has
    no end, are DDIM's. Asks once. On the way x_0 may be carried out of [-1, 1]; the last is not.

    ``before`` is t and the guess of x_0 of the step before, which a walk hands on; None, or a t of
    -1, for the first step.
    """
    x_start = ahead = guess_x_start(denoise, x_t, t)
    if before is not None:
        earlier, seen = before
        sigma_before, sigma, sigma_next = (b / a for a, b in _rates(schedule, x_t, earlier, t, s))
        share = ops.log(sigma_next / sigma) / ops.log(sigma / sigma_before) / 2
        carried_on = share * (x_start - as_float32(seen))
        is_known = ops.logical_and(sigma_before > 0, sigma_before < LARGEST)
        at_an_end = ops.logical_or(sigma_next == 0, ops.logical_not(is_known))
        ahead = ops.where(at_an_end, x_start, x_start + carried_on)
    return _moved(schedule, ahead, x_t, t, s, z), x_start


def heun_step(
    denoise: DenoiseFn, schedule: NoiseSchedule, x_t: Any, t: Any, s: Any, z: Any
) -> tuple[Any, Any]:
    """Heun: to s as DDIM does, then with the mean of both ends' slopes (Karras et al., Alg. 1).

    Order 2. Asks twice, but once in the step to the clean image, where no slope is left, and in one
    from where float32 sees nothing of the image (a of 0 or nearly, σ infinite): they stay DDIM's.
    """
    x_start = guess_x_start(denoise, x_t, t)
    x_s = _moved(schedule, x_start, x_t, t, s, z)
    (a_t, b_t), (a_s, b_s) = _rates(schedule, x_s, t, s)
    has_two_ends = ops.logical_and(a_t >= SMALLEST, b_s > 0)

    def corrected() -> Any:
        there = ops.maximum(s, 0)
        slope = predict_noise_from_x_start(schedule, x_t, t, x_start)
        slope_there = predict_noise_from_x_start(
            schedule, x_s, there, guess_x_start(denoise, x_s, there)
        )
        way = b_s - a_s * b_t / a_t  # a_s (σ_s - σ_t)
        return ops.where(has_two_ends, x_s + way * (slope_there - slope) / 2, x_s)

    return if_any(has_two_ends, corrected, lambda: x_s), x_start


def _rates(schedule: NoiseSchedule, x: Any, *places: Any) -> list[tuple[Any, Any]]:
    """a and b at each of some places, as tensors."""
    return [schedule.rates(ops.convert_to_tensor(place), len(x.shape)) for place in places]


def _moved(
    schedule: NoiseSchedule, x_start: Any, x_t: Any, t: Any, s: Any, z: Any, eta: float = 0.0
) -> Any:
    """x_s = a_s x_0 + b_s (k ε + f z), k² + f² = 1: some noise is kept, and some is fresh."""
    noise = predict_noise_from_x_start(schedule, x_t, t, x_start)
    (a_t, b_t), (a_s, b_s) = _rates(schedule, noise, t, s)
    left = ops.square(a_t * b_s / ops.maximum(a_s * b_t, SMALLEST))  # σ_s² / σ_t²
    # Not as 1 - f²: where hardly any noise is kept, float32 would lose what that is.
    kept = ops.sqrt(1.0 - eta**2 + eta**2 * left)
    fresh = eta * ops.sqrt(ops.maximum(1.0 - left, 0.0))
    return a_s * x_start + b_s * (kept * noise + fresh * as_float32(z))


# Where to ask -----------------------------------------------------------------------------------


def karras_sigmas(first: float, last: float, steps: int) -> FloatArray:
    """σ whose seventh root falls evenly (Karras et al. 2022, Eq. 5): closer together near 0."""
    return np.linspace(first ** (1 / 7), last ** (1 / 7), steps) ** 7


#: By their names, functions (first σ, last σ, how many) -> the σ at which to ask, ``(how many,)``.
#: In the first, log SNR = -2 log σ rises evenly (Lu et al. 2022, arXiv 2206.00927).
SPACINGS: dict[str, Callable[..., FloatArray]] = {"log_snr": np.geomspace, "karras": karras_sigmas}

#: Of a walk that asks between the steps of its schedule: more change nothing that can be seen.
MOST_STEPS = 10_000

SPACING_NAMES = ("even", *SPACINGS)


def time_of(schedule: NoiseSchedule, sigma: float, name: str = "sigma") -> float:
    """The real t in 0 … T-1 at which b/a is ``sigma``; ValueError if it is so at no t."""
    first, last = schedule.sqrt_recipm1_alphas_cumprod[[0, -1]]
    rule = f"between this schedule's first and last σ, {first:.3g} and {last:.4g}"
    return float(_times_of(schedule, real(name, sigma, rule, lambda sigma: first <= sigma <= last)))


def _times_of(schedule: NoiseSchedule, sigmas: ArrayLike) -> FloatArray:
    log_sigmas = np.maximum(schedule.log_snr, NOTHING_LEFT) / -2
    return np.asarray(np.interp(np.log(sigmas), log_sigmas, np.arange(len(schedule))))


def spaced(
    schedule: NoiseSchedule,
    steps: int | None = None,
    spacing: str = "even",
    sigma_max: float | None = None,
) -> list[float]:
    """List the t at which a walk asks, for its option ``steps``: as ``times`` does, or otherwise.

    Args:
        schedule: the noise schedule, of T steps.
        steps: how many t; None for T, which is the most if they are even; if not, it is
            :data:`MOST_STEPS`, or T. The last step, to the clean image, is from the last of them.
        spacing: ``"even"`` in t, as ``times`` is ("trailing"); ``"log_snr"``, even in log SNR from
            the first to the σ of t = 0; or ``"karras"``, between the same, see
            :func:`karras_sigmas`.
        sigma_max: the σ to begin at, such as 80; None for that of T-1, which may be in the
            thousands. What is left of the image there, 1 part in σ, the walk does without.

    Returns:
        Falling t in 0 … T-1: whole if even and from T-1, else real. Raises TypeError or ValueError
        for an unknown spacing, for ``steps`` that cannot be, or a σ that the schedule has not.
    """
    choice("spacing", spacing, SPACING_NAMES)
    most = None if spacing == "even" else max(MOST_STEPS, len(schedule))
    steps = integer("steps", len(schedule) if steps is None else steps, 1, most)
    if spacing == "even" and sigma_max is None:
        return times(schedule, steps)
    start = len(schedule) - 1 if sigma_max is None else time_of(schedule, sigma_max, "sigma_max")
    if spacing == "even":
        within("steps", steps, 1, int(start) + 1)
        return [float(t) for t in np.linspace(start, -1, steps, endpoint=False)]
    sigmas = schedule.sqrt_recipm1_alphas_cumprod
    first = sigmas[-1] if sigma_max is None else sigma_max
    if not np.isfinite(first):
        raise ValueError(
            f"spacing = {spacing!r} begins at the σ of the last step, but nothing is left of the "
            "image there, so that it is infinite. Begin at another: sigma_max=80."
        )
    rest = SPACINGS[spacing](first, sigmas[0], steps)[1:]
    return [float(start), *_times_of(schedule, rest).tolist()]


# Once more --------------------------------------------------------------------------------------

#: Of the noise of a restart, and how many steps the way back has: right for the faces (chapter 09).
RESTART_SIGMA, RESTART_STEPS = 0.4, 10

_OF_THE_FIRST_WALK = ("steps", "start", "x_T", "shared_noise_steps")


def restart(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    images: Any,
    sigma: float,
    step: Callable[..., Any] = ddpm_step,
    *,
    seed: Any = None,
    **options: Any,
) -> Any:
    """Hide drawn images under noise once more, and walk back anew: some errors stay behind.

    What the network got wrong it does not see again, and may do better; what it got right can be
    told through a little noise. (Xu et al. 2023, arXiv 2306.14878, restart in mid-walk. With an
    exact denoise function images stay as likely as they were.)

    Args:
        denoise, schedule, step: as for ``walk``.
        images: drawn ones, ``(batch, …)`` in [-1, 1].
        sigma: of the noise, beside images of full strength; at most that of the schedule.
        seed: of the noise and of the way back; a number, None, a ``SeedGenerator``, or a
            ``NoiseOfPart``.
        **options: those of ``walk``; ``steps`` is how many the way back has, None for all.

    Returns float32 ``(batch, …)``. Raises TypeError or ValueError for a σ that the schedule has
    not, for images that are none in [-1, 1], and as ``walk`` does.
    """
    return _restart(denoise, schedule, checked_clean(images), sigma, step, seed=seed, **options)


def _restart(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    images: Any,
    sigma: float,
    step: Callable[..., Any],
    *,
    seed: Any = None,
    **options: Any,
) -> Any:
    images, start = as_float32(images), round(time_of(schedule, sigma))
    whole = isinstance(seed, NoiseOfPart)
    source = seed if whole else NoiseOfPart(generator_of(seed), len(images))
    noise = source.draw(images.shape)
    x_t = q_sample(schedule, images, np.full(len(images), start), noise)
    options = {"x_T": x_t, "start": start, "seed": source, **options}
    return walk(step, denoise, schedule, images.shape, **options)


def restarted(
    step: Callable[..., Any],
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    shape: Sequence[int],
    *,
    restarts: int = 0,
    restart_sigma: float | None = None,
    restart_steps: int | None = None,
    seed: Any = None,
    **options: Any,
) -> Any:
    """Walk from noise to images, and :func:`restart` them so many times.

    Args:
        step, denoise, schedule, shape, seed, options: as for ``walk``.
        restarts: how many, each with noise and steps back of its own.
        restart_sigma: the σ of their noise; None for ``RESTART_SIGMA``.
        restart_steps: how many steps back each has; None for ``RESTART_STEPS``, or all that there
            are.

    Returns float32 of ``shape``. Raises TypeError or ValueError as ``restart`` and ``walk`` do,
    before anything is drawn.
    """
    if not integer("restarts", restarts, 0):
        _check_none(restart_sigma=restart_sigma, restart_steps=restart_steps)
        return walk(step, denoise, schedule, shape, seed=seed, **options)
    restart_sigma = RESTART_SIGMA if restart_sigma is None else restart_sigma
    start = round(time_of(schedule, restart_sigma, "restart_sigma"))
    steps = min(RESTART_STEPS, start + 1) if restart_steps is None else restart_steps
    own = {name: value for name, value in options.items() if name not in _OF_THE_FIRST_WALK}
    again = {"steps": within("restart_steps", steps, 1, start + 1), **own}
    told = {"progress": again.pop("progress", False)}
    next(stops(step, denoise, schedule, shape, x_T=np.zeros(shape), start=start, **again))
    source = seed if isinstance(seed, NoiseOfPart) else NoiseOfPart(generator_of(seed), shape[0])
    images = walk(step, denoise, schedule, shape, seed=source, **options)
    for _ in range(restarts):
        told |= {"seed": source, **again}
        images = _restart(denoise, schedule, images, restart_sigma, step, **told)
    return images


def _check_none(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            rule = "it says how a restart is made, and there are none"
            raise ValueError(message(name, value, rule, "Pass restarts=3, or leave it out"))


# By name ----------------------------------------------------------------------------------------

SAMPLERS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "ddpm": ddpm_step,
    "ddim": ddim_step,
    "dpm++2m": dpm_2m_step,
    "heun": heun_step,
}


#: What a walk is given beside its options.
_NO_OPTIONS = ("walk", "denoise", "schedule", "shape", "every_stop")


def named(
    schedule: NoiseSchedule,
    step: str | Callable[..., Any],
    /,
    steps: Any = None,
    spacing: str = "even",
    sigma_max: float | None = None,
    **options: Any,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Look up what goes by a name: the kind of step, and the options of its ``walk``.

    ``step`` is one of :data:`SAMPLERS` or a function; ``steps``, ``spacing`` and ``sigma_max`` are
    those of :func:`spaced`, and become ``steps``; all other ``options`` stay as they are. Raises
    TypeError or ValueError for an unknown name, and as :func:`spaced` does.
    """
    if not callable(step):
        step = SAMPLERS[choice("step", step, tuple(SAMPLERS))]
    check_options(step, {name: options[name] for name in _NO_OPTIONS if name in options})
    if (spacing, sigma_max) != ("even", None):
        steps = spaced(schedule, steps, spacing, sigma_max)
    return step, {"steps": steps, **options}
