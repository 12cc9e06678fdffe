"""Weights that others have trained and published, in the files of the library diffusers.

The networks of the DDPM paper are on the Hugging Face hub, under the names in :data:`PUBLISHED`.
``huggingface_hub.hf_hub_download(name, "diffusion_pytorch_model.safetensors")`` fetches one and
returns its path; fetch ``"config.json"``, too, which then lies beside it.

PyTorch and Keras keep the same numbers in other orders. A convolution is (out, in, height, width)
there and (height, width, in, out) here; a dense layer (out, in) there and (in, out) here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from diffusion_walkthrough.checks import shown, warn
from diffusion_walkthrough.files.plain_data import MAX_BYTES, decode_json
from diffusion_walkthrough.files.weights import Arrays, MisfitError, Shapes, named_weights, opened

#: Names on the hub, and what each was trained on. All predict noise, on the linear schedule of
#: 1000 steps.
PUBLISHED = {
    "google/ddpm-cifar10-32": "small photographs, 32x32, 143 MB",
    "google/ddpm-celebahq-256": "faces, 256x256, 455 MB",
    "google/ddpm-church-256": "churches, 256x256, 455 MB",
    "google/ddpm-bedroom-256": "bedrooms, 256x256, 455 MB",
    "google/ddpm-cat-256": "cats, 256x256, 455 MB",
}

#: The file that diffusers writes.
FILE_NAME = "diffusion_pytorch_model.safetensors"

#: What tensors do not tell: settings that :func:`build_unet` does not have, as (the value that it
#: computes with, the value that diffusers takes where a configuration says nothing).
SETTINGS: dict[str, tuple[object, object]] = {
    "act_fn": ("silu", "silu"),
    "attention_head_dim": (None, 8),  # None is a single head
    "attn_norm_num_groups": (None, None),  # None is as many as elsewhere
    "center_input_sample": (False, False),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "conv"),
    "flip_sin_to_cos": (False, True),
    "freq_shift": (1, 0),
    "mid_block_scale_factor": (1, 1),
    "norm_eps": (1e-6, 1e-5),
    "resnet_time_scale_shift": ("default", "default"),
    "time_embedding_type": ("positional", "positional"),
    "upsample_type": ("conv", "conv"),
}

#: What the layers of :func:`build_unet` are called in diffusers, piece by piece of their names.
NAMES = {
    r"^time\.dense_": "time_embedding.linear_",
    r"^first\.": "conv_in.",
    r"^last\.norm": "conv_norm_out",
    r"^last\.conv": "conv_out",
    r"^middle\.": "mid_block.",
    r"^down\.(\d+)\.": r"down_blocks.\1.",
    r"^up\.(\d+)\.": r"up_blocks.\1.",  # counted from the other end, see _published_name
    r"\.residual\.": ".resnets.",
    r"\.attention\.": ".attentions.",
    r"\.downsample\.": ".downsamplers.0.conv.",
    r"\.upsample\.": ".upsamplers.0.conv.",
    r"\.(norm|conv)_([12])\.": r".\1\2.",
    r"\.(\d+)\.time\.": r".\1.time_emb_proj.",
    r"\.shortcut\.": ".conv_shortcut.",
    r"\.(\d+)\.norm\.": r".\1.group_norm.",
    r"\.query\.": ".to_q.",
    r"\.key\.": ".to_k.",
    r"\.value\.": ".to_v.",
    r"\.out\.": ".to_out.0.",
    r"\.(kernel|gamma)$": ".weight",
    r"\.beta$": ".bias",
}
#: What the parts of attention were called in diffusers' first versions, as in the hub's files.
FIRST_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

_OURS = re.compile(r"(time\.dense_|first\.|last\.|middle\.|down\.\d|up\.\d)")
_MOST_LEVELS = 16  # of an image of 2**16 pixels a side, each half as large as the one before


def load_published_weights(unet: keras.Model, file: str | os.PathLike[str]) -> None:
    """Set the weights of a network of :func:`build_unet` to those of a published one.

    Args:
        unet: the network, with the sizes of the published one: ``build_unet(parameters.unet)``
            for ``parameters = DiffusionParameters.cifar10()`` or ``.celeba_hq_256()``, or others
            for a ``UNet2DModel`` of your own.
        file: path of a ``.safetensors`` file that diffusers wrote, or of the folder with it, also
            that of a whole pipeline.

    Tensors are float32; float16 and float64 are converted. The file holds the weights alone. What
    else must agree, the groups of the normalization above all, is read from diffusers'
    ``config.json`` beside it; without that it is taken on trust, with a warning.

    Whatever is wrong, the network keeps the weights that it had.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        TypeError: if ``unet`` is not a Keras model.
        ValueError: if the network is not one of :func:`build_unet`, the file cannot be read, the
            network computes something else with it, or a tensor is missing, too many, of another
            shape, not of decimal numbers, or not finite.
    """
    variables = _variables(unet)
    path = _find(file)
    config = _config(path.with_name("config.json"))
    with opened(path) as arrays:
        if config is not None:
            _check_config(config, path.with_name("config.json"), unet, variables)
        values = _new_values(arrays, variables, path, unet.inputs[0].shape[1])
    if config is None:
        warn(
            f"There is no config.json of a UNet2DModel beside {path}, so that nobody can check "
            "whether this network computes with the weights what they were trained for: in so many "
            "groups, for example."
        )
    for name, value in values.items():  # nothing can go wrong any more
        variables[name].assign(value)


def _variables(unet: Any) -> dict[str, Any]:
    """The weights of a network of build_unet by name."""
    if not isinstance(unet, keras.Model) or hasattr(unet, "network"):
        raise TypeError(
            f"unet is a {type(unet).__name__}; it must be a network of build_unet. Of a whole "
            "DiffusionModel, pass its network, model.network."
        )
    variables = named_weights(unet)
    if not variables or not all(map(_OURS.match, variables)):
        raise ValueError(
            f"The network {unet.name} with the weights {shown(list(variables))} is none that "
            "build_unet makes. Build it with build_unet(parameters.unet)."
        )
    return variables


# Where the file is, and what it is of ------------------------------------------------------------


def _find(file: str | os.PathLike[str]) -> Path:
    path = Path(file).expanduser()
    if path.is_dir():
        for folder in (path, path / "unet"):  # a pipeline keeps its network there
            if (folder / FILE_NAME).is_file():
                return folder / FILE_NAME
        raise FileNotFoundError(f"The folder {path} holds no {FILE_NAME}, nor does its unet/.")
    if path.is_file() and path.suffix == ".safetensors":
        return path
    if path.exists():
        raise ValueError(
            f"{path} ends in {path.suffix!r}; it must be a .safetensors file that diffusers wrote, "
            f"such as {FILE_NAME}. (A .bin file may hold code: have diffusers read it and save it "
            "again with save_pretrained.)"
        )
    name = str(file) if str(file) in PUBLISHED else next(iter(PUBLISHED))
    raise FileNotFoundError(
        f"There is no file {path}. Give the path of a .safetensors file. Those on the Hugging Face "
        f"hub ({', '.join(PUBLISHED)}) are fetched by the package huggingface_hub: "
        f"hf_hub_download({name!r}, {FILE_NAME!r}) returns the path."
    )


def _config(path: Path) -> dict[str, Any] | None:
    """What diffusers says of the file beside it; None if there is nothing of diffusers."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            config = decode_json(file.read(MAX_BYTES + 1))
    except ValueError as error:
        raise ValueError(
            f"{path}, which says how to compute with the file beside it, cannot be read ({error}). "
            "Download it again, or move the file away from it."
        ) from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name is not None and name != "UNet2DModel":
        raise ValueError(
            f"{path} is of a {shown(name)}, which computes something else than a UNet2DModel. Take "
            f"another model, such as {next(iter(PUBLISHED))}."
        )
    return config if name else None


def _check_config(
    config: dict[str, Any], path: Path, unet: Any, variables: Mapping[str, Any]
) -> None:
    """Refuse a network that has the same tensors but computes something else with them."""
    groups = unet.get_layer("last-norm").groups
    widths = {v.shape[-1] for name, v in variables.items() if name.endswith(".query.kernel")}
    same = {"attn_norm_num_groups": [groups], "attention_head_dim": list(widths)}
    for name, (wanted, default) in {**SETTINGS, "norm_num_groups": (groups, 32)}.items():
        value = config.get(name, default)
        if value == wanted or [value] == same.get(name):
            continue
        remedy = "Take another model: this one's tensors would fit, and its results be wrong."
        if name == "norm_num_groups":
            remedy = f"Build the network with groups={shown(value)}."
        said = "says" if name in config else "leaves to diffusers"
        found = f"{path} {said} {name} = {shown(value)}"
        raise MisfitError(f"{found}, but the network computes with {wanted!r}. {remedy}")


# Each tensor and its place -----------------------------------------------------------------------


def _new_values(
    arrays: Arrays, variables: Mapping[str, Any], path: Path, image_size: int
) -> dict[str, np.ndarray]:
    """The value of each of our weights, as Keras keeps it; or refuse."""
    levels = len({name.split(".")[1] for name in variables if name.startswith("down.")})
    first_names = any(".proj_attn." in name for name in arrays.shapes)
    ours = {_published_name(name, levels, first_names): name for name in variables}
    shapes = {name: tuple(variables[here].shape) for name, here in ours.items()}
    # There, the axes begin with our last two, turned round; and what is a convolution of single
    # pixels there is a dense layer here.
    needed = {name: (*shape[:-3:-1], *shape[:-2]) for name, shape in shapes.items()}
    found = {name: s[:2] if s[2:] == (1, 1) else s for name, s in arrays.shapes.items()}
    if misfit := arrays._replace(shapes=found).misfit(needed, ours):
        size, own = _described(found, image_size), _described(needed, image_size)
        advice = (
            "a whole UNet2DModel without class labels, as diffusers' save_pretrained writes it (a "
            "learned variance doubles the last layer: build_unet has learned_variance=True for it)"
        )
        if size and size != own:
            advice = f"a file of {own}; or, for this one, build the network with {size}"
        raise MisfitError(f"{path} does not fit the network: {misfit}. Take {advice}.")
    values = {here: arrays.finite(name).reshape(needed[name]) for name, here in ours.items()}
    return {
        name: np.moveaxis(value, (0, 1), (-1, -2)) if value.ndim > 1 else value
        for name, value in values.items()
    }


def _published_name(name: str, levels: int, first_names: bool) -> str:
    """What diffusers calls one of our weights."""
    for ours, theirs in NAMES.items():
        name = re.sub(ours, theirs, name)
    way, _, rest = name.partition(".")
    if way == "up_blocks":  # the way up begins at the coarsest level
        level, _, rest = rest.partition(".")
        name = f"{way}.{levels - 1 - int(level)}.{rest}"
    if first_names:
        for new, old in FIRST_NAMES.items():
            name = name.replace(f".{new}.", f".{old}.")
    return name


def _described(shapes: Shapes, image_size: int) -> str:
    """The sizes that a file has, in words that can be copied into a program; "" if in doubt."""

    def count(prefix: str) -> int:
        start = prefix + "."
        return len({name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)})

    levels, kernel = count("down_blocks"), shapes.get("conv_in.weight", ())
    if levels > _MOST_LEVELS:
        return ""
    firsts = [shapes.get(f"down_blocks.{i}.resnets.0.conv1.weight", ()) for i in range(levels)]
    if not firsts or any(len(shape) != 4 or 0 in shape for shape in [kernel, *firsts]):
        return ""
    attention = [i for i in range(levels) if count(f"down_blocks.{i}.attentions")]
    sizes = {
        "image_size": image_size,
        "channels": kernel[1],
        "base_width": kernel[0],
        "width_multipliers": tuple(shape[0] // kernel[0] for shape in firsts),
        "residual_blocks": count("down_blocks.0.resnets"),
        "attention_sizes": tuple(image_size // 2**level for level in attention),
    }
    return f"UNetParameters({', '.join(f'{name}={value}' for name, value in sizes.items())})"
