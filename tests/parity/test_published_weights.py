"""load_published_weights with files that diffusers wrote, and with the real huggingface_hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from test_published_weights import (
    CONFIG,
    GOLDEN,
    GOLDEN_PLACES,
    inputs,
    published_shapes,
    published_tensors,
    with_old_names,
)

from diffusion_walkthrough.checkpoints import load_published_weights
from diffusion_walkthrough.published_weights import FILE_NAMES
from diffusion_walkthrough.unet import build_unet
from parity import networks
from parity.networks import TINY

SAFETENSORS, BIN = FILE_NAMES


@pytest.fixture(scope="module")
def unet():
    return build_unet(TINY)


@pytest.fixture(scope="module")
def theirs():
    return networks.random_network(networks.configuration(TINY))


@pytest.fixture
def saved(theirs, tmp_path):
    """The folder that diffusers writes, in both formats."""
    theirs.save_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path, safe_serialization=False)
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


@pytest.mark.parametrize("name", FILE_NAMES)
def test_both_formats_load(unet, theirs, saved, name):
    reset(unet)
    load_published_weights(unet, saved / name)
    assert_same(unet, theirs)


@pytest.mark.parametrize("safe", [True, False])
def test_half_precision_loads(unet, saved, safe, tmp_path):
    half = diffusers.UNet2DModel.from_pretrained(saved).half()
    half.save_pretrained(tmp_path / "half", safe_serialization=safe)
    load_published_weights(unet, tmp_path / "half")
    assert_same(unet, half.float())


@pytest.mark.parametrize("name", FILE_NAMES)
def test_bfloat16_is_refused_by_name(unet, saved, name, tmp_path):
    other = diffusers.UNet2DModel.from_pretrained(saved).to(torch.bfloat16)
    other.save_pretrained(tmp_path / "other", safe_serialization=name == SAFETENSORS)
    with pytest.raises(ValueError, match=r"tensor \S+ is of type (BF16|torch.bfloat16); it must"):
        load_published_weights(unet, tmp_path / "other" / name)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_the_first_versions_names_mean_the_same_here_and_there(unet, theirs, saved, name):
    """diffusers still reads them; so its reading says which is which."""
    old = with_old_names(theirs.state_dict())
    assert sum("proj_attn" in tensor for tensor in old) == 8
    for other in FILE_NAMES:
        (saved / other).unlink()
    if name == SAFETENSORS:
        from safetensors.torch import save_file

        save_file(old, saved / name, metadata={"format": "pt"})
    else:
        torch.save(old, saved / name)
    again = diffusers.UNet2DModel.from_pretrained(saved, use_safetensors=name == SAFETENSORS)
    reset(unet)
    load_published_weights(unet, saved)
    assert_same(unet, again.eval())
    assert_same(unet, theirs)


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
    with pytest.raises(ValueError, match=r"holds class_embedding.weight, for which"):
        load_published_weights(unet, tmp_path)


def test_another_kind_of_model_is_refused(unet, tmp_path):
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not of a UNet2DModel"):
        load_published_weights(unet, tmp_path)


# ---------------------------------------------------------------------------------------------
# .bin files that are something else
# ---------------------------------------------------------------------------------------------


class Surprise:
    def __reduce__(self):
        return print, ("this code came out of a file",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Surprise(), "PyTorch cannot read"),
        ({"conv_in.weight": Surprise()}, "PyTorch cannot read"),
        ([torch.zeros(3)], "holds a list, and not tensors by name"),
        ({1: torch.zeros(3)}, "holds a dict, and not tensors by name"),
        ({"a": torch.zeros(3)}, "is not of a UNet2DModel"),
        ({"conv_in.weight": 1.5, "conv_out.weight": 2.5}, "tensor conv_in.weight is of type float"),
    ],
)
def test_a_pickle_of_something_else_is_refused(unet, tmp_path, capsys, content, message):
    torch.save(content, tmp_path / BIN)
    with pytest.raises(ValueError, match=message):
        load_published_weights(unet, tmp_path / BIN)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"<!doctype html>" * 9, b"PK\x03\x04"])
def test_garbage_is_refused(unet, tmp_path, content):
    (tmp_path / BIN).write_bytes(content)
    with pytest.raises(ValueError, match=r"PyTorch cannot read .*Download it again"):
        load_published_weights(unet, tmp_path)


# ---------------------------------------------------------------------------------------------
# The tiny network of tests/test_published_weights.py
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


# ---------------------------------------------------------------------------------------------
# The hub, out of its cache on this computer
# ---------------------------------------------------------------------------------------------

PROGRAM = """
import sys
from diffusion_walkthrough.checkpoints import load_published_weights
from diffusion_walkthrough.unet import build_unet
from parity.networks import TINY
unet = build_unet(TINY)
try:
    load_published_weights(unet, "google/ddpm-cifar10-32")
except Exception as error:
    print(type(error).__name__, error)
else:
    print("loaded", float(unet.get_weights()[0].sum()) != 0)
"""


def load_from_cache(cache: Path) -> str:
    """Load by name in a process that has this cache and no network."""
    environment = {
        **os.environ,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def put_into_cache(cache: Path, *files: Path) -> None:
    model = cache / "hub" / "models--google--ddpm-cifar10-32"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0" * 40)
    snapshot = model / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in files:
        shutil.copy(file, snapshot)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_the_real_hub_library_finds_either_file(saved, tmp_path, name):
    put_into_cache(tmp_path / "cache", saved / name, saved / "config.json")
    assert load_from_cache(tmp_path / "cache") == "loaded True"


def test_the_configuration_from_the_hub_is_looked_at(saved, tmp_path):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "freq_shift": 0}))
    put_into_cache(tmp_path / "cache", saved / SAFETENSORS, saved / "config.json")
    assert "config.json says freq_shift = 0" in load_from_cache(tmp_path / "cache")


def test_the_real_hub_library_without_a_network(tmp_path):
    answer = load_from_cache(tmp_path / "empty")
    assert answer.startswith("ConnectionError google/ddpm-cifar10-32 is not on this computer")
