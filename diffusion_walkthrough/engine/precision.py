"""Precision: the number format a network computes in, whatever Keras's global policy is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from diffusion_walkthrough import checks


@contextlib.contextmanager
def floats_of_32_bits() -> Iterator[None]:
    """Let Keras make float32 where nobody names a type, for a while; also around a function."""
    before = keras.config.floatx()
    keras.config.set_floatx("float32")
    try:
        yield
    finally:
        keras.config.set_floatx(before)


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers in another precision for a while, e.g. "mixed_float16"."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        with floats_of_32_bits():
            yield
    finally:
        keras.config.set_dtype_policy(before)


def warn_of_another_policy(precision: str) -> None:
    """Warn if Keras's global policy was set to something else than the parameters' precision.

    Whoever sets it expects models to follow it; a diffusion model follows its parameters, so that
    they tell what it is. Keras's default, "float32", is no reason to warn.
    """
    policy = keras.config.dtype_policy().name
    if policy not in ("float32", precision):
        checks.warn(
            f"Keras's global policy is {policy!r}, but this model computes in {precision!r}, as "
            f"its parameters say. Use TrainingParameters(precision={policy!r}) for the other."
        )
