"""Flow matching: from noise to images along a field of velocities, learnt from straight lines.

A pair of a clean image x_0 and noise ε is joined by a straight line, on which s is the share of the
noise, from 0 (clean) to 1 (noise); its velocity is the same all the way (Liu et al. 2022, arXiv
2209.03003; Lipman et al. 2022, arXiv 2210.02747):

    x_s = (1 - s) x_0 + s ε,        dx_s / ds = ε - x_0.

Of all pairs whose lines pass x_s, a network can only learn the mean velocity. To draw, follow it
from s = 1 to s = 0. This is no other theory: divide x_t = a x_0 + b ε by a + b, and it is x_s with
s = b / (a + b). So each schedule of this package walks the straight path, the one called
``"straight"`` in even steps of s; ``prediction="flow"`` asks for the velocity; and all that trains,
draws and saves goes on as it is.

Throughout, ``x`` are points or images ``(n, …)``; ``s`` is real, ``(n,)``; a *velocity* is any
callable ``(x, s) -> dx/ds``, of the shape of ``x``. The noise need not be noise: 8 heaps will do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import make_moons

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.feeding import QuestionSet
from diffusion_walkthrough.forward_diffusion import as_float32
from diffusion_walkthrough.gaussian_mixture import FloatArray, GaussianMixture
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.predictions import PREDICTIONS, check_prediction

Velocity = Callable[[Any, Any], Any]


class Pairs(NamedTuple):
    """What straight lines join: where each ends, and where it begins to be walked."""

    x_start: np.ndarray  # (n, …), clean, at s = 0
    noise: np.ndarray  # (n, …), at s = 1


# The straight path ------------------------------------------------------------------------------


def between(x_start: Any, noise: Any, s: Any) -> Any:
    """Go the share s of the way from clean to noise: x_s = (1 - s) x_0 + s ε, each with its own s.

    Arrays or tensors, ``(n, …)`` and ``(n,)``; returns ``(n, …)``.
    """
    s = _column(s, len(noise.shape))
    return (1 - s) * x_start + s * noise


def path_velocity(x_start: Any, noise: Any) -> Any:
    """The velocity of each line, dx_s / ds = ε - x_0: the same at every s."""
    return noise - x_start


def other_direction(velocity: Any, time: Any) -> tuple[Any, Any]:
    """Tell the same flow with time running the other way: (-velocity, 1 - time), there or back.

    Here, in Stable Diffusion 3 and in diffusers, time is 0 where all is clean. In Liu's and
    Lipman's papers it is 0 in the noise, and the velocity is x_0 - ε (Lipman's with σ_min = 0).
    """
    return -velocity, 1 - time


def _column(s: Any, ndim: int) -> Any:
    """One number for each, ``(n,)``, shaped to multiply points or images of ``ndim`` axes."""
    shape = (-1,) + (1,) * (ndim - 1)
    known = isinstance(s, (int, float, list, tuple, np.ndarray, np.generic))
    return np.reshape(s, shape) if known else ops.reshape(s, shape)


# A schedule walks it, too -------------------------------------------------------------------------


def share_of_noise(schedule: NoiseSchedule, t: Any) -> FloatArray:
    """The s at which the steps t stand, b / (a + b): float64 ``(n,)``; t is whole or real, or -1.

    Raises ValueError for a t that the schedule has not.
    """
    rates = (ops.convert_to_numpy(rate) for rate in schedule.rates(np.array(t), 1))
    a, b = (np.asarray(rate, np.float64).ravel() for rate in rates)
    return np.asarray(b / (a + b))


def straightened(schedule: NoiseSchedule, x_t: Any, t: Any) -> Any:
    """Put x_t of a schedule onto the straight path: x_t / (a + b), a tensor of its shape."""
    x_t = as_float32(x_t)
    a, b = schedule.rates(t, len(x_t.shape))
    return x_t / as_float32(a + b)


def parts_of(schedule: NoiseSchedule, prediction: str, t: Any, ndim: int) -> tuple[Any, Any]:
    """How much image and how much noise a network is asked for: c and d of its answer c x_0 + d ε.

    Each is ``(batch, 1, …, 1)`` with ``ndim`` axes, a float32 tensor. Raises ValueError for an
    unknown prediction, and TypeError for ``"x_prev"`` at a real t.
    """
    target = PREDICTIONS[checks.choice("prediction", prediction, tuple(PREDICTIONS))].target
    a, b = map(as_float32, schedule.rates(t, ndim))
    one, nothing = ops.ones_like(a), ops.zeros_like(a)
    # An image of 1 without noise has x_t = a; no image, and noise of 1, has x_t = b.
    image_alone, noise_alone = (one, nothing, a), (nothing, one, b)
    c, d = (as_float32(target(schedule, *seen, t)) for seen in (image_alone, noise_alone))
    return c, d


def converted(
    schedule: NoiseSchedule, x_t: Any, t: Any, answer: Any, asked: str, wanted: str
) -> Any:
    """Say an answer in other words: what would it be, had the network been asked for ``wanted``?

    x_t = a x_0 + b ε and the answer c x_0 + d ε are two equations for two unknowns; what is wanted
    is another mix of the two. Only their determinant, a d - b c, is divided by: 1 for "v" and a + b
    for "flow", but a for "noise", which is small where hardly anything of the image is left, and b
    for "x_start".

    Args:
        schedule: the noise schedule.
        x_t: noisy images, ``(batch, …)``.
        t: the step of each, int32 or real ``(batch,)``.
        answer: of the network, same shape.
        asked: what it was asked for, one of ``parameters.PREDICTION_NAMES``.
        wanted: likewise.

    Returns:
        A float32 tensor, same shape. Raises ValueError for a name that is none, or if the answer
        does not tell everything (the noise where nothing is left of the image).
    """
    check_prediction(schedule, asked)
    x_t, answer = as_float32(x_t), as_float32(answer)
    ndim = len(x_t.shape)
    a, b = map(as_float32, schedule.rates(t, ndim))
    c, d = parts_of(schedule, asked, t, ndim)
    of_image, of_noise = parts_of(schedule, wanted, t, ndim)
    of_x_t, of_answer = of_image * d - of_noise * c, of_noise * a - of_image * b
    return (of_x_t * x_t + of_answer * answer) / (a * d - b * c)


def x_start_weight(prediction: str, snr: ArrayLike) -> FloatArray:
    """How much the squared error of x_0 counts, if that of ``prediction`` is what training lowers.

    At the same x_t an error e of x_0 is one of -e a/b in the noise, -e / b in v, -e (a + b) / b in
    the velocity, where (a/b)² is the SNR. At an SNR of 0, pure noise, the weights are 0 for the
    noise and 1 for the others; all but that of x_0 itself grow without end where noise is little.

    Args:
        prediction: ``"noise"``, ``"x_start"``, ``"v"`` or ``"flow"``.
        snr: signal-to-noise ratios from 0 on, any shape.

    Returns float64, the shape of ``snr``. Raises ValueError for another prediction.
    """
    ratios = np.asarray(snr, np.float64)
    weights: dict[str, Callable[[FloatArray], FloatArray]] = {
        "noise": lambda snr: snr,
        "x_start": np.ones_like,
        "v": lambda snr: snr + 1,
        "flow": lambda snr: (np.sqrt(snr) + 1) ** 2,
    }
    return weights[checks.choice("prediction", prediction, tuple(weights))](ratios)


# Following a velocity ---------------------------------------------------------------------------


def euler(velocity: Velocity, noise: ArrayLike, steps: int) -> np.ndarray:
    """Walk from s = 1 to 0 in even, straight steps: x ← x - ds v(x, s). Asks once a step.

    On the straight path this is DDIM (``faster_sampling.ddim_step``), to the last digits.

    Returns the stops, ``(steps + 1, n, …)``, the noise first. Raises TypeError or ValueError for a
    number of steps below 1.
    """
    return _walked(velocity, noise, steps, second_look=False)


def heun(velocity: Velocity, noise: ArrayLike, steps: int) -> np.ndarray:
    """Walk likewise, with the mean of the velocities at both ends of a step. Asks twice a step."""
    return _walked(velocity, noise, steps, second_look=True)


def _walked(velocity: Velocity, noise: Any, steps: int, second_look: bool) -> np.ndarray:
    steps = checks.integer("steps", steps, 1)
    x = np.asarray(noise, np.result_type(noise, np.float32))
    ds, stops = 1 / steps, [x]
    for s in 1 - np.arange(steps) / steps:
        v = _asked(velocity, x, s)
        if second_look:
            v = (v + _asked(velocity, x - ds * v, s - ds)) / 2
        x = x - ds * v
        stops.append(x)
    return np.stack(stops)


def _asked(velocity: Velocity, x: np.ndarray, s: float) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(velocity(x, np.full(len(x), s, x.dtype))))


def bend(stops: np.ndarray) -> float:
    """How far walks are from straight: 0 if all are, at an even pace; larger the more they bend.

    The mean of |dx/ds - (noise - x_0)|² over all steps and walkers, the straightness of Liu et al.
    2022, as a share of the mean of |noise - x_0|². ``stops`` are as :func:`euler` returns them, at
    least three: two of them always are straight.
    """
    stops = np.asarray(stops, np.float64)
    whole = stops[-1] - stops[0]
    off = np.diff(stops, axis=0) * (len(stops) - 1) - whole
    return float(np.mean(off**2) / np.mean(whole**2))


# What there is to learn ---------------------------------------------------------------------------


def mixture_velocity(mixture: GaussianMixture, x: ArrayLike, s: ArrayLike) -> FloatArray:
    """The mean velocity at x and s, E[ε - x_0 | x_s = x], in the world of one dimension: exactly.

    x and s are numbers or arrays that broadcast, s from 0 to 1; returns float64.
    """
    x, s = np.asarray(x, np.float64), np.asarray(s, np.float64)
    size = np.hypot(1 - s, s)  # x / size is x_t of Eq. 4, with a = (1 - s) / size
    place, alpha_bar = x / size, ((1 - s) / size) ** 2
    known = mixture.expected_noise(place, alpha_bar), mixture.expected_x_start(place, alpha_bar)
    return np.asarray(known[0] - known[1])


def paired(x_start: np.ndarray, noise: np.ndarray, labels: ArrayLike | None = None) -> Pairs:
    """Pair the points of a batch anew, with the smallest sum of squared distances there is.

    Minibatch optimal transport (Tong et al. 2023, arXiv 2302.00482; Pooladian et al. 2023, arXiv
    2304.14772): who is near is joined, so that lines seldom cross. With labels, each class keeps
    the noise that stands beside it, which is random, and is paired within: else a class would get
    noise of its own region, and meet other noise when it is drawn.

    Args:
        x_start: clean, ``(n, …)``.
        noise: same shape.
        labels: ``(n,)``, for a network that is told them.

    Returns ``x_start`` as it is, and the noise in another order. Raises ValueError if they are not
    as many.
    """
    if len(x_start) != len(noise) or (labels is not None and len(np.ravel(labels)) != len(noise)):
        raise ValueError(
            f"{len(x_start)} clean ones and {len(noise)} of noise cannot be paired: there must be "
            "as many of each, and of the labels. Draw the noise with the shape of x_start."
        )
    order = np.empty(len(noise), int)
    classes = np.zeros(len(noise)) if labels is None else np.ravel(labels)
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        order[own] = own[_nearest(x_start[own], noise[own])]
    return Pairs(x_start, noise[order])


def _nearest(x_start: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Which noise each clean point gets. |x - y|² is least in all where x · y is greatest."""
    flat, other = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (x_start, noise))
    return np.asarray(linear_sum_assignment(-flat @ other.T)[1])


def reflowed(velocity: Velocity, noise: np.ndarray, steps: int = 100) -> Pairs:
    """Pair noise with where it is carried by a velocity: what a second training learns from.

    One round of *reflow* (Liu et al. 2022): the lines between the two ends of exact walks are no
    longer than those of the pairs before, on the mean, and what is learnt from them bends less.
    """
    return Pairs(euler(velocity, noise, steps)[-1], noise)


# Toys -------------------------------------------------------------------------------------------


def eight_gaussians(n: int, random: np.random.Generator) -> np.ndarray:
    """Draw n points of eight heaps of deviation 0.3 on a circle of radius 2.4: ``(n, 2)``."""
    angle = 2 * np.pi * random.integers(8, size=n) / 8
    heap = 2.4 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return (heap + 0.3 * random.standard_normal((n, 2))).astype(np.float32)


def two_moons(n: int, random: np.random.Generator) -> np.ndarray:
    """Draw n points of scikit-learn's two moons about the middle, within the circle: ``(n, 2)``."""
    points, _ = make_moons(n, noise=0.07, random_state=int(random.integers(2**31)))
    return np.asarray(1.3 * (points - (0.5, 0.25)), np.float32)


def checkerboard(n: int, random: np.random.Generator) -> np.ndarray:
    """Draw n points of the eight dark squares of a board that reaches from -2 to 2: ``(n, 2)``."""
    column, row = random.integers(4, size=n), random.integers(2, size=n)
    corner = np.stack([column, 2 * row + column % 2], axis=-1)
    return (corner + random.random((n, 2)) - 2).astype(np.float32)


# Learning it ------------------------------------------------------------------------------------


def point_network(width: int = 96, depth: int = 3, seed: int = 0) -> keras.Model:
    """A small network for points of a plane: ``[x, s]``, ``(n, 2)`` and ``(n,)``, to a velocity.

    Not compiled; the same weights for the same seed.
    """
    x, s = keras.Input((2,), name="x"), keras.Input((), name="s")
    h = layers.Concatenate()([x, layers.Reshape((1,))(s)])
    for level in range(depth):
        start = keras.initializers.HeNormal(seed=seed + level)
        h = layers.Dense(width, "relu", kernel_initializer=start)(h)
    last = keras.initializers.GlorotUniform(seed=seed + depth)
    return keras.Model([x, s], layers.Dense(2, kernel_initializer=last)(h), name="points")


def learn(pairs: Pairs, passes: int = 2, batch_size: int = 512, seed: int = 0) -> Velocity:
    """Train a network of points on pairs ``(n, 2)``; returns what it has learnt, a velocity.

    Adam lowers the squared error of the velocity, at a rate that falls from 0.01 to 0 along half a
    cosine, while it goes through the pairs, in each of the ``passes`` at an s of their own. Draw
    many pairs where they cost nothing, such as 300,000, or they are learnt by heart.
    """
    pairs = Pairs(*(np.tile(np.asarray(part, np.float32), (passes, 1)) for part in pairs))
    s = np.random.default_rng(seed).random(len(pairs.noise), "float32")
    x_s, right = between(*pairs, s), path_velocity(*pairs)
    network = point_network(seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, -(-len(s) // batch_size))
    at_once = 1 if keras.backend.backend() == "torch" else 20  # steps; PyTorch knows one
    network.compile(keras.optimizers.Adam(rate), "mse", steps_per_execution=at_once)
    network.fit([x_s, s], right, batch_size=batch_size, shuffle=False, verbose=0)
    return lambda x, s: network.predict_on_batch([np.float32(x), np.float32(s)])


class PairQuestions(QuestionSet):
    """Questions about images under *given* noise, for ``DiffusionModel.fit``: reflow, or paired.

    As ``training.Questions``, but for the noise: image and noise stay together, only t is drawn
    anew. A batch depends on nothing but the seed, the epoch and its number.
    """

    def __init__(
        self, pairs: Pairs, schedule: NoiseSchedule, batch_size: int, seed: int = 0
    ) -> None:
        """Plan the batches of pairs ``(n, height, width, channels)``; all have the same size.

        Raises TypeError or ValueError for a size or seed that cannot be, or more than there are.
        """
        super().__init__(batch_size=batch_size, seed=seed)
        checks.integer("batch_size", batch_size, 1, len(pairs.noise))
        self.pairs = Pairs(*(np.asarray(part, np.float32) for part in pairs))
        self.schedule = schedule

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self.pairs.noise) // self.batch_size

    def batch(self, epoch: int, number: int) -> tuple[Any, ...]:
        """What the network is shown, ``(x_t, t)``, and what was done to the images."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.pairs.noise))
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        random = np.random.default_rng([self.seed, epoch, number, 1])
        t = random.integers(len(self.schedule), size=len(chosen), dtype="int32")
        x_start, noise = (part[chosen] for part in self.pairs)
        a, b = self.schedule.rates(t, x_start.ndim)
        return (a * x_start + b * noise, t), {"x_start": x_start, "noise": noise}
