"""Networks of as many weights: which of them compute the same with them."""

from __future__ import annotations

import dataclasses

import keras
import pytest
from tiny import SMALLEST_UNET

from diffusion_walkthrough.files.structures import structure
from diffusion_walkthrough.unet import build_unet


def small(activation: str = "relu", first: str = "first", units: int = 2) -> keras.Model:
    inside = keras.Input((2,))
    hidden = keras.ops.silu(keras.layers.Dense(units, activation, name=first)(inside))
    return keras.Model(inside, keras.layers.Dense(1, name="last")(hidden))


def test_the_same_built_again_copied_or_frozen_is_of_the_same_structure():
    network = build_unet(SMALLEST_UNET)
    expected = structure(network)
    copied = keras.models.clone_model(network)
    assert structure(build_unet(SMALLEST_UNET, name="mine")) == structure(copied) == expected
    copied.trainable = False
    assert structure(copied) == expected


@pytest.mark.parametrize(
    "other",
    [small("tanh"), small(first="mine"), small(units=3)],
    ids=["activation", "name", "size"],
)
def test_what_answers_otherwise_or_is_called_otherwise_is_of_another(other):
    assert structure(small()) == structure(small())
    assert structure(other) != structure(small())


def test_groups_are_told_apart():
    groups = dataclasses.replace(SMALLEST_UNET, groups=1)
    assert structure(build_unet(groups)) != structure(build_unet(SMALLEST_UNET))


class Own(keras.Model):
    """A model that Keras cannot describe."""

    def call(self, x):
        return x


def test_a_network_that_is_not_functional_has_none():
    assert structure(Own()) is None
    assert structure(keras.Sequential([keras.layers.Dense(1)])) is None
