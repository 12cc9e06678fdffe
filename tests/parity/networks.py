"""A UNet2DModel of diffusers beside the same network of ours."""

from __future__ import annotations

import dataclasses

import diffusers
import numpy as np
import torch
from keras import ops

from diffusion_walkthrough.parameters import UNetParameters


def configuration(parameters: UNetParameters, learned_variance: bool = False) -> dict:
    """The network of ``parameters`` in the words of diffusers, as google/ddpm-cifar10-32 has them.

    Its config.json on the hub names the same settings, and for ``UNetParameters()`` and
    ``celeba_hq_256`` the same sizes; newer settings are left to diffusers.
    """
    with_attention = [size in parameters.attention_sizes for size in parameters.level_sizes]
    down = ["AttnDownBlock2D" if attention else "DownBlock2D" for attention in with_attention]
    up = ["AttnUpBlock2D" if attention else "UpBlock2D" for attention in with_attention]
    return {
        "act_fn": "silu",
        "attention_head_dim": None,
        "block_out_channels": parameters.level_widths,
        "center_input_sample": False,
        "down_block_types": down,
        "downsample_padding": 0,
        "dropout": parameters.dropout,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "in_channels": parameters.channels,
        "layers_per_block": parameters.residual_blocks,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-6,
        "norm_num_groups": parameters.groups,
        "out_channels": parameters.channels * (2 if learned_variance else 1),
        "sample_size": parameters.image_size,
        "time_embedding_type": "positional",
        "up_block_types": up[::-1],
    }


def random_network(config: dict, seed: int = 0) -> torch.nn.Module:
    """A UNet2DModel in which nothing is 0 or 1 by construction, and signals keep their size."""
    network = diffusers.UNet2DModel(**config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.normal_(generator=generator)
            if weight.ndim > 1:
                weight *= weight[0].numel() ** -0.5
            else:
                weight *= 0.3
                weight += 1.0 if "norm" in name and name.endswith("weight") else 0.0
    return network


def inputs(parameters: UNetParameters, steps=(0, 1, 500, 999)) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image for each of the steps."""
    rng = np.random.default_rng(1)
    x_t = rng.standard_normal((len(steps), *parameters.image_shape)).astype("float32")
    return x_t, np.array(steps, "int32")


def their_output(network: torch.nn.Module, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    """What diffusers computes, with the channels last."""
    with torch.no_grad():
        sample = network(torch.from_numpy(x_t).permute(0, 3, 1, 2), torch.from_numpy(t)).sample
    return sample.permute(0, 2, 3, 1).numpy()


def our_output(network, x_t: np.ndarray, t: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(network([x_t, t], training=False))


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest error of any image: ‖ours - theirs‖ / ‖theirs‖, each norm that of the maximum."""
    axes = tuple(range(1, ours.ndim))
    return float((np.abs(ours - theirs).max(axes) / np.abs(theirs).max(axes)).max())


TINY = UNetParameters(
    image_size=8,
    channels=1,
    base_width=8,
    width_multipliers=(1, 2),
    residual_blocks=1,
    attention_sizes=(4,),
    dropout=0.1,
    groups=4,
)
#: The sizes of the 256x256 network, one eighth as wide.
NARROW_256 = UNetParameters(
    image_size=64,
    base_width=16,
    width_multipliers=(1, 1, 2, 2, 4, 4),
    residual_blocks=2,
    attention_sizes=(4,),
    dropout=0.0,
    groups=8,
)
GREY = dataclasses.replace(
    TINY, image_size=28, width_multipliers=(1, 2, 2), attention_sizes=(14, 7)
)
