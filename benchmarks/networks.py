"""The models whose speed and memory are measured."""

from __future__ import annotations

import dataclasses

from diffusion_walkthrough.parameters import DiffusionParameters


def preset(name: str) -> DiffusionParameters:
    """The preset "digits", "mnist" or "cifar10"; MNIST with the network that the tables are of.

    That one has 32, 64 and 64 channels and multiplies 2.6 times as often as the preset's: large
    enough to say something, small enough for two cores.
    """
    parameters = getattr(DiffusionParameters, name)()
    if name != "mnist":
        return parameters
    network = {"base_width": 32, "width_multipliers": (1, 2, 2), "groups": 8}
    return dataclasses.replace(parameters, unet=dataclasses.replace(parameters.unet, **network))
