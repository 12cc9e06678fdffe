"""Our UNet computes what diffusers' UNet2DModel computes with the same weights.

The weights travel as a learner's would: diffusers saves, ``load_published_weights`` loads. The
criterion of all tests is a relative error below 1e-5 in float32, the largest over all pixels and
over t = 0, 1, 500, 999; measured are 1e-6 to 4e-6, the rounding of the two libraries.
"""

from __future__ import annotations

import dataclasses

import diffusers
import pytest
import torch
from keras import layers

from diffusion_walkthrough import unet
from diffusion_walkthrough.checkpoints import load_published_weights
from diffusion_walkthrough.files.published_weights import FILE_NAME
from diffusion_walkthrough.parameters import DiffusionParameters, UNetParameters
from diffusion_walkthrough.planner.counting import count_parameters
from diffusion_walkthrough.unet import build_unet
from parity import networks
from parity.networks import GREY, NARROW_256, TINY

CIFAR10 = UNetParameters()
#: The 256x256 network with all its weights, but looking at smaller images: 4 is the fifth level.
FACES = dataclasses.replace(
    DiffusionParameters.celeba_hq_256().unet, image_size=64, attention_sizes=(4,)
)
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    "parameters",
    [
        TINY,
        dataclasses.replace(TINY, attention_sizes=()),
        dataclasses.replace(TINY, attention_sizes=(8, 4), channels=3),
        GREY,
        NARROW_256,
        CIFAR10,
        FACES,
    ],
    ids=[
        "tiny",
        "no attention",
        "attention everywhere",
        "28x28",
        "256x256, narrow",
        "CIFAR-10",
        "256x256, small images",
    ],
)
def test_the_same_weights_give_the_same_output(parameters, tmp_path):
    theirs = networks.random_network(networks.configuration(parameters))
    theirs.save_pretrained(tmp_path)
    ours = build_unet(parameters)
    load_published_weights(ours, tmp_path)
    (tmp_path / FILE_NAME).unlink()  # pytest would keep half a gigabyte
    x_t, t = networks.inputs(parameters)
    expected = networks.their_output(theirs, x_t, t)
    assert expected.std() > 0.3
    assert expected.std(axis=0).mean() > 0.3  # the images and the steps do matter
    error = networks.relative_error(networks.our_output(ours, x_t, t), expected)
    print(f"relative error {error:.1e}")
    assert error < TOLERANCE


def test_a_learned_variance_doubles_the_channels_in_both(tmp_path):
    theirs = networks.random_network(networks.configuration(TINY, learned_variance=True))
    theirs.save_pretrained(tmp_path)
    ours = build_unet(TINY, learned_variance=True)
    load_published_weights(ours, tmp_path)
    x_t, t = networks.inputs(TINY)
    expected = networks.their_output(theirs, x_t, t)
    assert expected.shape == (4, 8, 8, 2)
    assert networks.relative_error(networks.our_output(ours, x_t, t), expected) < TOLERANCE
    with pytest.raises(
        ValueError,
        match=r"conv_out.weight .*has shape \(2, 8, 3, 3\), .*needs \(1, .*learned_variance=True",
    ):
        load_published_weights(build_unet(TINY), tmp_path)


@pytest.mark.parametrize(
    ("parameters", "count"),
    [(CIFAR10, 35_746_307), (DiffusionParameters.celeba_hq_256().unet, 113_673_219)],
    ids=["CIFAR-10", "256x256"],
)
def test_the_published_networks_have_as_many_parameters_there(parameters, count):
    with torch.device("meta"):  # shapes without numbers
        theirs = diffusers.UNet2DModel(**networks.configuration(parameters))
    assert sum(weight.numel() for weight in theirs.parameters()) == count
    assert count_parameters(parameters) == count


# ---------------------------------------------------------------------------------------------
# The comparison would notice: each of these mistakes makes the error 1000 times what is allowed.
# ---------------------------------------------------------------------------------------------


def error_with(tmp_path, change=lambda tensors: None, **settings):
    """The error if tensors are changed on the way, or if diffusers is set to something else."""
    theirs = networks.random_network({**networks.configuration(TINY), **settings})
    x_t, t = networks.inputs(TINY)
    expected = networks.their_output(theirs, x_t, t)
    tensors = theirs.state_dict()
    change(tensors)
    theirs.load_state_dict(tensors)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()  # which would have the settings refused
    ours = build_unet(TINY)
    load_published_weights(ours, tmp_path)
    return networks.relative_error(networks.our_output(ours, x_t, t), expected)


def swap(first, second):
    def change(tensors):
        for name in [name for name in tensors if first in name]:
            other = name.replace(first, second)
            tensors[name], tensors[other] = tensors[other].clone(), tensors[name].clone()

    return change


def transpose(part):
    def change(tensors):
        tensors[f"{part}.weight"] = tensors[f"{part}.weight"].transpose(0, 1).clone()

    return change


MISTAKES = {
    "queries and keys swapped": swap("to_q", "to_k"),
    "keys and values swapped": swap("to_k", "to_v"),
    "an attention's output transposed": transpose("mid_block.attentions.0.to_out.0"),
    "the time's second layer transposed": transpose("time_embedding.linear_2"),
    "a kernel's in and out swapped": transpose("mid_block.resnets.0.conv1"),
    "two convolutions swapped": swap("mid_block.resnets.0.conv1", "mid_block.resnets.0.conv2"),
    "two normalizations swapped": swap("mid_block.resnets.0.norm1", "mid_block.resnets.0.norm2"),
    "two blocks swapped": swap("mid_block.resnets.0", "mid_block.resnets.1"),
}


def test_without_a_mistake_the_error_is_small(tmp_path):
    assert error_with(tmp_path) < TOLERANCE


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_weight_in_the_wrong_place_is_noticed(mistake, tmp_path):
    assert error_with(tmp_path, MISTAKES[mistake]) > 1000 * TOLERANCE


@pytest.mark.parametrize(
    "settings",
    [
        {"flip_sin_to_cos": True},
        {"freq_shift": 0},
        {"downsample_padding": 1},
        {"attention_head_dim": 4},
        {"norm_num_groups": 2},
        {"mid_block_scale_factor": 2},
    ],
    ids=str,
)
def test_a_setting_that_no_tensor_tells_is_noticed(settings, tmp_path):
    """Why the configuration beside a file is looked at."""
    assert error_with(tmp_path, **settings) > 1000 * TOLERANCE


def test_padding_on_the_other_side_is_noticed(tmp_path, monkeypatch):
    def downsample_from_the_other_corner(x, name):
        padded = layers.ZeroPadding2D(((1, 0), (1, 0)))(x)
        return layers.Conv2D(x.shape[-1], 3, 2, padding="valid", name=name)(padded)

    monkeypatch.setattr(unet, "downsample", downsample_from_the_other_corner)
    assert error_with(tmp_path) > 1000 * TOLERANCE
