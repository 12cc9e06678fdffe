"""The playground of chapter 00: hide a digit in noise, ask the network, walk back step by step."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffusion_walkthrough.backward_sampling import ddpm_step
from diffusion_walkthrough.classroom import live, widgets
from diffusion_walkthrough.classroom.figures.start_here import VALUE_RANGE, Recipe, recipes
from diffusion_walkthrough.classroom.plots import to_png
from diffusion_walkthrough.evaluation import nearest
from diffusion_walkthrough.predictions import predict_noise_from_x_start

Array = NDArray[np.float32]


class Playground(widgets.Panel):
    """A slider and four buttons around one noisy image.

    Attributes:
        x_t: the noisy image that is shown, float32 ``(1, height, width, channels)``.
        t: its noise step, 0 … T-1; -1 once the walk has ended.
        place: where the slider was last put by hand; there a digit is hidden again after a walk.
        walking: whether ``x_t`` was reached by steps back.
    """

    def __init__(self, model: Any, images: Array, first: int = 0, t: int = 40) -> None:
        """Hide the image numbered ``first`` under noise up to step ``t``.

        Args:
            model: a trained ``DiffusionModel`` that predicts noise.
            images: the training images, ``(n, height, width, channels)`` in [-1, 1].
            first: which one to begin with.
            t: the slider's first place, 0 … T-1.
        """
        self.model, self.images = model, images
        self.random, self.place = np.random.default_rng(0), t
        self.digit, self.noise = images[first : first + 1], self._draw_noise()
        self.slider = widgets.slider("t", range(len(model.schedule)), t)
        self.buttons = {
            "one step back": self.step_back,
            "all steps": self.walk,
            "another digit": self.another_digit,
            "new noise": self.new_noise,
        }
        self.caption, self.picture = ipywidgets.HTML(), ipywidgets.HTML()
        row = ipywidgets.HBox([self._button(name, act) for name, act in self.buttons.items()])
        super().__init__([self.slider, row, self.caption, self.picture])
        self.slider.observe(self._moved, names="value")
        self.hide()

    def _button(self, name: str, act: Callable[[], None]) -> ipywidgets.Button:
        button = ipywidgets.Button(description=name)
        button.on_click(lambda _button: act())
        return button

    def _draw_noise(self) -> Array:
        return self.random.standard_normal((1, *self.images.shape[1:]), dtype=np.float32)

    def hide(self) -> None:
        """Mix the digit and the noise as the slider says (Eq. 4), and show what comes of it."""
        self.t, self.walking = self.place, False
        self.slider.value = self.t
        signal, sigma = self._rates()
        self.x_t = signal * self.digit + sigma * self.noise
        self._ask()
        self._show(self.digit, self.noise)

    def _moved(self, _change: Any) -> None:
        if self.slider.value != self.t:  # moved by hand, not by a step back
            self.place = int(self.slider.value)
            self.hide()

    def another_digit(self) -> None:
        """Hide another training image under the same noise."""
        chosen = self.random.integers(len(self.images))
        self.digit = self.images[chosen : chosen + 1]
        self.hide()

    def new_noise(self) -> None:
        """Hide the same digit under other noise."""
        self.noise = self._draw_noise()
        self.hide()

    def step_back(self) -> None:
        """Take one step back from where the image stands (Algorithm 2), with fresh noise."""
        if self.t < 0:
            return
        t, s = np.array([self.t], "int32"), np.array([self.t - 1], "int32")
        x_s, _ = ddpm_step(lambda *_: self.guess, self.model.schedule, self.x_t, t, s,
                           self._draw_noise(), variance=self.model.denoise.variance)  # fmt: skip
        self.x_t, self.t, self.walking = ops.convert_to_numpy(x_s), self.t - 1, True
        if self.t >= 0:
            self.slider.value = self.t
            self._ask()
        else:
            self.guess = self.x_t
        self._show(self.guess, self.guessed_noise)

    def walk(self) -> None:
        """Take all steps that are left, and show each."""
        while self.t >= 0:
            self.step_back()

    def _rates(self) -> tuple[float, float]:
        signal, sigma = self.model.schedule.rates(np.array([self.t]), 1)
        return float(signal[0]), float(sigma[0])

    def _ask(self) -> None:
        """Ask the network once: which image is behind this one, and so, which noise?"""
        t = np.array([self.t], "int32")
        self.guess = ops.convert_to_numpy(self.model.denoise(self.x_t, t))
        noise = predict_noise_from_x_start(self.model.schedule, self.x_t, t, self.guess)
        self.guessed_noise = ops.convert_to_numpy(noise)

    def _show(self, image: Array, noise: Array) -> None:
        """Two rows: how the noisy image is put together, and what the network makes of it."""
        if self.t < 0:
            self._show_the_end()
            return
        signal, sigma = self._rates()
        what = "its guess of the image" if self.walking else "digit"
        of_noise = "its guess of the noise" if self.walking else "noise"
        recipe = live.row(
            _pixels(signal * image, f"{signal:.2f} × {what}"),
            live.sign("+"),
            _pixels(sigma * noise, f"{sigma:.2f} × {of_noise}"),
            live.sign("="),
            _pixels(self.x_t, f"noisy image, t = {self.t}"),
        )
        opinion = live.row(
            _pixels(self.guessed_noise, "noise, as the network guesses"),
            live.sign("⇒"),
            _pixels(self.guess, "so the image would be"),
            live.sign("≈"),
            _pixels(self.images[self._nearest()], "nearest training digit"),
        )
        share = live.gauge(signal, f"√ᾱ = {signal:.2f}: the factor of the image")
        self.picture.value = live.stack(recipe, share, opinion)
        begun = "Nobody has hidden a digit here"
        if self.place < len(self.model.schedule) - 1:
            begun = f"The digit was hidden at t = {self.place}"
        self._say(
            f"{begun}: the network goes back, step by step."
            if self.walking
            else f"t = {self.t}: the network misses the noise by {self._miss():.2f} "
            "(mean squared error; who always answers 0 misses it by about 1)."
        )

    def _show_the_end(self) -> None:
        """The finished image beside the training image that is most like it."""
        self.picture.value = live.row(
            _pixels(self.x_t, "drawn"),
            live.sign("≈"),
            _pixels(self.images[self._nearest()], "nearest training digit"),
        )
        self._say("All steps are taken. Move the slider, or hide another digit, to begin again.")

    def _nearest(self) -> int:
        return int(nearest(self.guess, self.images)[0][0])

    def _miss(self) -> float:
        return float(np.mean((self.guessed_noise - self.noise) ** 2))

    def _say(self, words: str) -> None:
        self.caption.value = f'<div role="status">{html.escape(words, quote=False)}</div>'

    def recipe(self) -> Recipe:
        """What is shown, in numbers."""
        return Recipe(self.t, *self._rates(), self.x_t[0], self.guessed_noise[0], self.guess[0])

    def still(self) -> Figure:
        """What is shown, as a picture for where no widget can be."""
        return recipes(self.digit[0], self.noise[0], [self.recipe()])

    def __repr__(self) -> str:
        """What one can do here, for where no widget can be shown."""
        return (
            "Run this cell: a slider hides a digit in noise, and buttons walk back, one step or "
            "all, or take another digit or new noise."
        )


def _pixels(image: Array, caption: str) -> str:
    return live.pixels(image.reshape(image.shape[-3:]), caption, VALUE_RANGE)


def play(model: Any, images: Array, **options: Any) -> Playground:
    """Show a :class:`Playground`, whose arguments these are; it is returned, already displayed."""
    playground = Playground(model, images, **options)
    widgets.show_widget(playground, repr(playground), to_png(playground.still()))
    return playground
