"""Pictures of chapter 05: a network on its way from answering 0 to drawing digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.classroom import live, plots
from diffusion_walkthrough.engine.optimizer import moving_average
from diffusion_walkthrough.gaussian_mixture import ONE_DIMENSIONAL_WORLD


def learned_curve(
    x: NDArray[np.float64],
    guesses: Mapping[int, ArrayLike],
    alpha_bar: float,
) -> Figure:
    """Draw what a small network guesses for each x_t, beside the exact answer.

    Args:
        x: the noisy values at which it was asked, ``(n,)``.
        guesses: for each number of training steps, its guesses of the noise, ``(n,)``.
        alpha_bar: ᾱ at the step that is shown.
    """
    figure, axes = plots.new_figure(height=2.8)
    for (steps, guess), style in zip(guesses.items(), (":", "--", "-"), strict=False):
        axes.plot(x, np.ravel(guess), style, label=f"network after {steps} steps")
    exact = ONE_DIMENSIONAL_WORLD.expected_noise(x, alpha_bar)
    axes.plot(x, exact, color="#cccccc", linewidth=7, zorder=1, label="exact answer")
    axes.set_xlabel("noisy value x_t")
    axes.set_ylabel("guess of the noise")
    axes.legend(frameon=False)
    return figure


def loss_curve(losses: Sequence[float], levels: Mapping[str, float] | None = None) -> Figure:
    """Draw the loss of each epoch on a logarithmic axis, with named levels to compare it with."""
    figure, axes = plots.new_figure(height=2.8)
    epochs = np.arange(1, len(losses) + 1)
    axes.semilogy(epochs, losses, label="training loss")
    styles = zip((levels or {}).items(), (plots.ORANGE, plots.GREEN, plots.PINK), strict=False)
    for (name, level), color in styles:
        axes.axhline(level, linestyle="--", color=color, label=name)
    axes.set_yticks([0.1, 0.2, 0.5, 1.0], ["0.1", "0.2", "0.5", "1"])
    axes.minorticks_off()
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend(frameon=False)
    return figure


def learning_rates(rates: Sequence[float]) -> Figure:
    """Draw the learning rate of each step."""
    figure, axes = plots.new_figure(height=2.0)
    axes.plot(rates)
    axes.set_xlabel("training step")
    axes.set_ylabel("learning rate")
    return figure


def progress(
    history: Mapping[int, NDArray[np.float32]], losses: Sequence[float], epochs: int
) -> tuple[str, str]:
    """Show the images drawn after some epochs beside the loss, and say when that was.

    Args:
        history: images by number of epochs, as ``SampleHistory`` keeps them.
        losses: before any training, and after each epoch, ``(epochs + 1,)``.
        epochs: which.
    """
    picture, caption = drawn(epochs, history[epochs])
    images = live.pixels(picture / 127.5 - 1, _when(epochs), size=picture.shape[1] * 3 // 4)
    here, lines = float(losses[epochs]), {"loss": losses}
    label = f"loss by epoch, here {here:.2f}"
    mark = {"": (float(epochs), here)}
    curve = live.curves(np.arange(len(losses)), lines, label, mark, (0.0, 1.1))
    return live.row(images, curve), caption


def drawn(epochs: int, images: NDArray[np.float32]) -> tuple[NDArray, str]:
    """Tile images, and say after how many epochs they were drawn."""
    caption = f"{len(images)} images in rows of eight, drawn {_when(epochs)}"
    return plots.tile(images, columns=8, scale=8), caption


def _when(epochs: int) -> str:
    return "before any training" if epochs == 0 else f"after {epochs} epochs"


def progress_strip(history: Mapping[int, NDArray[np.float32]], epochs: Sequence[int]) -> Figure:
    """Draw one row of eight images for each of these numbers of epochs, the earliest on top."""
    figure, axes = plots.new_figure(rows=len(epochs), height=0.95 * len(epochs), squeeze=False)
    for axis, after in zip(axes[:, 0], epochs, strict=True):
        axis.imshow(plots.tile(history[after][:8], columns=8), interpolation="nearest")
        axis.set_ylabel(f"{after} epochs", rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    return figure


def training_logs(history: Mapping[str, Sequence[float]], clip: float) -> Figure:
    """Draw what ``fit`` logs for each epoch: the loss, the learning rate, the gradients' norm.

    Args:
        history: Keras's history, with ``loss``, ``learning_rate`` and ``gradient_norm``.
        clip: the norm above which gradients are shortened.
    """
    figure, axes = plots.new_figure(3, height=2.4)
    panels = {"loss": "loss", "learning_rate": "learning rate", "gradient_norm": "gradient norm"}
    for axis, (name, title) in zip(axes, panels.items(), strict=True):
        values = history[name]
        axis.plot(np.arange(1, len(values) + 1), values)
        axis.set_title(title)
        axis.set_xlabel("epoch")
    for axis in axes[:2]:
        axis.set_ylim(0, None)
    axes[2].set_yscale("log")
    axes[2].set_yticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axes[2].minorticks_off()
    axes[2].axhline(clip, linestyle="--", color=plots.ORANGE, label="clipped above")
    axes[2].legend(frameon=False)
    return figure


def averages(weights: NDArray[np.float64], momenta: Mapping[str, ArrayLike]) -> Figure:
    """Draw one noisy weight over the steps of a run, and its moving averages.

    Args:
        weights: the weight's value after each step, ``(steps,)``.
        momenta: by name, the share of the old average that each step keeps: one number for all
            steps, or ``(steps,)``.
    """
    figure, axes = plots.new_figure(height=2.5)
    axes.plot(weights, color="#bbbbbb", linewidth=0.8, label="the weight itself")
    looks = ("--", plots.ORANGE), ("-", plots.BLUE), (":", plots.GREEN)
    for (name, momentum), (style, colour) in zip(momenta.items(), looks, strict=False):
        axes.plot(
            moving_average(weights, momentum),
            style,
            color=colour,
            label=f"average, momentum {name}",
        )
    axes.set_xlabel("training step")
    axes.set_ylabel("value of the weight")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.16))
    return figure
