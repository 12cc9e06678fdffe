"""What a network costs, counted from its sizes alone, before it is built.

:func:`blocks` strings the graph of :func:`~diffusion_walkthrough.unet.build_unet` together from
widths, without a tensor. Each block has a number of parameters and a number of multiplications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.unet import output_channels


class Block(NamedTuple):
    """A piece of a UNet that costs something.

    Attributes:
        part: where it stands, in the words of :func:`parameters_by_part`.
        kind: "convolution", "dense" (of the time, once for each image), "table" (of a label, with
            a row for each value and one for none), "residual" or "attention".
        old_width: channels that go in, or the rows of a table.
        new_width: channels that come out.
        side: of its result in pixels; 1 for the time, which has no pixels.
    """

    part: str
    kind: str
    old_width: int
    new_width: int
    side: int


def blocks(parameters: UNetParameters, learned_variance: bool = False) -> Iterator[Block]:
    """List the pieces of the network of ``build_unet`` in the order an image meets them."""
    base, size, widths = parameters.base_width, parameters.image_size, parameters.level_widths
    yield Block("time", "dense", base, 4 * base, 1)
    yield Block("time", "dense", 4 * base, 4 * base, 1)
    for _, count in parameters.labels:
        yield Block("labels", "table", count + 1, 4 * base, 1)
    yield Block("first", "convolution", parameters.channels, base, size)
    skips = [base]  # the width of every result that is kept
    for level in range(len(widths)):
        for block in _blocks_down(parameters, level, skips[-1]):
            yield block
            if block.kind != "attention":  # attention is part of the result before it
                skips.append(block.new_width)
    width, side = widths[-1], parameters.level_sizes[-1]
    for kind in ("residual", "attention", "residual"):
        yield Block("middle", kind, width, width, side)
    for level in reversed(range(len(widths))):
        yield from _blocks_up(parameters, level, width, skips)
        width = widths[level]
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


def _by_part(
    parameters: UNetParameters, learned_variance: bool, cost: Callable[[Block, int], int]
) -> dict[str, int]:
    """Add up what the blocks of each part cost, each by itself and the width of the time."""
    counts: dict[str, int] = {}
    for block in blocks(parameters, learned_variance):
        counts[block.part] = counts.get(block.part, 0) + cost(block, 4 * parameters.base_width)
    return counts


# ---------------------------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------------------------


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


def block_parameters(block: Block, embedding_width: int) -> int:
    """Count the parameters of one block; to the last convolution belongs a normalization."""
    part, kind, old_width, new_width, _ = block
    if kind == "residual":
        return residual_parameters(old_width, new_width, embedding_width)
    if kind == "attention":
        return attention_parameters(new_width)
    if kind == "table":
        return old_width * new_width
    norm = 2 * old_width if part == "last" else 0
    return norm + conv_parameters(old_width, new_width, 1 if kind == "dense" else 3)


def count_parameters(parameters: UNetParameters, learned_variance: bool = False) -> int:
    """Count the parameters of the network that ``build_unet`` builds, without building it."""
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
        numbers in the names are the sides of the levels in pixels. A network that is told labels
        has "labels" after "time".
    """
    return _by_part(parameters, learned_variance, block_parameters)


# ---------------------------------------------------------------------------------------------
# Operations
# ---------------------------------------------------------------------------------------------


def conv_multiply_adds(old_width: int, new_width: int, side: int, kernel_size: int = 3) -> int:
    """Count the products of a convolution whose result is ``side`` pixels high and wide.

    Those with the zeros around the image are counted too: most machines do compute them.
    """
    return kernel_size**2 * old_width * new_width * side**2


def residual_multiply_adds(old_width: int, new_width: int, side: int, embedding_width: int) -> int:
    """Count the products of a residual block: two convolutions, the time, and the shortcut."""
    convolutions = conv_multiply_adds(old_width, new_width, side)
    convolutions += conv_multiply_adds(new_width, new_width, side)
    shortcut = 0 if old_width == new_width else conv_multiply_adds(old_width, new_width, side, 1)
    return convolutions + embedding_width * new_width + shortcut


def attention_multiply_adds(width: int, side: int) -> int:
    """Count the products of attention: four dense layers, then q·k and weights·v for all pairs."""
    pixels = side**2
    return 4 * pixels * width**2 + 2 * pixels**2 * width


def block_multiply_adds(block: Block, embedding_width: int) -> int:
    """Count the products of one block for one image."""
    _, kind, old_width, new_width, side = block
    if kind == "residual":
        return residual_multiply_adds(old_width, new_width, side, embedding_width)
    if kind == "attention":
        return attention_multiply_adds(new_width, side)
    if kind == "table":
        return 0  # a row is looked up
    return conv_multiply_adds(old_width, new_width, side, 1 if kind == "dense" else 3)


def count_multiply_adds(parameters: UNetParameters, learned_variance: bool = False) -> int:
    """Count the multiplications of ``build_unet(parameters)`` for one image, without building it.

    Each comes with one addition. What is done to each number on its own (normalization, the bends,
    the softmax) is left out: by TensorFlow's count 0.3 % of the work of the paper's network for
    CIFAR-10, and 1.6 % for the digits.
    """
    return sum(multiply_adds_by_part(parameters, learned_variance).values())


def multiply_adds_by_part(
    parameters: UNetParameters, learned_variance: bool = False
) -> dict[str, int]:
    """Count the multiplications of each part of the network for one image.

    Returns:
        A dictionary with the names and the order of :func:`parameters_by_part`.
    """
    return _by_part(parameters, learned_variance, block_multiply_adds)


def operations_per_epoch(parameters: UNetParameters, images: int) -> int:
    """Count the operations of training once on each image.

    A multiplication and its addition are two operations. Training takes three times those of the
    forward pass: on the way back each layer needs the gradient of its input and of its weights.

    Raises ValueError if ``images`` is not a whole number of at least 1.
    """
    if isinstance(images, bool) or not isinstance(images, (int, np.integer)) or images < 1:
        raise ValueError(
            f"images={images!r}: an epoch needs a whole number of images, at least 1. "
            "Use for example len(images)."
        )
    return 2 * 3 * count_multiply_adds(parameters) * int(images)
