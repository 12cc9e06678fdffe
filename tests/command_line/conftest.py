"""A folder to work in, and a finished run of a network that is quickly traced."""

import dataclasses

import numpy as np
import pytest
from pocket import pocket_network
from tiny import TINY

from command_line.lines import IMAGES, train_words
from diffusion_walkthrough import checkpoints, training, unet
from diffusion_walkthrough.command_line import main
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.parameters import save_parameters


@pytest.fixture(scope="module", autouse=True)
def pocket():
    """Pocket networks, which are quickly traced, wherever a UNet would be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "build_unet", pocket_for_tiny)
        patch.setattr(
            checkpoints, "count_parameters", lambda *some: pocket_for_tiny(*some).count_params()
        )
        yield


def pocket_for_tiny(parameters, *others):
    if dataclasses.replace(parameters, labels=()) != TINY.unet:
        return unet.build_unet(parameters, *others)
    return pocket_network(dataclasses.replace(TINY, unet=parameters))


@pytest.fixture(scope="package")
def workshop(tmp_path_factory):
    """A folder with the parameters of a tiny model and a few images."""
    folder = tmp_path_factory.mktemp("workshop")
    training = dataclasses.replace(TINY.training, ema_momentum=0.9)
    parameters = dataclasses.replace(TINY, training=training, pixel_levels=17)
    save_parameters(parameters, folder / "tiny.json")
    np.savez(folder / "some.npz", x_train=IMAGES, x_test=load_images("digits", split="test")[0])
    return folder


@pytest.fixture(scope="module")
def run(workshop, tmp_path_factory):
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(train_words(workshop, folder, epochs=2)) == 0
    return folder
