"""Instruments: the checks of chapters 00 to 09, as functions of a whole program.

A *program* is anything whose attributes are modules of this package, such as ``bug_hunt.Program``,
in which one line may be wrong. Each instrument measures what it does and says what it should do,
by a law that is told the program's β at most: ``jump(program)``. What it looks at can be changed
by its *knobs*: ``jump(program, t=[999, 0])``. A mistake may show only there.

Each returns a :class:`Reading`, and raises TypeError or ValueError for a place that it cannot
measure. :data:`INSTRUMENTS` has all of them by name.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from diffusion_walkthrough import checks
from diffusion_walkthrough.gaussian_mixture import (
    ONE_DIMENSIONAL_WORLD,
    FloatArray,
    GaussianMixture,
)

#: The clean and the noisy number that chapter 01 begins with.
X_0, X_T = 0.8, -0.6


class Row(NamedTuple):
    """One thing that was measured."""

    what: str
    measured: float
    expected: float
    tolerance: float

    @property
    def is_off(self) -> bool:
        """Whether the program does something else than it should; NaN is something else."""
        return not abs(self.measured - self.expected) <= self.tolerance


class Reading(NamedTuple):
    """What an instrument says of a program."""

    instrument: str
    knobs: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def rings(self) -> bool:
        """Whether anything is off."""
        return any(row.is_off for row in self.rows)

    def __repr__(self) -> str:
        """A table: what was measured, what it should be, and a cross where the two differ."""
        turned = ", ".join(f"{name}={value!r}" for name, value in self.knobs.items())
        lines = [f"{f'{self.instrument}({turned})':<44}{'is':>9}{'should be':>11}"]
        for what, *numbers, _ in self.rows:
            lines.append(f"  {what:<42}" + "".join(map("{:>9}  ".format, map(_written, numbers))))
        crosses = ["", *(" ✗" * row.is_off for row in self.rows)]
        return "\n".join(line.rstrip() + cross for line, cross in zip(lines, crosses, strict=True))


#: By name, functions ``(program, **knobs) -> Reading``, in the order of the chapters.
INSTRUMENTS: dict[str, Callable[..., Reading]] = {}


def _instrument(chapter: str) -> Callable[[Callable[..., Iterator[Row]]], Callable[..., Reading]]:
    """Make an instrument of a function that yields rows."""

    def made(measure: Callable[..., Iterator[Row]]) -> Callable[..., Reading]:
        name = measure.__name__

        @functools.wraps(measure)
        def read(program: Any, **knobs: Any) -> Reading:
            rows = tuple(measure(program, **knobs))
            if not rows:
                raise ValueError(f"{name} has nothing to measure with {knobs}: name at least one.")
            return Reading(name, knobs, rows)

        read.__annotations__["return"] = "Reading"
        read.__dict__["chapter"] = chapter
        INSTRUMENTS[name] = read
        return read

    return made


def catalogue() -> str:
    """List all instruments: the chapter of each, its knobs, and what it measures."""
    lines = []
    for name, instrument in INSTRUMENTS.items():
        knobs = ", ".join(list(inspect.signature(instrument).parameters)[1:])
        told = (inspect.getdoc(instrument) or "").splitlines()[0].rstrip(".")
        lines.append(f"{vars(instrument)['chapter']:<5}{f'{name}({knobs})':<39}{told}")
    return "\n".join(lines)


# Data, noise --------------------------------------------------------------------------------------


@_instrument("00")
def images(program: Any, name: str = "digits", split: str = "train") -> Iterator[Row]:
    """The darkest and the brightest pixel of a data set."""
    shown, _ = program.data.load_images(name, split=split)
    yield Row("darkest pixel", float(shown.min()), -1.0, 0.01)
    yield Row("brightest pixel", float(shown.max()), 1.0, 0.01)


@_instrument("01")
def crowd(program: Any, beta: float = 0.02, steps: int = 200) -> Iterator[Row]:
    """The variance of a crowd that takes steps of noise, beginning at 9."""
    random, n = np.random.default_rng(0), 5000
    x: Any = 3 * _pure_noise(random, 1, n)[0]
    for _ in range(steps):
        x = program.forward_diffusion.add_noise(x, beta, random.standard_normal(n))
    kept = (1 - beta) ** steps
    yield Row(f"variance after {steps} steps", _array(x).var(), 1 + 8 * kept, 0.15)


@_instrument("01")
def jump(
    program: Any, t: Sequence[int] | None = None, T: int = 1000, name: str = "linear"
) -> Iterator[Row]:
    """Mean and variance of x_t, by a jump from 0.8 to all t in order."""
    schedule = _schedule(program, T, name)
    steps = np.arange(T) if t is None else np.asarray(t, int)
    noise = _pure_noise(np.random.default_rng(0), len(steps), 64)
    x_t = _array(program.forward_diffusion.q_sample(schedule, 0 * noise + X_0, steps, noise))
    kept = np.cumprod(1 - schedule.betas)[steps]
    for i in _a_few(len(steps)):
        yield Row(f"mean at t = {steps[i]}", x_t[i].mean(), np.sqrt(kept[i]) * X_0, 0.005)
        yield Row(f"variance at t = {steps[i]}", x_t[i].var(), 1 - kept[i], 0.005)


@_instrument("01")
def posterior(program: Any, T: int = 20, t: int = 6) -> Iterator[Row]:
    """A step back with x_0 known, beside the product of the two clues."""
    schedule, t = _schedule(program, T), checks.integer("t", t, 1, T - 1)
    x_0, x_t = _float32([X_0]), _float32([X_T])
    step_back = program.forward_diffusion.q_posterior_mean_variance
    mean, variance, _ = map(_array, step_back(schedule, x_0, x_t, np.array([t])))
    right_mean, right_variance = _two_clues(schedule.betas, t)
    yield Row("mean of x one step earlier", mean.item(), right_mean, 0.002)
    yield Row("its variance", variance.item(), right_variance, 0.002)


@_instrument("02")
def signal_left(program: Any, T: int = 100, name: str = "linear") -> Iterator[Row]:
    """√ᾱ of the last step: of the image, in what should be pure noise."""
    betas = program.noise_schedule.make_betas(name, T)
    yield Row("signal left", np.sqrt(np.prod(1 - betas)), 0.0, 0.1)


# Network ------------------------------------------------------------------------------------------


@_instrument("03")
def waves(program: Any, T: int = 1000, width: int = 16) -> Iterator[Row]:
    """How the waves of a step number turn, the fast and the slow."""
    embedded = _array(program.unet.timestep_embedding(np.arange(T), width))
    hands = embedded[:, : width // 2] + 1j * embedded[:, width // 2 :]
    turned = np.abs(np.angle(hands[1] / hands[0]))  # by how much each hand turns in a step
    yield Row("turn of the fastest hand", turned.max(), 1.0, 0.01)
    yield Row("turn of the slowest, in 10,000 steps", 1e4 * turned.min(), 1.0, 0.05)


@_instrument("03")
def attention(program: Any, channels: int = 64, pixels: int = 64) -> Iterator[Row]:
    """At how many pixels a pixel looks, if all is noise."""
    queries, keys = _float32(np.random.default_rng(0).standard_normal((2, 1, pixels, channels)))
    looks = _array(program.unet.attention_weights(queries, keys))[0]
    entropy = -np.sum(looks * np.log(np.maximum(looks, 1e-12)), axis=-1).mean()
    yield Row("sum of what a pixel looks at", looks.sum(axis=-1).mean(), 1.0, 0.001)
    # Scores of variance 1 take half a nat from the entropy of looking everywhere.
    yield Row("pixels that it looks at", np.exp(entropy), pixels * np.exp(-0.5), 0.2 * pixels)


@_instrument("03")
def network(
    program: Any, multipliers: Sequence[int] = (1, 2), size: int = 8, base_width: int = 8
) -> Iterator[Row]:
    """A new network: how often it halves, and its first answers."""
    shape = program.parameters.UNetParameters(
        size, 1, base_width, tuple(multipliers), 1, (), 0.0, groups=4
    )
    try:
        unet = program.unet.build_unet(shape)
    except ValueError as error:
        yield Row(f"is built ({type(error).__name__})", 0, 1, 0)
        return
    halved = [layer for layer in unet.layers if "downsample" in layer.name]
    noise = _float32(np.random.default_rng(0).standard_normal((4, size, size, 1)))
    answer = _array(unet([ops.convert_to_tensor(noise), ops.arange(4, dtype="float32")]))
    yield Row("how often it is halved", len(halved), len(shape.width_multipliers) - 1, 0)
    yield Row("mean square of the first answers", np.square(answer).mean(), 0.0, 0.01)


# Loss, training -----------------------------------------------------------------------------------


@_instrument("04")
def round_trip(
    program: Any, prediction: str = "noise", t: Sequence[int] | None = None, T: int = 1000
) -> Iterator[Row]:
    """Hide 0.8, tell the right answer, find it again, at every t."""
    schedule = _schedule(program, T)
    steps = np.arange(T) if t is None else np.asarray(t, int)
    kept = np.cumprod(1 - schedule.betas)[steps, None]
    x_0, noise = np.full((len(steps), 1), X_0), np.full((len(steps), 1), 1.5)
    x_t = _float32(np.sqrt(kept) * x_0 + np.sqrt(1 - kept) * noise)
    asked = program.predictions.PREDICTIONS[prediction]
    answer = asked.target(schedule, _float32(x_0), _float32(noise), x_t, steps)
    found = _array(asked.to_x_start(schedule, x_t, steps, answer))[:, 0]
    for i in _a_few(len(steps)):
        yield Row(f"0.8 again, hidden at t = {steps[i]}", found[i], X_0, 0.01)


@_instrument("04")
def marks(program: Any) -> Iterator[Row]:
    """The loss of three answers: nothing, the right one, twice that."""
    rules = program.parameters.DiffusionParameters.digits()
    noise = _float32(_pure_noise(np.random.default_rng(0), 1, 4096))
    for name, share, loss in (("nothing", 0, 1.0), ("the noise", 1, 0.0), ("twice that", 2, 1.0)):
        answer = share * noise
        marked = program.loss.mark(answer, None, noise, noise, None, noise, rules)
        yield Row(f"loss of who answers {name}", _array(marked).item(), loss, 0.01)


@_instrument("04")
def overfit(program: Any, steps: int = 60) -> Iterator[Row]:
    """Sixteen questions again and again: all can be learned."""
    losses = training_curve(program, steps)
    yield Row("loss at the start", losses[0], 1.0, 0.1)
    yield Row(f"loss after {steps} steps", losses[-1], 0.0, 0.05)


def training_curve(program: Any, steps: int = 60) -> FloatArray:
    """The loss of a small network at each step on the same sixteen questions, ``(steps,)``."""
    random = np.random.default_rng(0)
    shown, noise = _float32(random.standard_normal((2, 16, 64)))
    rules, losses = program.parameters.DiffusionParameters.digits(), []
    hidden = keras.layers.Dense(128, "relu", kernel_initializer=keras.initializers.GlorotUniform(1))
    pocket = keras.Sequential([hidden, keras.layers.Dense(64, kernel_initializer="zeros")])
    pocket.compile(
        keras.optimizers.Adam(0.01),
        loss=lambda noise, answer: program.loss.mark(
            answer, None, noise, noise, None, noise, rules
        ),
    )

    class Keep(keras.callbacks.Callback):
        """Keep the loss of each step."""

        before = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            # Keras tells the mean of all steps so far.
            total = (batch + 1) * float(logs["loss"])
            losses.append(total - self.before)
            self.before = total

    again = [np.tile(x, (steps, 1)) for x in (shown, noise)]
    pocket.fit(*again, batch_size=16, shuffle=False, verbose=0, callbacks=[Keep()])
    return np.array(losses)


@_instrument("04b")
def kl(program: Any, mean: float = 0.3, spread: float = 0.5) -> Iterator[Row]:
    """The KL divergence of two bells, beside a sum of small pieces."""
    true, believed = (
        GaussianMixture((1.0,), (mean,), (spread,)),
        GaussianMixture((1.0,), (0,), (1,)),
    )
    x = np.linspace(-20, 20, 80_001)
    summed = np.sum(true.pdf(x) * (true.log_pdf(x) - believed.log_pdf(x))) * (x[1] - x[0])
    log_variance = 2 * np.log(spread)
    found = program.loss.normal_kl(mean, log_variance, 0.0, 0.0)
    yield Row("KL divergence", _array(found).item(), summed, 0.002)
    same = program.loss.normal_kl(mean, log_variance, mean, log_variance)
    yield Row("of a bell and itself", _array(same).item(), 0.0, 0.002)


@_instrument("04b")
def levels(program: Any, mean: float = 0.0, spread: float = 0.1, count: int = 17) -> Iterator[Row]:
    """The probabilities of all grey levels, added up."""
    each = _float32(np.linspace(-1, 1, count))
    logs = program.loss.discretized_gaussian_log_likelihood(each, mean, np.log(spread), count)
    yield Row("sum of the probabilities", np.exp(_array(logs)).sum(), 1.0, 0.005)


@_instrument("05")
def average(program: Any, steps: int = 70, momentum: float = 0.9999) -> Iterator[Row]:
    """A weight on its way from 0 to 1, and the average that is kept."""
    own, averaged = averaging(program, steps, momentum)
    yield Row("the weight", own[-1], 1.0, 0.05)
    yield Row("its average", averaged[-1], 1.0, 0.05)


def averaging(program: Any, steps: int, momentum: float = 0.9999) -> tuple[FloatArray, FloatArray]:
    """A weight that is drawn from 0 to 1, after each step, and its average, each ``(steps,)``."""
    weight = keras.Variable(np.zeros(1, "float32"))
    optimizer = program.module("engine.optimizer").AveragingAdam(0.1, momentum=momentum)
    path = []
    for _ in range(steps):
        optimizer.apply([ops.convert_to_tensor(weight) - 1.0], [weight])
        path.append([_array(weight).item(), _array(optimizer.averages[0]).item()])
    own, averaged = np.transpose(path)
    return own, averaged


# Drawing ------------------------------------------------------------------------------------------


@_instrument("06")
def step_back(
    program: Any, T: int = 1000, t: int = 500, variance: str = "fixed_small"
) -> Iterator[Row]:
    """One step of Algorithm 2 with x_0 known, beside the two clues."""
    schedule, n, t = _schedule(program, T), 64, checks.integer("t", t, 1, T - 1)
    x_t, z = np.full(n, X_T, "float32"), _float32(_pure_noise(np.random.default_rng(0), 1, n)[0])
    told = lambda x_t, t: 0 * x_t + X_0  # noqa: E731
    stepped = program.backward_sampling.p_sample(told, schedule, x_t, np.full(n, t), z, variance)
    x, (mean, right) = _array(stepped), _two_clues(schedule.betas, t)
    yield Row("mean one step earlier", x.mean(), mean, 0.01)
    # β̃ is right where x_0 is known; β is more by the share of the noise that the step itself is.
    spread = np.sqrt(right if variance == "fixed_small" else schedule.betas[t])
    yield Row("spread one step earlier", x.std(), spread, 0.02 * spread)


@_instrument("06")
def asked(program: Any, T: int = 100, steps: int = 10) -> Iterator[Row]:
    """At which t a walk asks first, and how often."""
    listed = program.backward_sampling.times(_schedule(program, T), steps)
    yield Row("the first t", listed[0], T - 1, 0)
    yield Row("how many", len(listed), steps, 0)


@_instrument("06")
def ending(program: Any, steps: int = 10, variance: str = "fixed_large") -> Iterator[Row]:
    """A walk of which every step is told that x_0 is 0.8."""
    backward = program.backward_sampling
    told = lambda x_t, t: 0 * x_t + X_0  # noqa: E731
    x_T = np.random.default_rng(0).standard_normal(500)
    options = {"steps": steps, "variance": variance, "seed": 0, "x_T": x_T}
    x = _array(backward.p_sample_loop(told, _schedule(program, 100), (500,), **options))
    yield Row("where the crowd ends", x.mean(), X_0, 0.01)
    yield Row("its spread", x.std(), 0.0, 0.005)


@_instrument("06")
def crowd_back(program: Any, step: str = "ddpm", steps: int = 40) -> Iterator[Row]:
    """A crowd walks back with the exact answers: is it the world?"""
    schedule, world = _schedule(program, 100), ONE_DIMENSIONAL_WORLD
    denoise = program.exact_denoiser.MixtureDenoiser(world, schedule)
    kind = program.faster_sampling.SAMPLERS[step]
    walk, x_T = program.backward_sampling.walk, np.random.default_rng(0).standard_normal(2000)
    x = _array(walk(kind, denoise, schedule, (2000,), steps=steps, seed=0, x_T=x_T))
    for name, low, high in (("left", -9.0, -0.25), ("middle", -0.25, 0.3), ("right", 0.3, 9.0)):
        share = np.mean((x > low) & (x <= high))
        right = float(world.cdf(high) - world.cdf(low))
        yield Row(f"share in the {name} heap", float(share), right, 0.05)
    yield Row("variance of all", x.var(), world.variance, 0.06)


@_instrument("06")
def halfway(program: Any, share: float = 0.0) -> Iterator[Row]:
    """The noise in the mix from which an interpolation sets out."""
    schedule, seen, t = _schedule(program, 100), [], 60
    pair = _float32([np.full((64, 64, 1), 0.5), np.full((64, 64, 1), -0.5)])

    def told(x_t: Any, t: Any) -> Any:
        seen.append(_array(x_t))
        return 0 * x_t

    options = {"weights": (share,), "steps": [t, 0], "seed": 0}
    program.backward_sampling.interpolate(told, schedule, *pair, t, **options)
    kept = np.prod(1 - schedule.betas[: t + 1])
    both = (1 - share) ** 2 + share**2  # independent noises, each with its factor
    yield Row("variance of its noise", seen[0].var() / (1 - kept), both, 0.1)


# Faster, and how good -----------------------------------------------------------------------------


@_instrument("07")
def balls(program: Any, real: int = 300, drawn: int = 300) -> Iterator[Row]:
    """Density and coverage of two sets that are from one bell."""
    random, n = np.random.default_rng(0), 10
    sets = [np.stack([random.standard_normal((m, 2)) for _ in range(n)]) for m in (real, drawn)]
    found = [program.evaluation.density_coverage(*pair) for pair in zip(*sets, strict=True)]
    density, coverage = np.mean(found, axis=0)
    yield Row("density", density, 1.0, 0.1)
    missed = np.prod([(real - 1 - i) / (real - 1 + drawn - i) for i in range(5)])
    yield Row("coverage", coverage, float(1 - missed), 0.05)


@_instrument("09")
def order(program: Any, step: str = "ddim") -> Iterator[Row]:
    """How fast the error of a walk without noise falls.

    The order is the power of two by which it falls with twice the steps. Curves cannot cross, so
    the share of the crowd below a walker must stay what it was.
    """
    checks.choice("step", step, ("ddim", "dpm++2m", "heun"))
    errors = [_share_moved(program, step, steps) for steps in (10, 20)]
    right = 1.0 if step == "ddim" else 2.0
    yield Row("error after 20 steps", errors[-1], 0.0, 0.03)
    yield Row("order", np.log2(errors[0] / errors[1]), right, 0.4)


def _share_moved(program: Any, step: str, steps: int) -> float:
    """By how much the share below a walker has changed, on the mean, before the last step."""
    schedule = _schedule(program, 100, "cosine")
    denoise = program.exact_denoiser.MixtureDenoiser(ONE_DIMENSIONAL_WORLD, schedule)
    faster, backward = program.faster_sampling, program.backward_sampling
    begin = np.linspace(-2, 2, 41, dtype="float32")
    t = faster.spaced(schedule, steps + 1, "log_snr", sigma_max=80)
    way = backward.stops(faster.SAMPLERS[step], denoise, schedule, (41,), steps=t, x_T=begin)
    (first, *_, last, _clean) = [(_array(stop.x), stop.t) for stop in way]
    kept = [1 / (1 + 80**2), schedule.alphas_cumprod[0]]
    pairs = zip((first[0], last[0]), kept, strict=True)
    before, after = (ONE_DIMENSIONAL_WORLD.noised(share).cdf(x) for x, share in pairs)
    return float(np.abs(after - before).mean())


@_instrument("09")
def fresh_noise(program: Any, eta: float = 0.0, t: int = 60, s: int = 40) -> Iterator[Row]:
    """The variance of x_s after a step of DDIM with x_0 known."""
    schedule, n = _schedule(program, 100), 64
    t, s = checks.integer("t", t, 1, 99), checks.integer("s", s, 0, t - 1)
    random = np.random.default_rng(0)
    noise, z = np.linalg.qr(random.standard_normal((n, 3)))[0][:, :2].T * np.sqrt(n)
    kept = np.cumprod(1 - schedule.betas)
    x_t = _float32(np.sqrt(kept[t]) * X_0 + np.sqrt(1 - kept[t]) * noise)
    told = lambda x_t, t: 0 * x_t + X_0  # noqa: E731
    there = np.full(n, t), np.full(n, s)
    step = program.faster_sampling.ddim_step
    x_s, _ = step(told, schedule, x_t, *there, _float32(z), eta=eta)
    found = np.mean(np.square(_array(x_s) - np.sqrt(kept[s]) * X_0))
    yield Row("its variance", found, 1 - kept[s], 0.01)


# What they are made of ----------------------------------------------------------------------------


def _float32(x: ArrayLike) -> Any:
    return np.asarray(x, np.float32)


def _array(x: Any) -> FloatArray:
    return np.asarray(ops.convert_to_numpy(x), np.float64)


def _schedule(program: Any, T: int, name: str = "linear") -> Any:
    return program.noise_schedule.NoiseSchedule(program.noise_schedule.make_betas(name, T))


def _pure_noise(random: np.random.Generator, rows: int, n: int) -> FloatArray:
    """Noise ``(rows, n)``; of each row the mean is exactly 0 and the variance exactly 1."""
    noise = random.standard_normal((rows, n))
    noise -= noise.mean(axis=1, keepdims=True)
    return noise / noise.std(axis=1, keepdims=True)


def _a_few(n: int) -> list[int]:
    """At most five of 0 … n-1, from the first to the last."""
    return [int(i) for i in np.linspace(0, n - 1, min(n, 5)).round()]


def _two_clues(betas: FloatArray, t: int) -> tuple[float, float]:
    """Mean and variance of x_{t-1}, by summing up all that fit X_0 and X_T."""
    earlier = np.prod(1 - betas[:t])
    x = np.linspace(-6, 6, 48_001)
    clue_1 = -((x - np.sqrt(earlier) * X_0) ** 2) / (2 * (1 - earlier))
    clue_2 = -((X_T - np.sqrt(1 - betas[t]) * x) ** 2) / (2 * betas[t])
    both = np.exp(clue_1 + clue_2 - np.max(clue_1 + clue_2))
    mean = np.average(x, weights=both)
    return float(mean), float(np.average((x - mean) ** 2, weights=both))


def _written(number: ArrayLike) -> str:
    """A number to three digits, and not -0."""
    value = float(np.asarray(number))
    return f"{value:.3g}" if abs(value) >= 1000 else f"{round(value, 3) + 0.0:g}"
