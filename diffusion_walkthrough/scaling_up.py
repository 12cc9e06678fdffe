"""Scaling up: what a network costs before it is built, and what half precision breaks.

Chapter 08 explains an attempt at diffusion that never saw an epoch end: eight days on a desktop
processor, and NaN (not a number) in half precision. Here are its configuration with its mistakes in
words, its attention in float16 with each cure a switch, and a way to look at the gradients that a
precision leaves. What a run will cost is counted in the folder ``planner``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.training import DiffusionModel
from diffusion_walkthrough.unet import EPSILON

#: The largest number that float16 holds, and the smallest above 0.
FLOAT16_MAX = 65_504.0
FLOAT16_MIN = 2.0**-24

# The attempt that never saw an epoch end.


@dataclass(frozen=True)
class Mistake:
    """A mistake in plain words: what was done, what comes of it, and what to do instead."""

    name: str
    what_happens: str
    cure: str


MISTAKES = (
    Mistake(
        "images enlarged eight times per side",
        "59 times the operations, and not one bit more to learn from: three hours become eight "
        "days",
        "train at the size that the images have",
    ),
    Mistake(
        "attention at side 16, where the levels are 256, 128, 64 and 32",
        "no level matches, so there is none, and nobody is told",
        "name sides that exist; UNetParameters refuses all others",
    ),
    Mistake(
        "images left in 0 … 255",
        "features hundreds of times too large, scores of attention a hundred thousand times",
        "map them to [-1, 1]; DiffusionModel.fit refuses all others",
    ),
    Mistake(
        "attention without normalization and without 1/√C",
        "with mistake 3, scores beyond 65,504: infinity, then NaN, in the first forward pass; "
        "in float32, one pixel takes all the attention",
        "normalize first, divide by √C before the product, softmax in float32",
    ),
    Mistake(
        "a training step of one's own, without loss scaling",
        "in float16 small gradients become 0; or all of them come out 32,768 times too small",
        "override compute_loss, not train_step, and Keras scales the loss",
    ),
)
"""What was wrong with the attempt, in the order in which chapter 08 meets it."""


def original_attempt() -> UNetParameters:
    """The network of the attempt: the paper's for CIFAR-10, on images enlarged to 256×256.

    It asked for attention at side 16, which none of its levels has. UNetParameters would refuse
    that; what the program built was this, with attention in the middle only.
    """
    return UNetParameters(image_size=256, attention_sizes=())


def at_side(parameters: UNetParameters, side: int) -> UNetParameters:
    """The same network for images of another side; attention where a level still has its size."""
    sizes = {side // 2**level for level in range(len(parameters.width_multipliers))}
    kept = tuple(size for size in parameters.attention_sizes if size in sizes)
    return dataclasses.replace(parameters, image_size=side, attention_sizes=kept)


# Its attention in float16, with each cure a switch.


@dataclass(frozen=True, eq=False)
class HalfPrecisionAttention:
    """What attention came to in float16: three arrays ``(batch, pixels, pixels)``."""

    exact_scores: NDArray[np.float32]  # q·k as it should have been, computed in float32
    scores: NDArray[np.float16]  # the same in float16
    weights: NDArray[Any]  # their softmax; NaN all along each row of scores that holds +∞

    @property
    def largest_score(self) -> float:
        """The largest of the exact scores."""
        return float(self.exact_scores.max())

    @property
    def lost(self) -> float:
        """The share of pixels whose weights are NaN."""
        return float(np.isnan(self.weights).any(axis=-1).mean())

    @property
    def largest_weight(self) -> float:
        """The largest weight of a pixel, on average over those that are left; NaN if none is."""
        largest = self.weights.astype(np.float32).max(axis=-1)
        kept = largest[~np.isnan(largest)]
        return float(kept.mean()) if kept.size else math.nan


def half_precision_attention(
    images: ArrayLike,
    normalized: bool = False,
    scaled: bool = False,
    float32_softmax: bool = False,
    base_width: int = 32,
    seed: int = 0,
) -> HalfPrecisionAttention:
    """Send images down an untrained network like the attempt's in float16, to its attention.

    The way down has four levels of widths 1-2-2-2, as the attempt's, which halve the side three
    times. With the switches off, everything is as in the attempt; with all of them on, scores and
    weights are those of ``unet.attention_weights``. Time is left out: it changes nothing here.

    Args:
        images: ``(batch, height, width, channels)``, in whatever range is to be tried; height and
            width divisible by 8.
        normalized: group normalization before each convolution and before the attention.
        scaled: queries divided by √C before the product.
        float32_softmax: scores converted to float32 before the softmax.
        base_width: channels of the finest level, a multiple of 16; the attempt had 128.
        seed: of the weights, which are drawn with NumPy, so that all backends have the same.
    """
    rng = np.random.default_rng(seed)
    x = ops.cast(ops.convert_to_tensor(np.asarray(images, dtype="float32")), "float16")
    x = _way_down(x, base_width, rng, groups=8 if normalized else None)
    batch, height, width, channels = x.shape
    pixels = ops.reshape(x, (batch, height * width, channels))
    queries, keys = _half_dense(pixels, channels, rng), _half_dense(pixels, channels, rng)
    if scaled:
        queries = queries * ops.cast(1 / math.sqrt(channels), "float16")
    keys = ops.transpose(keys, (0, 2, 1))
    scores = ops.matmul(queries, keys)
    exact = ops.matmul(ops.cast(queries, "float32"), ops.cast(keys, "float32"))
    exact, scores = ops.convert_to_numpy(exact), ops.convert_to_numpy(scores)
    weights = _softmax(scores.astype("float32") if float32_softmax else scores)
    return HalfPrecisionAttention(exact, scores, weights)


def _softmax(scores: NDArray[Any]) -> NDArray[Any]:
    """The softmax of each row, in NumPy: what a backend makes of ∞ depends on the processor."""
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))  # ∞ - ∞ is NaN
        return powers / powers.sum(axis=-1, keepdims=True)


def _way_down(x: Any, base_width: int, rng: np.random.Generator, groups: int | None) -> Any:
    """The attempt's way down without the time: two residual blocks a level, then half the side."""
    x = _half_conv(x, base_width, rng)
    for level, multiplier in enumerate((1, 2, 2, 2)):
        width = base_width * multiplier
        if level > 0:
            x = _half_conv(x, x.shape[-1], rng, strides=2)
        for _ in range(2):
            h = _half_conv(ops.silu(_half_normalize(x, groups)), width, rng)
            h = _half_conv(ops.silu(_half_normalize(h, groups)), width, rng)
            x = h + (x if x.shape[-1] == width else _half_dense(x, width, rng))
    return _half_normalize(x, groups)


def _glorot(rng: np.random.Generator, *shape: int) -> Any:
    """Glorot-uniform weights in float16, as untrained layers have them."""
    fan_in_and_out = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
    limit = math.sqrt(6 / fan_in_and_out)
    return ops.cast(ops.convert_to_tensor(rng.uniform(-limit, limit, shape)), "float16")


def _half_conv(x: Any, width: int, rng: np.random.Generator, strides: int = 1) -> Any:
    kernel = _glorot(rng, 3, 3, x.shape[-1], width)
    return ops.conv(x, kernel, strides, padding="same", data_format="channels_last")


def _half_dense(x: Any, width: int, rng: np.random.Generator) -> Any:
    return ops.matmul(x, _glorot(rng, x.shape[-1], width))


def _half_normalize(x: Any, groups: int | None) -> Any:
    """Group normalization, its mean and variance in float32; ``groups`` of None leaves x alone."""
    if groups is None:
        return x
    batch, height, width, channels = x.shape
    grouped = ops.reshape(x, (batch, height * width, groups, channels // groups))
    grouped = ops.cast(grouped, "float32")
    mean, variance = ops.moments(grouped, axes=(1, 3), keepdims=True)
    grouped = (grouped - mean) * ops.rsqrt(variance + EPSILON)
    return ops.cast(ops.reshape(grouped, (batch, height, width, channels)), "float16")


# Gradients in float16.


def float16_gradients(
    errors: ArrayLike, numbers: int, loss_scale: float = 1.0
) -> NDArray[np.float16]:
    """Compute the gradient of the loss for each guessed number, rounded to float16: 2 · error / N.

    The loss is the mean of the squared errors over all N numbers of a batch, so that each has only
    one N-th of a say.

    ``errors`` are guess minus truth, of any shape; a part of the batch is enough. ``numbers`` is N,
    and ``loss_scale`` what the loss is multiplied with.
    """
    return (2 * loss_scale / numbers * np.asarray(errors, dtype=np.float64)).astype(np.float16)


class GradientRecorder(keras.optimizers.Optimizer):
    """An optimizer that teaches nothing: it leaves in the place of each weight its gradient."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Replace the weight by its gradient."""
        self.assign(variable, gradient)


def training_gradients(
    model: DiffusionModel,
    images: NDArray[np.float32],
    policy: str = "float32",
    scale_loss: bool = True,
    shares: Sequence[ArrayLike] = (1.0,),
    seed: int = 0,
) -> NDArray[np.float32]:
    """Compute the gradient of every weight in one training step in some precision.

    Args:
        model: whose weights to take; it is left as it is.
        images: one batch, float32 in [-1, 1].
        policy: "float32", "mixed_float16" or "mixed_bfloat16".
        scale_loss: whether Keras may scale the loss, as it does in float16 unless told otherwise.
        shares: what the loss is multiplied with, one step for each: a number, or one for each
            image. 2 for one half of the images and 0 for the other shows the gradients of the mean
            over that half.
        seed: of t and the noise, the same in each step and precision, so that they compare.

    Returns:
        ``(shares, weights)``: all gradients in a row, in the order of the network's weights. On
        PyTorch without a GPU, float16 is refused by its convolutions.
    """
    parameters = model.diffusion_parameters
    training = dataclasses.replace(parameters.training, precision=policy)
    copy = DiffusionModel(dataclasses.replace(parameters, training=training), seed=seed)
    copy.compile(GradientRecorder(learning_rate=1.0), auto_scale_loss=scale_loss)
    question, rows = copy.questions(images, batch_size=len(images))[0], []
    for share in shares:
        copy.network.set_weights(model.network.get_weights())
        weights = np.full(len(images), share, "float32")
        keras.Model.train_on_batch(copy, *question, sample_weight=weights)
        rows.append(np.concatenate([np.ravel(w) for w in copy.network.get_weights()]))
    return np.array(rows)
