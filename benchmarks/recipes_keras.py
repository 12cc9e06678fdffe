"""Two recipes for a small diffusion model in Keras: this package's own, and a published one.

The published one is "Denoising Diffusion Probabilistic Model", the code example on keras.io by
A_K_Nain (keras-io, examples/generative/ddpm.py), from its published settings. Nothing is copied:
the network is strung from this package's blocks, which are the same ones. Adapted: images of 8×8
pixels with one channel; no mirroring, since a mirrored digit is none; compiled without XLA, like
ours. What else was adapted is said there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from diffusion_walkthrough.backward_sampling import Denoiser, p_sample_loop
from diffusion_walkthrough.engine.drawing import CompiledNetwork
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, ScheduleParameters
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import (
    conv,
    dense,
    downsample,
    residual_block,
    timestep_embedding,
    upsample,
)

SIDE = 8


class RateByTheClock(keras.callbacks.Callback):
    """Set the learning rate before each step to a share of it, until there is none."""

    def __init__(self, rate: float, share_of_rate: Callable[[int], float | None]) -> None:
        """Remember the rate, and the function that says the share after so many steps."""
        super().__init__()
        self.rate, self.share_of_rate = rate, share_of_rate

    def on_train_begin(self, logs: Any = None) -> None:
        """Set that of the first step."""
        self._set(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Set that of the next step."""
        self._set(int(ops.convert_to_numpy(self.model.optimizer.iterations)))

    def _set(self, steps: int) -> None:
        share = self.share_of_rate(steps)
        if share is None:
            self.model.stop_training = True
        else:
            self.model.optimizer.learning_rate = share * self.rate


class KerasRecipe:
    """A Keras model that trains by ``fit`` on images and draws with ``sample``."""

    def __init__(self, model: keras.Model, **options: Any) -> None:
        """Take a compiled model with a ``network``, and the options of its ``fit``."""
        self.model, self.options = model, options
        self.rate = float(ops.convert_to_numpy(model.optimizer.learning_rate))

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return self.model.network.count_params()

    @property
    def averaged(self) -> bool:
        """Whether the weights are averaged."""
        optimizer = self.model.optimizer
        return optimizer.use_ema or bool(getattr(optimizer, "averages", None))

    def train(self, images: np.ndarray, share_of_rate: Callable[[int], float | None]) -> None:
        """Train with the share of the rate that is said after so many steps, until it is None."""
        rate = RateByTheClock(self.rate, share_of_rate)
        self.model.fit(images, epochs=10_000, callbacks=[rate], verbose=0, **self.options)

    def draw(self, n: int, seed: int) -> np.ndarray:
        """Draw images, float32 ``(n, 8, 8, 1)`` in [-1, 1]; training goes on as without it."""
        own = self.model.get_weights()
        if self.averaged:
            self._show_average()
        images = self.model.sample(n, seed=seed)
        self.model.set_weights(own)
        return images

    def _show_average(self) -> None:
        """Put the averages into the model: those of our optimizer, or those of Keras's."""
        weights, optimizer = self.model.trainable_variables, self.model.optimizer
        if not hasattr(optimizer, "averages"):
            optimizer.finalize_variable_values(weights)
            return
        for weight, average in zip(weights, optimizer.averages, strict=True):
            weight.assign(ops.convert_to_numpy(average))


def ours(seed: int, rate: float, batch_size: int) -> KerasRecipe:
    """The package's model of the digits as it ships, but for what decides on the rate."""
    parameters = DiffusionParameters.digits()
    by_the_clock: dict[str, Any] = {"warmup_steps": 0, "decay_steps": None}
    training = dataclasses.replace(
        parameters.training, learning_rate=rate, batch_size=batch_size, **by_the_clock
    )
    model = DiffusionModel(dataclasses.replace(parameters, training=training), seed=seed)
    model.compile()
    return KerasRecipe(model)


def keras_example(seed: int, rate: float = 2e-4, batch_size: int = 32) -> KerasRecipe:
    """The example of keras.io."""
    model = KerasExample(seed)
    options = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.999), **options)
    return KerasRecipe(model, batch_size=batch_size)


class KerasExample(keras.Model):
    """Widths 64, 128, 256, 512, attention at the two lowest levels, groups of 8, T = 1000.

    Batches of 32, Adam with 2e-4, an average of the weights with momentum 0.999 from the start,
    β linear from 1e-4 to 0.02, mean squared error, x_0 clipped at each step back, variance β̃.

    Adapted: drawn in 100 of the 1000 steps (``draw_steps``), as all would take minutes on two
    cores; epsilon of the normalizations 1e-6 instead of 1e-3.
    """

    draw_steps = 100

    def __init__(self, seed: int) -> None:
        """Build network and schedule."""
        super().__init__()
        self.network = keras_example_network()
        self.schedule = NoiseSchedule.from_parameters(ScheduleParameters(timesteps=1000))
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.denoise = Denoiser(CompiledNetwork(self.network), self.schedule)
        self.build((None, SIDE, SIDE, 1))

    def build(self, input_shape: Any = None) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Hide images under noise and have it guessed; returns the noise and the guess."""
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        t = keras.random.randint(
            ops.shape(images)[:1], 0, len(self.schedule), seed=self.seed_generator
        )
        x_t = q_sample(self.schedule, images, t, noise)
        return noise, self.network([x_t, t], training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The mean squared error of the guess."""
        noise, guess = y_pred
        return ops.mean(ops.square(noise - guess))

    def sample(self, n: int, seed: int) -> np.ndarray:
        """Algorithm 2 with clipped x_0, on evenly chosen levels."""
        shape, steps = (n, SIDE, SIDE, 1), self.draw_steps
        drawn = p_sample_loop(self.denoise, self.schedule, shape, seed=seed, steps=steps)
        return ops.convert_to_numpy(drawn)


def keras_example_network(
    width: int = 64, multipliers: tuple[int, ...] = (1, 2, 4, 8), groups: int = 8
) -> keras.Model:
    """The U-Net of the example; on 8×8 pixels its levels have the sides 8, 4, 2, 1."""
    x_t, t = keras.Input((SIDE, SIDE, 1)), keras.Input((), dtype="int32")
    embedding = ops.silu(dense(4 * width)(timestep_embedding(t, 4 * width)))
    embedding = dense(4 * width)(embedding)

    def block(x: Any, level: int) -> Any:
        x = residual_block(x, embedding, width * multipliers[level], groups)
        return _normalized_attention(x, groups) if level >= 2 else x

    x = conv(width)(x_t)
    skips = [x]
    last = len(multipliers) - 1
    for level in range(last + 1):
        for _ in range(2):
            x = block(x, level)
            skips.append(x)
        if level != last:
            x = downsample(x)
            skips.append(x)
    x = residual_block(x, embedding, x.shape[-1], groups)
    x = _normalized_attention(x, groups)
    x = residual_block(x, embedding, x.shape[-1], groups)
    for level in reversed(range(last + 1)):
        for _ in range(3):
            x = block(ops.concatenate([x, skips.pop()], axis=-1), level)
        if level:
            x = upsample(x)
    x = ops.silu(layers.GroupNormalization(groups, epsilon=1e-6)(x))
    return keras.Model([x_t, t], conv(1, scale=1e-10)(x))


def _normalized_attention(x: Any, groups: int) -> Any:
    """Attention of one head, added to the normalized input and not to the input, as published."""
    _, height, width, channels = x.shape
    x = layers.GroupNormalization(groups, epsilon=1e-6)(x)
    pixels = ops.reshape(x, (-1, height * width, channels))
    queries, keys, values = (dense(channels)(pixels) for _ in range(3))
    scores = ops.matmul(queries, ops.transpose(keys, (0, 2, 1))) / channels**0.5
    # Of a single pixel nothing is left to weigh, and Keras would warn of it.
    weights = ops.softmax(scores) if height * width > 1 else ops.ones_like(scores)
    result = dense(channels, scale=1e-10)(ops.matmul(weights, values))
    return x + ops.reshape(result, (-1, height, width, channels))
