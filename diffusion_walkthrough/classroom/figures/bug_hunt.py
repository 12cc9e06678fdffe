"""Pictures of chapter 12: what the owners of sick programs see.

Each symptom is a function of programs by name and draws a row, or a curve, for each: for the
patient alone, or for patient and cure side by side.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import NDArray

from diffusion_walkthrough import instruments
from diffusion_walkthrough.checkpoints import load_model
from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.data import companion_digit
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD

Programs = Mapping[str, Any]

#: How many digits a row has.
DRAWN = 8
_COLOURS = (plots.ORANGE, plots.BLUE)
_OF_LEVEL = {"easy": plots.GREEN, "medium": plots.ORANGE, "hard": plots.PINK}


# Rows of images -----------------------------------------------------------------------------------


def _strips(
    programs: Programs, images_of: Callable[[Any], Any], titles: Any, value_range: float
) -> Figure:
    rows = [np.asarray(images_of(program)) for program in programs.values()]
    labels = [name for name in programs if len(programs) > 1]
    above = [*titles, *[""] * (len(titles) * (len(rows) - 1))]
    joined = list(np.concatenate(rows))
    return plots.image_strip(joined, above, value_range, len(rows), labels=labels)


def fading(programs: Programs) -> Figure:
    """A 3 that takes 300 steps of noise, one after the other."""
    stops = [0, 10, 30, 60, 100, 300]

    def images_of(program: Any) -> list[Any]:
        random, (x, _), seen = np.random.default_rng(1), companion_digit(), []
        for step in range(stops[-1] + 1):
            if step in stops:
                seen.append(x)
            noise = random.standard_normal(np.shape(x))
            x = ops.convert_to_numpy(program.forward_diffusion.add_noise(x, 0.02, noise))
        return seen

    return _strips(programs, images_of, [f"step {n}" for n in stops], 1.5)


def _noised(program: Any, name: str, T: int, t: Any) -> list[Any]:
    """The 3 at some t, by the β of a schedule and a jump of all t in order."""
    betas = program.noise_schedule.make_betas(name, T)
    digit, _ = companion_digit()
    noise = np.random.default_rng(1).standard_normal((T, *digit.shape))
    kept = np.cumprod(1 - betas)
    return [np.sqrt(kept[i]) * digit + np.sqrt(1 - kept[i]) * noise[i] for i in t]


def short_chain(programs: Programs) -> Figure:
    """A 3 at the end and on the way of a chain of 50 steps."""
    t = [0, 10, 20, 30, 40, 49]
    return _strips(
        programs, lambda program: _noised(program, "linear", 50, t), [f"t = {i}" for i in t], 1.5
    )


def parabola(programs: Programs) -> Figure:
    """A 3 under noise of a schedule that is not named."""
    t = [0, 20, 40, 60, 80, 99]
    return _strips(
        programs, lambda program: _noised(program, "quad", 100, t), [f"t = {i}" for i in t], 1.5
    )


def jumped(programs: Programs) -> Figure:
    """A 3 at some t, by a jump of all thousand t in their order."""
    t = [0, 100, 200, 300, 500, 999]

    def images_of(program: Any) -> Any:
        noise_schedule = program.noise_schedule
        schedule = noise_schedule.NoiseSchedule(noise_schedule.make_betas("linear", 1000))
        digit, _ = companion_digit()
        noise = np.random.default_rng(1).standard_normal((1000, *digit.shape))
        batch, every = np.stack([digit] * 1000), np.arange(1000)
        x_t = program.forward_diffusion.q_sample(schedule, batch, every, noise)
        return ops.convert_to_numpy(x_t)[t]

    return _strips(programs, images_of, [f"t = {i}" for i in t], 1.5)


def data(programs: Programs) -> Figure:
    """The first digits of the data set."""
    return _strips(programs, lambda program: program.data.load_images("digits")[0][:10], [], 1.0)


# Drawn --------------------------------------------------------------------------------------------


@functools.cache
def _network() -> Any:
    return load_model("digits").denoise.network


def denoiser(program: Any) -> Any:
    """The digits' network as a program's denoise function, which is not compiled with its steps."""
    rules = program.parameters.DiffusionParameters.digits()
    schedule = program.noise_schedule.NoiseSchedule.from_parameters(rules.schedule)
    network = _network()
    return program.predictions.Denoiser(
        lambda shown, training=False: network(shown), schedule, rules.prediction, rules.variance
    )


def _tiles(programs: Programs, images_of: Callable[[Any], Any]) -> Figure:
    return _strips(programs, lambda program: images_of(program)[:DRAWN], [], 1.0)


def walked(programs: Programs, step: str, steps: int) -> Figure:
    """Digits that a walk of so many steps draws."""

    def images_of(program: Any) -> Any:
        denoise = denoiser(program)
        kind = program.faster_sampling.SAMPLERS[step]
        x_T = np.random.default_rng(3).standard_normal((DRAWN, 8, 8, 1), "float32")
        options = {"steps": steps, "seed": 3, "x_T": x_T}
        drawn = program.backward_sampling.walk(
            kind, denoise, denoise.schedule, x_T.shape, **options
        )
        return ops.convert_to_numpy(drawn)

    return _tiles(programs, images_of)


def ancestral_in_ten(programs: Programs) -> Figure:
    """Digits drawn in ten ancestral steps."""
    return walked(programs, "ddpm", 10)


def ddim_in_twenty(programs: Programs) -> Figure:
    """Digits drawn in twenty steps of DDIM."""
    return walked(programs, "ddim", 20)


def ddim_in_ten(programs: Programs) -> Figure:
    """Digits drawn in ten steps of DDIM."""
    return walked(programs, "ddim", 10)


def one_by_one(programs: Programs) -> Figure:
    """Digits drawn in a hundred steps of Algorithm 2."""

    def images_of(program: Any) -> Any:
        denoise, random = denoiser(program), np.random.default_rng(3)
        x = random.standard_normal((DRAWN, 8, 8, 1), "float32")
        for t in reversed(range(len(denoise.schedule))):
            z = random.standard_normal(x.shape, "float32")
            steps = np.full(len(x), t, "int32")
            x = program.backward_sampling.p_sample(denoise, denoise.schedule, x, steps, z)
        return ops.convert_to_numpy(x)

    return _tiles(programs, images_of)


def between(programs: Programs) -> Figure:
    """A 3 becomes another digit in six stages."""

    def images_of(program: Any) -> Any:
        denoise = denoiser(program)
        one, two = companion_digit()[0], program.data.load_images("digits")[0][4]
        options = {"seed": 5, "steps": 20}
        mixed = program.backward_sampling.interpolate(
            denoise, denoise.schedule, one, two, 60, **options
        )
        return ops.convert_to_numpy(mixed)

    titles = [f"λ = {share}" for share in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    return _strips(programs, images_of, titles, 1.0)


# Curves and numbers -------------------------------------------------------------------------------


def _curves(programs: Programs, x: Any, curve_of: Any, across: str, up: str) -> Figure:
    figure, axes = plots.new_figure(height=2.4)
    for (name, program), colour in zip(programs.items(), _COLOURS, strict=False):
        axes.plot(x, curve_of(program), color=colour, label=name)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    if len(programs) > 1:
        axes.legend()
    return figure


def learning(programs: Programs) -> Figure:
    """The loss of a small network that is trained on the same few questions."""
    steps = 60
    return _curves(
        programs,
        np.arange(steps),
        lambda program: instruments.training_curve(program, steps),
        "step",
        "loss",
    )


def divergence(programs: Programs) -> Figure:
    """The KL divergence of bells from the bell of variance 1, over their spread."""
    spreads = np.geomspace(0.3, 3, 100)

    def curve_of(program: Any) -> Any:
        zeros = np.zeros(100)
        return ops.convert_to_numpy(program.loss.normal_kl(zeros, 2 * np.log(spreads), 0.0, 0.0))

    figure = _curves(programs, spreads, curve_of, "spread of the bell", "divergence")
    figure.axes[0].axhline(0, color=plots.GREY, linewidth=1)
    return figure


def weights(programs: Programs) -> Figure:
    """A weight in training, and the average of it."""
    figure, axes = plots.new_figure(height=2.4)
    for (name, program), colour in zip(programs.items(), _COLOURS, strict=False):
        own, averaged = instruments.averaging(program, 100)
        axes.plot(averaged, color=colour, label=f"average {name}".strip())
    axes.plot(own, color=plots.GREY, linewidth=1, label="the weight")
    axes.set_xlabel("step")
    axes.legend()
    return figure


def looks(programs: Programs) -> Figure:
    """At which of 48 pixels each pixel looks."""
    figure, axes = plots.new_figure(len(programs), height=3.0, squeeze=False)
    queries, keys = np.random.default_rng(0).standard_normal((2, 1, 48, 64)).astype("float32")
    for axis, (name, program) in zip(axes.flat, programs.items(), strict=True):
        seen = ops.convert_to_numpy(program.unet.attention_weights(queries, keys))[0]
        axis.imshow(seen, cmap="gray", vmin=0, interpolation="nearest")
        axis.set(title=name if len(programs) > 1 else "", xlabel="is looked at", ylabel="looks")
        axis.grid(False)
    return figure


def scattered(programs: Programs) -> Figure:
    """A crowd that has walked back in ten steps, over the world that it should show."""
    figure, axes = plots.new_figure(len(programs), height=2.4, sharey=True, squeeze=False)
    places = np.linspace(-1.6, 1.6, 400)
    for axis, (name, program) in zip(axes.flat, programs.items(), strict=True):
        noise_schedule, random = program.noise_schedule, np.random.default_rng(0)
        schedule = noise_schedule.NoiseSchedule(noise_schedule.make_betas("cosine", 10))
        denoise = program.exact_denoiser.MixtureDenoiser(ONE_DIMENSIONAL_WORLD, schedule)
        x = random.standard_normal(8000, "float32")
        for t in reversed(range(10)):
            z, at = random.standard_normal(8000, "float32"), np.full(8000, t, "int32")
            x = program.backward_sampling.p_sample(denoise, schedule, x, at, z, "fixed_small")
        numbers = ops.convert_to_numpy(x)
        axis.hist(numbers, 100, range=(-1.6, 1.6), density=True, color=plots.SKY)
        axis.plot(places, ONE_DIMENSIONAL_WORLD.pdf(places), color=plots.BLUE, linewidth=1.2)
        axis.set(title=name if len(programs) > 1 else "", xlabel="x")
    return figure


def costs(programs: Programs) -> Figure:
    """What each pixel of a 3 costs, in bits, for a model that is nearly sure of it."""
    digit, _ = companion_digit()
    figure, axes = plots.new_figure(1 + len(programs), height=2.6, squeeze=False)
    plots.draw_image(axes[0, 0], digit, "the 3")
    for axis, (name, program) in zip(axes[0, 1:], programs.items(), strict=True):
        logs = program.loss.discretized_gaussian_log_likelihood(digit, digit, np.log(0.05), 17)
        bits = -ops.convert_to_numpy(logs)[..., 0] / np.log(2)
        axis.imshow(bits, cmap="gray", vmin=0, vmax=0.6, interpolation="nearest")
        axis.set(title=f"{name} {bits.mean():.2f} bits a pixel".strip(), xticks=[], yticks=[])
        axis.grid(False)
    return figure


def refusal(programs: Programs) -> Figure:
    """What happens when a network of three levels is built."""
    figure, axes = plots.new_figure(height=0.3 + 0.75 * len(programs))
    axes.set_axis_off()
    for row, (name, program) in enumerate(programs.items()):
        shape = program.parameters.UNetParameters(8, 1, 8, (1, 2, 2), 1, (), 0.0, groups=4)
        said, colour = "The network is built.", plots.BLUE
        try:
            program.unet.build_unet(shape)
        except ValueError as error:
            told = " ".join(f"ValueError: {error}".split())
            said, colour = "\n".join(textwrap.wrap(told, 88)[:3]), plots.ink(plots.ORANGE)
        place = {"va": "center", "color": colour, "family": "monospace", "fontsize": 8.5}
        axes.text(0.12, -row, said, **place)
        axes.text(0, -row, name, va="center")
    axes.set_ylim(0.5 - len(programs), 0.5)
    return figure


# The waiting room ---------------------------------------------------------------------------------


def waiting_room(cards: Sequence[tuple[int, Any, NDArray[np.uint8]]], columns: int = 4) -> Figure:
    """Draw all patients as small cards: number, level, picture, and what the owner says.

    Args:
        cards: number, patient and picture of each.
        columns: how many side by side.
    """
    rows = -(-len(cards) // columns)
    figure, axes = plots.new_figure(columns, rows, height=1.42 * rows, squeeze=False)
    for axis in axes.flat:
        axis.set(xlim=(0, 1), ylim=(0, 1))
        axis.set_axis_off()
    for axis, (number, patient, picture) in zip(axes.flat, cards, strict=False):
        colour = _OF_LEVEL[patient.level]
        frame: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.05", "edgecolor": colour}
        axis.add_patch(FancyBboxPatch((0, 0), 1, 1, facecolor="none", linewidth=1.5, **frame))
        axis.text(0.05, 0.96, f"{number}", va="top", fontsize=10, fontweight="bold")
        dressed: dict[str, Any] = {
            "va": "top",
            "ha": "right",
            "fontsize": 7.5,
            "color": plots.ink(colour),
        }
        axis.text(0.95, 0.95, patient.level, **dressed)
        inside = axis.inset_axes((0.05, 0.42, 0.9, 0.4))
        inside.imshow(picture, interpolation="antialiased")
        inside.set_axis_off()
        said = "\n".join(textwrap.wrap(f"“{patient.complaint}”", width=36)[:5])
        axis.text(0.5, 0.38, said, ha="center", va="top", fontsize=5.8)
    return figure


# The patient of the page --------------------------------------------------------------------------


def found_again(programs: Programs, t: int) -> tuple[str, str]:
    """Hide the 3 at t, tell the right noise, and show what each program finds behind it.

    Args:
        programs: by name.
        t: 0 … 99, in the schedule of the digits.
    """
    (digit, _), random = companion_digit(), np.random.default_rng(1)
    noise = random.standard_normal((1, *digit.shape)).astype("float32")
    parts, missed = [], []
    for name, program in programs.items():
        schedule = program.noise_schedule.NoiseSchedule.from_parameters(
            program.parameters.DiffusionParameters.digits().schedule
        )
        at = np.array([t])
        a, b = schedule.rates(at, 4)
        x_t = a * digit[None] + b * noise
        found = program.predictions.predict_x_start_from_noise(schedule, x_t, at, noise)
        image = ops.convert_to_numpy(found)[0]
        parts.append(live.pixels(image, name))
        missed.append(f"{name} {np.abs(image - digit).max():.2f}")
    shown = [live.pixels(digit, "the 3"), live.pixels(x_t[0], f"hidden at t = {t}", 1.5)]
    caption = f"t = {t}. The largest error of a pixel: {', '.join(missed)}."
    return live.row(*shown, live.sign("⇒"), *parts), caption
