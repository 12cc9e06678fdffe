"""What a network costs in operations, counted from its parameters alone, before it is built."""

from __future__ import annotations

import numpy as np

from diffusion_walkthrough.parameters import UNetParameters
from diffusion_walkthrough.unet import Block, blocks


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


def count_multiply_adds(parameters: UNetParameters) -> int:
    """Count the multiplications of ``build_unet(parameters)`` for one image, without building it.

    Each comes with one addition. What is done to each number on its own (normalization, the bends,
    the softmax) is left out: by TensorFlow's count 0.3 % of the work of the paper's network for
    CIFAR-10, and 1.6 % for the digits.
    """
    return sum(multiply_adds_by_part(parameters).values())


def multiply_adds_by_part(parameters: UNetParameters) -> dict[str, int]:
    """Count the multiplications of each part of the network for one image.

    Returns:
        A dictionary with the names and the order of ``unet.parameters_by_part``.
    """
    counts: dict[str, int] = {}
    for block in blocks(parameters):
        cost = block_multiply_adds(block, 4 * parameters.base_width)
        counts[block.part] = counts.get(block.part, 0) + cost
    return counts


def block_multiply_adds(block: Block, embedding_width: int) -> int:
    """Count the products of one block for one image."""
    _, kind, old_width, new_width, side = block
    if kind == "residual":
        return residual_multiply_adds(old_width, new_width, side, embedding_width)
    if kind == "attention":
        return attention_multiply_adds(new_width, side)
    return conv_multiply_adds(old_width, new_width, side, 1 if kind == "dense" else 3)


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
