"""load_published_weights with files that diffusers wrote."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from files.test_published_weights import (
    CONFIG,
    GOLDEN,
    GOLDEN_PLACES,
    inputs,
    published_shapes,
    published_tensors,
    with_old_names,
)

from diffusion_walkthrough.checkpoints import load_published_weights
from diffusion_walkthrough.files.published_weights import FILE_NAME
from diffusion_walkthrough.unet import build_unet
from parity import networks
from parity.networks import TINY


@pytest.fixture(scope="module")
def unet():
    return build_unet(TINY)


@pytest.fixture(scope="module")
def theirs():
    return networks.random_network(networks.configuration(TINY))


@pytest.fixture
def saved(theirs, tmp_path):
    """The folder that diffusers writes."""
    theirs.save_pretrained(tmp_path)
    return tmp_path


def assert_same(unet, theirs, tolerance=1e-5):
    x_t, t = networks.inputs(TINY)
    ours = networks.our_output(unet, x_t, t)
    assert networks.relative_error(ours, networks.their_output(theirs, x_t, t)) < tolerance


def reset(unet):
    unet.set_weights([np.full(w.shape, np.nan, "float32") for w in unet.weights])


# ---------------------------------------------------------------------------------------------
# Files that diffusers wrote
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [FILE_NAME, ""])
def test_the_file_and_its_folder_load(unet, theirs, saved, name):
    reset(unet)
    load_published_weights(unet, saved / name)
    assert_same(unet, theirs)


def test_the_network_of_a_pipeline_loads(unet, theirs, tmp_path):
    scheduler = diffusers.DDPMScheduler()
    diffusers.DDPMPipeline(unet=theirs, scheduler=scheduler).save_pretrained(tmp_path)
    reset(unet)
    load_published_weights(unet, tmp_path)
    assert_same(unet, theirs)


def test_half_precision_loads(unet, saved, tmp_path):
    half = diffusers.UNet2DModel.from_pretrained(saved).half()
    half.save_pretrained(tmp_path / "half")
    load_published_weights(unet, tmp_path / "half")
    assert_same(unet, half.float())


def test_bfloat16_is_refused_by_name(unet, saved, tmp_path):
    other = diffusers.UNet2DModel.from_pretrained(saved).to(torch.bfloat16)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"\S+ is of type BF16; it must"):
        load_published_weights(unet, tmp_path / "other")


def test_the_first_versions_names_mean_the_same_here_and_there(unet, theirs, saved):
    """diffusers still reads them; so its reading says which is which."""
    from safetensors.torch import save_file

    old = with_old_names(theirs.state_dict())
    assert sum("proj_attn" in tensor for tensor in old) == 8
    save_file(old, saved / FILE_NAME, metadata={"format": "pt"})
    again = diffusers.UNet2DModel.from_pretrained(saved, use_safetensors=True)
    reset(unet)
    load_published_weights(unet, saved)
    assert_same(unet, again.eval())
    assert_same(unet, theirs)


def test_one_head_as_wide_as_the_features_is_our_attention(unet, tmp_path):
    """Said in other words than None: all attention of this network has 16 channels."""
    config = {**networks.configuration(TINY), "attention_head_dim": 16}
    other = networks.random_network(config)
    other.save_pretrained(tmp_path)
    load_published_weights(unet, tmp_path)
    assert_same(unet, other)


def test_a_network_of_diffusers_own_defaults_is_refused(saved, tmp_path):
    """The tutorials' networks have the same tensors, and compute something else with them."""
    config = networks.configuration(TINY)
    left_to_diffusers = ("flip_sin_to_cos", "freq_shift", "downsample_padding", "norm_eps")
    for name in (*left_to_diffusers, "attention_head_dim"):
        del config[name]
    tutorial = diffusers.UNet2DModel(**config)
    tutorial.save_pretrained(tmp_path / "tutorial")
    with pytest.raises(ValueError, match=r"config.json says \w+ = .*its results be wrong"):
        load_published_weights(build_unet(TINY), tmp_path / "tutorial")


def test_a_network_with_class_labels_is_refused_by_name(unet, tmp_path):
    config = {**networks.configuration(TINY), "num_class_embeds": 10}
    diffusers.UNet2DModel(**config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no place for class_embedding.weight"):
        load_published_weights(unet, tmp_path)


def test_another_kind_of_model_is_refused(unet, tmp_path):
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is not of a UNet2DModel|is of a 'AutoencoderKL'"):
        load_published_weights(unet, tmp_path)


# ---------------------------------------------------------------------------------------------
# The tiny network of tests/files/test_published_weights.py
# ---------------------------------------------------------------------------------------------


def test_diffusers_has_the_names_shapes_and_results_that_the_unit_tests_count_on():
    network = diffusers.UNet2DModel.from_config(CONFIG).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes == published_shapes()
    tensors = published_tensors()
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    output = networks.their_output(network, *inputs())
    got = [output[image, y, x, 0] for image, y, x in GOLDEN_PLACES]
    np.testing.assert_allclose(got, GOLDEN, atol=2e-6)
