"""The UNet of Ho et al. 2020, as a functional Keras model built from a handful of functions.

Every block is a plain function from tensors to tensors; :func:`build_unet` strings them together.
The architecture and its parameter counts are those of the original (arXiv 2006.11239, appendix B).
Shapes are ``(batch, height, width, channels)`` throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from diffusion_walkthrough.fused import normalized
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


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class Dense(layers.Dense):
    """Keras's dense layer, on images as one product of two matrices.

    Keras's own way with more than two axes takes ten operations more on TensorFlow.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Map the last axis of ``(batch, …, channels)``."""
        pixels = ops.reshape(inputs, (-1, inputs.shape[-1]))
        return ops.reshape(super().call(pixels, training), (-1, *inputs.shape[1:-1], self.units))


def dense(width: int, scale: float = 1.0) -> Any:
    """A fully connected layer on the last axis; on images, a 1×1 convolution."""
    return Dense(width, kernel_initializer=fan_avg_initializer(scale))


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class GroupNormalization(layers.GroupNormalization):
    """Keras's group normalization, with fewer passes over the features.

    Mean and variance of a group follow from means, and means of squares, of its channels; then each
    feature is multiplied by one number and another is added. All of that is float32.
    """

    def call(self, inputs: Any) -> Any:
        """Normalize ``(batch, …, channels)``."""
        x = ops.cast(inputs, "float32")
        gamma, beta = (ops.cast(weight, "float32") for weight in (self.gamma, self.beta))
        x = normalized(x, gamma, beta, self.groups, self.epsilon)
        return ops.cast(x, self.compute_dtype)


def normalize(x: Any, groups: int) -> Any:
    """Group normalization: each group of channels of each image to mean 0 and variance 1.

    Raises ValueError if ``groups`` does not divide the number of channels.
    """
    if x.shape[-1] % groups:
        raise ValueError(
            f"groups={groups}: groups must divide the number of channels, {x.shape[-1]}. "
            f"Use for example {math.gcd(x.shape[-1], groups)}."
        )
    return GroupNormalization(groups, epsilon=EPSILON)(x)


def timestep_embedding(t: Any, width: int) -> Any:
    """Turn step numbers into waves: [sin(t ω_k), cos(t ω_k)] with ω from 1 down to 1/10,000.

    Args:
        t: int32, shape ``(batch,)``.
        width: size of the embedding, an even number of at least 4.

    Returns:
        float32 tensor of shape ``(batch, width)``, values in [-1, 1].

    Raises ValueError for a ``width`` that is odd or below 4.

    Source: Vaswani et al. 2017 (arXiv 1706.03762) §3.5, in the variant of the original DDPM code.
    """
    if width < 4 or width % 2:
        raise ValueError(
            f"width={width}: width must be even and at least 4, half of it sines and half cosines. "
            f"Use {max(4, width + 1)}."
        )
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
        groups: groups of the normalization; must divide both the old and the new width. With as
            many groups as channels the second normalization takes the time out again.
        dropout: share of features dropped in training, in [0, 1).

    Returns:
        ``(batch, height, width, width)``; at first exactly the shortcut, because the second
        convolution starts at (almost) zero.
    """
    h = conv(width)(ops.silu(normalize(x, groups)))
    time = dense(width)(ops.silu(embedding))  # (batch, width)
    h = h + ops.reshape(time, (-1, 1, 1, width))
    h = ops.silu(normalize(h, groups))
    if dropout > 0:
        h = layers.Dropout(dropout)(h)
    h = conv(width, scale=ALMOST_ZERO)(h)
    shortcut = x if x.shape[-1] == width else dense(width)(x)
    return shortcut + h


def attention_weights(queries: Any, keys: Any) -> Any:
    """Say how much each pixel looks at each other one: softmax(q·k / √C).

    Args:
        queries: what each pixel looks for, ``(batch, pixels, channels)``.
        keys: what each pixel offers, same shape.

    Returns:
        ``(batch, pixels, pixels)``, float32 also under mixed precision; ``[b, i, j]`` is how much
        pixel i looks at pixel j, and the sum over j is 1.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), Eq. 1.
    """
    queries = queries * (1 / math.sqrt(queries.shape[-1]))  # before the product, which could grow
    scores = ops.einsum("bic,bjc->bij", queries, keys)
    return ops.softmax(ops.cast(scores, "float32"), axis=-1)


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
    weights = ops.cast(attention_weights(queries, keys), values.dtype)
    result = dense(channels, scale=ALMOST_ZERO)(ops.matmul(weights, values))
    return x + ops.reshape(result, (-1, height, width, channels))


def downsample(x: Any) -> Any:
    """Halve height and width with a convolution of stride 2."""
    return conv(x.shape[-1], strides=2)(x)


def upsample(x: Any) -> Any:
    """Double height and width by repeating pixels, then smooth with a convolution."""
    return conv(x.shape[-1])(layers.UpSampling2D(2, interpolation="nearest")(x))


def build_unet(
    parameters: UNetParameters, learned_variance: bool = False, name: str = "unet"
) -> keras.Model:
    """Build the network that looks at a noisy image and guesses the noise in it.

    Args:
        parameters: the sizes of everything.
        learned_variance: whether it also predicts the variance of the step back.
        name: name of the Keras model.

    Returns:
        A functional ``keras.Model`` from ``[x_t, t]``, shapes ``(batch, height, width, channels)``
        and ``(batch,)``, to the predicted noise, same shape as ``x_t``; with a learned variance
        twice the channels, the second half being its logarithm.
    """
    x_t = keras.Input(parameters.image_shape, name="x_t")
    t = keras.Input((), dtype="int32", name="t")
    embedding = embed_timestep(t, parameters.base_width)

    skips = _down(conv(parameters.base_width)(x_t), embedding, parameters)
    h = _middle(skips[-1], embedding, parameters)
    h = _up(h, skips, embedding, parameters)

    h = ops.silu(normalize(h, parameters.groups))
    answer = conv(output_channels(parameters, learned_variance), scale=ALMOST_ZERO)(h)
    return keras.Model([x_t, t], answer, name=name)


def output_channels(parameters: UNetParameters, learned_variance: bool = False) -> int:
    """Count the numbers that the network answers with for each pixel."""
    return parameters.channels * (2 if learned_variance else 1)


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


# ---------------------------------------------------------------------------------------------
# How large a network will be, before it is built: the same graph, strung from widths alone.
# ---------------------------------------------------------------------------------------------


class Block(NamedTuple):
    """A piece of a UNet that costs something.

    Attributes:
        part: where it stands, in the words of :func:`parameters_by_part`.
        kind: "convolution", "dense" (of the time, once for each image), "residual" or "attention".
        old_width: channels that go in.
        new_width: channels that come out.
        side: of its result in pixels; 1 for the time, which has no pixels.
    """

    part: str
    kind: str
    old_width: int
    new_width: int
    side: int


def blocks(parameters: UNetParameters, learned_variance: bool = False) -> Iterator[Block]:
    """List the pieces of the network of :func:`build_unet` in the order an image meets them."""
    base, size, widths = parameters.base_width, parameters.image_size, parameters.level_widths
    yield Block("time", "dense", base, 4 * base, 1)
    yield Block("time", "dense", 4 * base, 4 * base, 1)
    yield Block("first", "convolution", parameters.channels, base, size)
    skips = [base]  # the width of every result that is kept
    for level in range(len(widths)):
        for block in _blocks_down(parameters, level, skips[-1]):
            yield block
            if block.kind != "attention":  # attention is part of the result before it
                skips.append(block.new_width)
    width, side = widths[-1], parameters.level_sizes[-1]
    yield Block("middle", "residual", width, width, side)
    yield Block("middle", "attention", width, width, side)
    yield Block("middle", "residual", width, width, side)
    x = width
    for level in reversed(range(len(widths))):
        yield from _blocks_up(parameters, level, x, skips)
        x = widths[level]
    last_width = output_channels(parameters, learned_variance)
    yield Block("last", "convolution", widths[0], last_width, size)


def _blocks_down(parameters: UNetParameters, level: int, x: int) -> Iterator[Block]:
    side, width = parameters.level_sizes[level], parameters.level_widths[level]
    for _ in range(parameters.residual_blocks):
        yield Block(f"down {side}", "residual", x, width, side)
        if side in parameters.attention_sizes:
            yield Block(f"down {side}", "attention", width, width, side)
        x = width
    if level != len(parameters.level_sizes) - 1:
        yield Block(f"down {side}", "convolution", width, width, side // 2)


def _blocks_up(parameters: UNetParameters, level: int, x: int, skips: list[int]) -> Iterator[Block]:
    side, width = parameters.level_sizes[level], parameters.level_widths[level]
    for _ in range(parameters.residual_blocks + 1):
        yield Block(f"up {side}", "residual", x + skips.pop(), width, side)
        if side in parameters.attention_sizes:
            yield Block(f"up {side}", "attention", width, width, side)
        x = width
    if level != 0:
        yield Block(f"up {side}", "convolution", width, width, 2 * side)


def conv_parameters(old_width: int, new_width: int, kernel_size: int = 3) -> int:
    """Count the weights of a convolution, and one bias for each new channel."""
    return kernel_size**2 * old_width * new_width + new_width


def dense_parameters(old_width: int, new_width: int) -> int:
    """Count the weights of a fully connected layer, and its biases."""
    return conv_parameters(old_width, new_width, kernel_size=1)


def residual_parameters(old_width: int, new_width: int, embedding_width: int) -> int:
    """Count the parameters of a residual block; its normalizations have two for each channel."""
    convolutions = conv_parameters(old_width, new_width) + conv_parameters(new_width, new_width)
    time = dense_parameters(embedding_width, new_width)
    shortcut = 0 if old_width == new_width else dense_parameters(old_width, new_width)
    return 2 * old_width + 2 * new_width + convolutions + time + shortcut


def attention_parameters(width: int) -> int:
    """Count the parameters of an attention block: queries, keys, values and the way out."""
    return 2 * width + 4 * dense_parameters(width, width)


def count_parameters(parameters: UNetParameters, learned_variance: bool = False) -> int:
    """Count the parameters of the network that :func:`build_unet` builds, without building it."""
    return sum(parameters_by_part(parameters, learned_variance).values())


def parameters_by_part(
    parameters: UNetParameters, learned_variance: bool = False
) -> dict[str, int]:
    """Count the parameters of each part of the network, in the order in which an image meets them.

    Args:
        parameters: the sizes of everything.
        learned_variance: whether the network also predicts the variance of the step back.

    Returns:
        ``{"time": …, "first": …, "down 32": …, …, "middle": …, …, "up 32": …, "last": …}``; the
        numbers in the names are the sides of the levels in pixels.
    """
    counts: dict[str, int] = {}
    for block in blocks(parameters, learned_variance):
        count = _block_parameters(block, 4 * parameters.base_width)
        counts[block.part] = counts.get(block.part, 0) + count
    counts["last"] += 2 * parameters.level_widths[0]  # the normalization before the last
    return counts


def _block_parameters(block: Block, embedding_width: int) -> int:
    _, kind, old_width, new_width, _ = block
    if kind == "residual":
        return residual_parameters(old_width, new_width, embedding_width)
    if kind == "attention":
        return attention_parameters(new_width)
    return conv_parameters(old_width, new_width, 1 if kind == "dense" else 3)
