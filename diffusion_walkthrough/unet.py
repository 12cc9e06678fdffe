"""The UNet of Ho et al. 2020, as a functional Keras model built from a handful of functions.

Every block is a plain function from tensors to tensors; :func:`build_unet` strings them together.
The architecture and its parameter counts are those of the original (arXiv 2006.11239, appendix B).
Shapes are ``(batch, height, width, channels)`` throughout.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from diffusion_walkthrough.parameters import UNetParameters

#: Group normalization adds this to the variance before dividing by its root.
EPSILON = 1e-6

#: Layers that should begin by contributing nothing start with weights of this variance scale.
ALMOST_ZERO = 1e-10


def fan_avg_initializer(scale: float = 1.0) -> keras.initializers.Initializer:
    """Glorot-uniform with a variance multiplied by ``scale``."""
    return keras.initializers.VarianceScaling(scale, mode="fan_avg", distribution="uniform")


def conv(width: int, kernel_size: int = 3, strides: int = 1, scale: float = 1.0) -> Any:
    """A convolution that keeps the image size, or halves it with ``strides=2``."""
    initializer = fan_avg_initializer(scale)
    return layers.Conv2D(
        width, kernel_size, strides, padding="same", kernel_initializer=initializer
    )


def dense(width: int, scale: float = 1.0) -> Any:
    """A fully connected layer on the last axis; on images, a 1×1 convolution."""
    return layers.Dense(width, kernel_initializer=fan_avg_initializer(scale))


def normalize(x: Any, groups: int) -> Any:
    """Group normalization: each group of channels of each image to mean 0 and variance 1."""
    return layers.GroupNormalization(groups, epsilon=EPSILON)(x)


def timestep_embedding(t: Any, width: int) -> Any:
    """Turn step numbers into waves: [sin(t ω_k), cos(t ω_k)] with ω from 1 down to 1/10,000.

    Args:
        t: int32, shape ``(batch,)``.
        width: size of the embedding, an even number of at least 4.

    Returns:
        float32 tensor of shape ``(batch, width)``, values in [-1, 1].

    Source: Vaswani et al. 2017 (arXiv 1706.03762) §3.5, in the variant of the original DDPM code.
    """
    half = width // 2
    exponents = ops.arange(half, dtype="float32") / (half - 1)
    frequencies = ops.exp(-math.log(10_000.0) * exponents)  # (half,)
    angles = ops.cast(t, "float32")[:, None] * frequencies[None, :]  # (batch, half)
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)  # (batch, width)


def embed_timestep(t: Any, base_width: int) -> Any:
    """Waves, then two dense layers that learn what to make of them: ``(batch, 4 * base_width)``."""
    embedding = timestep_embedding(t, base_width)
    embedding = dense(4 * base_width)(embedding)
    embedding = ops.silu(embedding)
    return dense(4 * base_width)(embedding)


def residual_block(
    x: Any, embedding: Any, width: int, groups: int = 32, dropout: float = 0.0
) -> Any:
    """Two convolutions with the time added in between, plus a shortcut around them.

    Args:
        x: ``(batch, height, width, channels)``.
        embedding: the embedded time, ``(batch, anything)``.
        width: number of channels of the result.
        groups: groups of the normalization; must divide both the old and the new width.
        dropout: share of features dropped in training, in [0, 1).

    Returns:
        ``(batch, height, width, width)``; at first exactly the shortcut, because the second
        convolution starts at (almost) zero.
    """
    h = conv(width)(ops.silu(normalize(x, groups)))
    time = dense(width)(ops.silu(embedding))  # (batch, width)
    h = h + time[:, None, None, :]
    h = ops.silu(normalize(h, groups))
    if dropout > 0:
        h = layers.Dropout(dropout)(h)
    h = conv(width, scale=ALMOST_ZERO)(h)
    shortcut = x if x.shape[-1] == width else dense(width)(x)
    return shortcut + h


def attention_block(x: Any, groups: int = 32) -> Any:
    """Let every pixel look at every other: softmax(q·k / √C) v, added to its input.

    Args:
        x: ``(batch, height, width, channels)``.
        groups: groups of the normalization.

    Returns:
        Same shape as ``x``; at first exactly ``x``.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), Eq. 1, with a single head.
    """
    _, height, width, channels = x.shape
    pixels = ops.reshape(normalize(x, groups), (-1, height * width, channels))
    queries, keys, values = (
        dense(channels)(pixels),
        dense(channels)(pixels),
        dense(channels)(pixels),
    )
    scores = ops.matmul(queries, ops.transpose(keys, (0, 2, 1))) / math.sqrt(channels)
    weights = ops.softmax(scores, axis=-1)  # (batch, pixel, pixel it looks at)
    result = dense(channels, scale=ALMOST_ZERO)(ops.matmul(weights, values))
    return x + ops.reshape(result, (-1, height, width, channels))


def downsample(x: Any) -> Any:
    """Halve height and width with a convolution of stride 2."""
    return conv(x.shape[-1], strides=2)(x)


def upsample(x: Any) -> Any:
    """Double height and width by repeating pixels, then smooth with a convolution."""
    return conv(x.shape[-1])(layers.UpSampling2D(2, interpolation="nearest")(x))


def build_unet(parameters: UNetParameters, name: str = "unet") -> keras.Model:
    """Build the network that looks at a noisy image and guesses the noise in it.

    Args:
        parameters: the sizes of everything.
        name: name of the Keras model.

    Returns:
        A functional ``keras.Model`` from ``[x_t, t]``, shapes ``(batch, height, width, channels)``
        and ``(batch,)``, to the predicted noise, same shape as ``x_t``.
    """
    x_t = keras.Input(parameters.image_shape, name="x_t")
    t = keras.Input((), dtype="int32", name="t")
    embedding = embed_timestep(t, parameters.base_width)

    skips = _down(conv(parameters.base_width)(x_t), embedding, parameters)
    h = _middle(skips[-1], embedding, parameters)
    h = _up(h, skips, embedding, parameters)

    h = ops.silu(normalize(h, parameters.groups))
    noise = conv(parameters.channels, scale=ALMOST_ZERO)(h)
    return keras.Model([x_t, t], noise, name=name)


def _block(x: Any, embedding: Any, level: int, parameters: UNetParameters) -> Any:
    """One residual block of a level, with attention where the parameters ask for it."""
    width = parameters.level_widths[level]
    x = residual_block(x, embedding, width, parameters.groups, parameters.dropout)
    if parameters.level_sizes[level] in parameters.attention_sizes:
        x = attention_block(x, parameters.groups)
    return x


def _down(x: Any, embedding: Any, parameters: UNetParameters) -> list[Any]:
    """The way down: returns every intermediate result, the last one being the smallest."""
    skips = [x]
    levels = len(parameters.width_multipliers)
    for level in range(levels):
        for _ in range(parameters.residual_blocks):
            skips.append(_block(skips[-1], embedding, level, parameters))
        if level != levels - 1:
            skips.append(downsample(skips[-1]))
    return skips


def _middle(x: Any, embedding: Any, parameters: UNetParameters) -> Any:
    """The bottom of the U: two residual blocks with attention between them, always."""
    width, groups, dropout = x.shape[-1], parameters.groups, parameters.dropout
    x = residual_block(x, embedding, width, groups, dropout)
    x = attention_block(x, groups)
    return residual_block(x, embedding, width, groups, dropout)


def _up(x: Any, skips: list[Any], embedding: Any, parameters: UNetParameters) -> Any:
    """The way up: every block also sees what the way down saw at its size."""
    skips = list(skips)
    for level in reversed(range(len(parameters.width_multipliers))):
        for _ in range(parameters.residual_blocks + 1):
            x = ops.concatenate([x, skips.pop()], axis=-1)
            x = _block(x, embedding, level, parameters)
        if level != 0:
            x = upsample(x)
    return x
