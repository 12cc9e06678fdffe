"""The UNet of Ho et al. 2020, as a functional Keras model built from a handful of functions.

Every block is a plain function from tensors to tensors; :func:`build_unet` strings them together.
The architecture and its parameter counts are those of the original (arXiv 2006.11239, appendix B).
Shapes are ``(batch, height, width, channels)`` throughout.

Each layer is named for its place, as in "down-0-residual-1-conv_2": level 0 is the finest, and
blocks are counted within their level in the order in which an image meets them.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import layers, ops

from diffusion_walkthrough.engine.layers import GroupNormalization
from diffusion_walkthrough.parameters import UNetParameters

#: Group normalization adds this to the variance before dividing by its root.
EPSILON = 1e-6

#: Layers that should begin by contributing nothing start with weights of this variance scale.
ALMOST_ZERO = 1e-10


def fan_avg_initializer(scale: float = 1.0) -> keras.initializers.Initializer:
    """Glorot-uniform with a variance multiplied by ``scale``."""
    return keras.initializers.VarianceScaling(scale, mode="fan_avg", distribution="uniform")


def conv(
    width: int, kernel_size: int = 3, strides: int = 1, scale: float = 1.0, name: str | None = None
) -> Any:
    """A convolution that keeps the image size, or halves it with ``strides=2``."""
    initializer = fan_avg_initializer(scale)
    return layers.Conv2D(
        width,
        kernel_size,
        strides,
        padding="same",
        data_format="channels_last",
        kernel_initializer=initializer,
        name=name,
    )


def dense(width: int, scale: float = 1.0, name: str | None = None) -> Any:
    """A fully connected layer."""
    return layers.Dense(width, kernel_initializer=fan_avg_initializer(scale), name=name)


def on_each_pixel(x: Any, width: int, scale: float = 1.0, name: str | None = None) -> Any:
    """The same fully connected layer on every pixel, ``(batch, …, channels)``: a 1×1 convolution.

    All pixels of all images are the rows of one matrix, which is multiplied once.
    """
    rows = dense(width, scale, name)(ops.reshape(x, (-1, x.shape[-1])))
    return ops.reshape(rows, (-1, *x.shape[1:-1], width))


def normalize(x: Any, groups: int, name: str | None = None) -> Any:
    """Group normalization: each group of channels of each image to mean 0 and variance 1.

    Raises ValueError if ``groups`` does not divide the number of channels.
    """
    if x.shape[-1] % groups:
        raise ValueError(
            f"groups={groups}: groups must divide the number of channels, {x.shape[-1]}. "
            f"Use for example {math.gcd(x.shape[-1], groups)}."
        )
    return GroupNormalization(groups, epsilon=EPSILON, name=name)(x)


def _within(block: str | None, layer: str) -> str | None:
    """The name of a layer inside a block; None, for a name of Keras's own, in one without."""
    return block and f"{block}-{layer}"


def timestep_embedding(t: Any, width: int) -> Any:
    """Turn step numbers into waves: [sin(t ω_k), cos(t ω_k)] with ω from 1 down to 1/10,000.

    Step numbers ``(batch,)``, real ones too, become float32 ``(batch, width)``, values in [-1, 1].
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


def embed_timestep(t: Any, base_width: int, name: str | None = None) -> Any:
    """Waves, then two dense layers that learn what to make of them: ``(batch, 4 * base_width)``."""
    embedding = timestep_embedding(t, base_width)
    embedding = dense(4 * base_width, name=_within(name, "dense_1"))(embedding)
    embedding = ops.silu(embedding)
    return dense(4 * base_width, name=_within(name, "dense_2"))(embedding)


def embed_labels(
    labels: Any, described: tuple[tuple[str, int], ...], width: int, name: str | None = None
) -> Any:
    """Look up a learned row for each label of an image, and add the rows up: ``(batch, width)``.

    Each label has a table of its own, whose first row stands for "not said", -1. That row is
    learned too: zeros would not be, and class 0 is a class.

    Args:
        labels: int32 ``(batch,)``, of several ``(batch, how many)``: from 0, or -1 for "not said".
        described: the name of each label and how many values it has, as in ``UNetParameters``.
        width: of the result.
        name: what the names of the tables begin with.
    """
    columns = [labels] if len(described) == 1 else ops.unstack(labels, len(described), axis=1)
    spread = keras.initializers.RandomNormal(stddev=1 / math.sqrt(len(described)))
    rows = [
        layers.Embedding(count + 1, width, spread, name=_within(name, word))(column + 1)
        for (word, count), column in zip(described, columns, strict=True)
    ]
    return sum(rows[1:], rows[0])


def residual_block(
    x: Any,
    embedding: Any,
    width: int,
    groups: int = 32,
    dropout: float = 0.0,
    name: str | None = None,
) -> Any:
    """Two convolutions with the time added in between, plus a shortcut around them.

    Args:
        x: ``(batch, height, width, channels)``.
        embedding: the embedded time, ``(batch, anything)``.
        width: number of channels of the result.
        groups: groups of the normalization; must divide both the old and the new width. With as
            many groups as channels the second normalization takes the time out again.
        dropout: share of features dropped in training, in [0, 1).
        name: what the names of its layers begin with; None leaves naming to Keras.

    Returns:
        ``(batch, height, width, width)``; at first exactly the shortcut, because the second
        convolution starts at (almost) zero.
    """
    h = ops.silu(normalize(x, groups, _within(name, "norm_1")))
    h = conv(width, name=_within(name, "conv_1"))(h)
    time = dense(width, name=_within(name, "time"))(ops.silu(embedding))  # (batch, width)
    h = h + ops.reshape(time, (-1, 1, 1, width))
    h = ops.silu(normalize(h, groups, _within(name, "norm_2")))
    if dropout > 0:
        h = layers.Dropout(dropout, name=_within(name, "dropout"))(h)
    h = conv(width, scale=ALMOST_ZERO, name=_within(name, "conv_2"))(h)
    if x.shape[-1] != width:
        x = on_each_pixel(x, width, name=_within(name, "shortcut"))
    return x + h


def attention_weights(queries: Any, keys: Any) -> Any:
    """Say how much each pixel looks at each other one: softmax(q·k / √C).

    Queries, what each pixel looks for, and keys, what each offers, are ``(batch, pixels,
    channels)``.

    Returns:
        ``(batch, pixels, pixels)``, float32 also under mixed precision; ``[b, i, j]`` is how much
        pixel i looks at pixel j, and the sum over j is 1.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), Eq. 1.
    """
    queries = queries * (1 / math.sqrt(queries.shape[-1]))  # before the product, which could grow
    scores = ops.einsum("bic,bjc->bij", queries, keys)
    return ops.softmax(ops.cast(scores, "float32"), axis=-1)


def attention_block(x: Any, groups: int = 32, name: str | None = None) -> Any:
    """Let every pixel look at every other: softmax(q·k / √C) v, added to its input.

    The result has the shape of ``x``, and is at first exactly ``x``. ``groups`` are those of the
    normalization; ``name`` is what the names of its layers begin with.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), Eq. 1, with a single head.
    """
    _, height, width, channels = x.shape
    normalized = normalize(x, groups, _within(name, "norm"))
    pixels = ops.reshape(normalized, (-1, height * width, channels))
    queries = on_each_pixel(pixels, channels, name=_within(name, "query"))
    keys = on_each_pixel(pixels, channels, name=_within(name, "key"))
    values = on_each_pixel(pixels, channels, name=_within(name, "value"))
    weights = ops.cast(attention_weights(queries, keys), values.dtype)
    attended = ops.matmul(weights, values)
    result = on_each_pixel(attended, channels, ALMOST_ZERO, _within(name, "out"))
    return x + ops.reshape(result, (-1, height, width, channels))


def downsample(x: Any, name: str | None = None) -> Any:
    """Halve height and width with a convolution of stride 2."""
    return conv(x.shape[-1], strides=2, name=name)(x)


def upsample(x: Any, name: str | None = None) -> Any:
    """Double height and width by repeating pixels, then smooth with a convolution."""
    repeat = layers.UpSampling2D(2, "channels_last", "nearest", name=_within(name, "repeat"))
    return conv(x.shape[-1], name=name)(repeat(x))


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
        twice the channels, the second half being its logarithm. ``t`` may be real-valued; whole
        numbers are converted. A network that is told labels has them as a third input, int32
        ``(batch,)``, of several ``(batch, how many)``; see :func:`embed_labels`.
    """
    x_t = keras.Input(parameters.image_shape, dtype="float32", name="x_t")
    t = keras.Input((), dtype="float32", name="t")
    shown, embedding = [x_t, t], embed_timestep(t, parameters.base_width, "time")
    if told := parameters.labels:
        labels = keras.Input(() if len(told) == 1 else (len(told),), dtype="int32", name="labels")
        shown.append(labels)
        embedding = embedding + embed_labels(labels, told, 4 * parameters.base_width, "labels")

    skips = _down(conv(parameters.base_width, name="first")(x_t), embedding, parameters)
    h = _middle(skips[-1], embedding, parameters)
    h = _up(h, skips, embedding, parameters)

    h = ops.silu(normalize(h, parameters.groups, "last-norm"))
    channels = output_channels(parameters, learned_variance)
    answer = conv(channels, scale=ALMOST_ZERO, name="last-conv")(h)
    network = keras.Model(shown, answer, name=name)
    network.autocast = False  # in bfloat16, step 999 would become 1000; each layer casts for itself
    return network


def output_channels(parameters: UNetParameters, learned_variance: bool = False) -> int:
    """Count the numbers that the network answers with for each pixel."""
    return parameters.channels * (2 if learned_variance else 1)


def _block(
    x: Any, embedding: Any, way: str, level: int, number: int, parameters: UNetParameters
) -> Any:
    """One residual block of a level, with attention where the parameters ask for it."""
    width, name = parameters.level_widths[level], f"{way}-{level}"
    groups, dropout = parameters.groups, parameters.dropout
    x = residual_block(x, embedding, width, groups, dropout, f"{name}-residual-{number}")
    if parameters.level_sizes[level] in parameters.attention_sizes:
        x = attention_block(x, groups, f"{name}-attention-{number}")
    return x


def _down(x: Any, embedding: Any, parameters: UNetParameters) -> list[Any]:
    """The way down: returns every intermediate result, the last one being the smallest."""
    skips = [x]
    levels = len(parameters.width_multipliers)
    for level in range(levels):
        for i in range(parameters.residual_blocks):
            skips.append(_block(skips[-1], embedding, "down", level, i, parameters))
        if level != levels - 1:
            skips.append(downsample(skips[-1], f"down-{level}-downsample"))
    return skips


def _middle(x: Any, embedding: Any, parameters: UNetParameters) -> Any:
    """The bottom of the U: two residual blocks with attention between them, always."""
    width, groups, dropout = x.shape[-1], parameters.groups, parameters.dropout
    x = residual_block(x, embedding, width, groups, dropout, "middle-residual-0")
    x = attention_block(x, groups, "middle-attention-0")
    return residual_block(x, embedding, width, groups, dropout, "middle-residual-1")


def _up(x: Any, skips: list[Any], embedding: Any, parameters: UNetParameters) -> Any:
    """The way up: every block also sees what the way down saw at its size."""
    skips = list(skips)
    for level in reversed(range(len(parameters.width_multipliers))):
        for i in range(parameters.residual_blocks + 1):
            x = ops.concatenate([x, skips.pop()], axis=-1)
            x = _block(x, embedding, "up", level, i, parameters)
        if level != 0:
            x = upsample(x, f"up-{level}-upsample")
    return x
