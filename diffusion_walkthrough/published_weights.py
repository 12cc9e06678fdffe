"""Weights that others have trained and published, in the files of the library diffusers.

The networks of the DDPM paper are on the Hugging Face hub, under the names in :data:`PUBLISHED`. Of
each, one file is needed, ``diffusion_pytorch_model.safetensors`` (or ``.bin``), and best also
``config.json``. The file has four bytes for each parameter: 143 MB for CIFAR-10 (35,746,307
parameters, the network of ``DiffusionParameters.cifar10().unet``) and 455 MB for the others
(113,673,219 parameters, ``DiffusionParameters.celeba_hq_256().unet``).

PyTorch and Keras keep the same numbers in other orders. A convolution is (out, in, height, width)
there and (height, width, in, out) here; a dense layer (out, in) there and (in, out) here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

#: Names on the hub, and what each was trained on. All predict noise, on the linear schedule of
#: 1000 steps.
PUBLISHED = {
    "google/ddpm-cifar10-32": "small photographs, 32x32, 143 MB",
    "google/ddpm-celebahq-256": "faces, 256x256, 455 MB",
    "google/ddpm-church-256": "churches, 256x256, 455 MB",
    "google/ddpm-bedroom-256": "bedrooms, 256x256, 455 MB",
    "google/ddpm-cat-256": "cats, 256x256, 455 MB",
}

#: The file that diffusers writes, the safe format first.
FILE_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

#: What tensors do not tell: settings that :func:`build_unet` does not have, as (the value that it
#: computes with, the value that diffusers takes where a configuration says nothing).
SETTINGS: dict[str, tuple[object, object]] = {
    "act_fn": ("silu", "silu"),
    "attention_head_dim": (None, 8),  # None is a single head
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

# The names of the layers inside an attention block: diffusers' present ones, and those of the
# first versions, which the files on the hub still have.
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_OLD_ATTENTION = ("query", "key", "value", "proj_attn")

_Tensors = Mapping[str, np.ndarray]


def load_published_weights(unet: keras.Model, file: str | os.PathLike[str]) -> None:
    """Set the weights of a network of :func:`build_unet` to those of a published one.

    Args:
        unet: the network, with the sizes of the published one: ``build_unet(parameters.unet)``
            for ``parameters = DiffusionParameters.cifar10()`` or ``.celeba_hq_256()``, or others
            for a ``UNet2DModel`` of your own.
        file: path of a ``.safetensors`` file or (PyTorch must be installed) a ``.bin`` file that
            diffusers wrote, or of the folder with it; or a name on the Hugging Face hub such as
            ``"google/ddpm-cifar10-32"``, to download (143 MB; 455 MB for the 256x256 models) and
            keep in the cache of ``huggingface_hub``, which must be installed.

    Tensors are float32; float16 and float64 are converted. The file holds the weights alone. What
    else must agree, the groups of the normalization above all, is read from diffusers'
    ``config.json`` if that lies beside it, and taken on trust if not.

    Whatever is wrong, the network keeps the weights that it had.

    Raises:
        FileNotFoundError: if there is no such file, folder or name.
        ImportError: if a package is needed that is not installed.
        ConnectionError: if the hub is not within reach.
        TypeError: if ``unet`` is not a Keras model.
        ValueError: if the network is not one of :func:`build_unet`, the file cannot be read, or a
            tensor is missing, too many, of another shape, not of decimal numbers, or not finite.
    """
    layers = _layers_in_order(unet)
    path = _find(file)
    tensors = _read(path)
    _check_config(path.with_name("config.json"), layers["group_normalization"][0].groups)
    values = _match(layers, tensors, path, unet.inputs[0].shape[1])
    for variable, value in values:  # nothing can go wrong any more
        variable.assign(value)


# ---------------------------------------------------------------------------------------------
# The network's side
# ---------------------------------------------------------------------------------------------


def _layers_in_order(unet: keras.Model) -> dict[str, list[Any]]:
    """The layers with weights, by kind, each kind in the order in which they were created.

    ``unet.layers`` has another order, but Keras numbers the layers of a kind as they are created:
    conv2d, conv2d_1, … .
    """
    if not isinstance(unet, keras.Model):
        raise TypeError(f"unet is a {type(unet).__name__}; it must be a network of build_unet.")
    if hasattr(unet, "network"):
        raise TypeError(f"unet is a whole {type(unet).__name__}; pass its network, model.network.")
    numbered: dict[str, list[tuple[int, Any]]] = {
        kind: [] for kind in ("conv2d", "dense", "group_normalization")
    }
    for layer in unet.layers:
        name = re.fullmatch(rf"({'|'.join(numbered)})(?:_(\d+))?", layer.name)
        if name and len(layer.weights) == 2:
            numbered[name[1]].append((int(name[2] or 0), layer))
        elif layer.weights:
            raise ValueError(
                f"The layer {layer.name} of the network {unet.name} is none that build_unet makes. "
                "Build the network with build_unet(parameters.unet)."
            )
    if not all(numbered.values()) or not getattr(unet, "inputs", None):
        raise ValueError(
            f"The network {unet.name} lacks the layers of a UNet. Build it with "
            "build_unet(parameters.unet)."
        )
    return {
        kind: [layer for _, layer in sorted(pairs, key=lambda pair: pair[0])]
        for kind, pairs in numbered.items()
    }


# ---------------------------------------------------------------------------------------------
# The file's side
# ---------------------------------------------------------------------------------------------


def _published_layers(tensors: _Tensors) -> Iterator[tuple[str, str]]:
    """Yield (kind, published name) of all layers in the order in which build_unet makes them."""
    yield "dense", "time_embedding.linear_1"
    yield "dense", "time_embedding.linear_2"
    yield "conv2d", "conv_in"
    yield from _levels("down_blocks", "downsamplers", tensors)
    yield from _residual_block("mid_block.resnets.0", tensors)
    yield from _attention_block("mid_block.attentions.0", tensors)
    yield from _residual_block("mid_block.resnets.1", tensors)
    yield from _levels("up_blocks", "upsamplers", tensors)
    yield "group_normalization", "conv_norm_out"
    yield "conv2d", "conv_out"


def _levels(way: str, resampling: str, tensors: _Tensors) -> Iterator[tuple[str, str]]:
    """The layers of the way down or up; between two levels is one that halves or doubles."""
    levels = _count(way, tensors)
    for i in range(levels):
        with_attention = _count(f"{way}.{i}.attentions", tensors) > 0
        for j in range(_count(f"{way}.{i}.resnets", tensors)):
            yield from _residual_block(f"{way}.{i}.resnets.{j}", tensors)
            if with_attention:
                yield from _attention_block(f"{way}.{i}.attentions.{j}", tensors)
        if i != levels - 1:
            yield "conv2d", f"{way}.{i}.{resampling}.0.conv"


def _residual_block(name: str, tensors: _Tensors) -> Iterator[tuple[str, str]]:
    yield "group_normalization", f"{name}.norm1"
    yield "conv2d", f"{name}.conv1"
    yield "dense", f"{name}.time_emb_proj"
    yield "group_normalization", f"{name}.norm2"
    yield "conv2d", f"{name}.conv2"
    old, new = (_shape(f"{name}.{norm}.weight", tensors) for norm in ("norm1", "norm2"))
    if (old and new and old != new) or f"{name}.conv_shortcut.weight" in tensors:
        yield "dense", f"{name}.conv_shortcut"  # there a convolution of one pixel


def _attention_block(name: str, tensors: _Tensors) -> Iterator[tuple[str, str]]:
    yield "group_normalization", f"{name}.group_norm"
    old = any(tensor.startswith(f"{name}.{_OLD_ATTENTION[-1]}.") for tensor in tensors)
    for part in _OLD_ATTENTION if old else _ATTENTION:
        yield "dense", f"{name}.{part}"


def _count(prefix: str, tensors: _Tensors) -> int:
    """How many different numbers follow ``prefix`` in the tensors' names."""
    start = prefix + "."
    return len({name[len(start) :].split(".")[0] for name in tensors if name.startswith(start)})


def _shape(name: str, tensors: _Tensors) -> tuple[int, ...]:
    return tensors[name].shape if name in tensors else ()


def _described(tensors: _Tensors, image_size: int) -> str:
    """The sizes that a file has, in words that can be copied into a program; "" if in doubt."""
    levels, kernel = _count("down_blocks", tensors), _shape("conv_in.weight", tensors)
    firsts = [_shape(f"down_blocks.{i}.resnets.0.conv1.weight", tensors) for i in range(levels)]
    if not firsts or any(len(shape) != 4 or 0 in shape for shape in [kernel, *firsts]):
        return ""
    attention = [i for i in range(levels) if _count(f"down_blocks.{i}.attentions", tensors)]
    sizes = {
        "image_size": image_size,
        "channels": kernel[1],
        "base_width": kernel[0],
        "width_multipliers": tuple(shape[0] // kernel[0] for shape in firsts),
        "residual_blocks": _count("down_blocks.0.resnets", tensors),
        "attention_sizes": tuple(image_size // 2**level for level in attention),
    }
    listed = ", ".join(f"{name}={value}" for name, value in sizes.items())
    return f"For images of your network's size, the file's is UNetParameters({listed}). "


# ---------------------------------------------------------------------------------------------
# One beside the other
# ---------------------------------------------------------------------------------------------


def _match(
    layers: dict[str, list[Any]], tensors: _Tensors, source: Path, image_size: int
) -> list[tuple[Any, np.ndarray]]:
    """Pair every weight of the network with its new value, of the right shape, or refuse."""
    variables = _variables(layers, tensors, source, image_size)
    _check_names(variables, tensors, source)
    pairs = []
    for name, variable in variables.items():
        value = _as_keras_keeps_it(tensors[name], variable)
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"{source}: {name} has shape {tensors[name].shape}, and would be "
                f"{value.shape} here, but {variable.path}, for which it is meant, is "
                f"{tuple(variable.shape)}. {_described(tensors, image_size)}Build the network with "
                "the sizes of the file (a learned variance doubles the last layer)."
            )
        pairs.append((variable, _as_float32(name, value, variable, source)))
    return pairs


def _variables(
    layers: dict[str, list[Any]], tensors: _Tensors, source: Path, image_size: int
) -> dict[str, Any]:
    """For each tensor that the file should have, the network's variable that it is meant for."""
    published = list(_published_layers(tensors))
    for kind, here in layers.items():
        there = sum(other == kind for other, _ in published)
        if there != len(here):
            raise ValueError(
                f"{source} is of another network: it has {there} layers of the kind {kind}, and "
                f"yours has {len(here)}. {_described(tensors, image_size)}Build the network with "
                "the sizes of the file, or take a file of a UNet2DModel with those of the network."
            )
    rest = {kind: iter(here) for kind, here in layers.items()}
    return {
        f"{name}.{part}": variable
        for kind, name in published
        for part, variable in zip(("weight", "bias"), next(rest[kind]).weights, strict=True)
    }


def _check_names(variables: Mapping[str, Any], tensors: _Tensors, source: Path) -> None:
    missing = [name for name in variables if name not in tensors]
    extra = sorted(tensors.keys() - variables.keys())
    problems = []
    if missing:
        problems.append(
            f"it lacks {missing[0]}, which is meant for {variables[missing[0]].path}"
            + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    if extra:
        problems.append(
            f"it holds {extra[0]}, for which the network has no place"
            + (f", and {len(extra) - 1} more" if len(extra) > 1 else "")
        )
    if problems:
        raise ValueError(
            f"{source} does not fit the network: {'; '.join(problems)}. Take the file of a whole "
            "UNet2DModel without class labels, as diffusers' save_pretrained writes it."
        )


def _as_keras_keeps_it(tensor: np.ndarray, variable: Any) -> np.ndarray:
    """Bring the axes from PyTorch's order to that of Keras."""
    if len(variable.shape) == 4 and tensor.ndim == 4:
        return tensor.transpose(2, 3, 1, 0)
    if len(variable.shape) == 2 and tensor.ndim in (2, 4) and set(tensor.shape[2:]) <= {1}:
        return tensor.reshape(tensor.shape[:2]).T
    return tensor


def _as_float32(name: str, value: np.ndarray, variable: Any, source: Path) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found next
        value = value.astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        bad = int(np.size(value) - np.isfinite(value).sum())
        raise ValueError(
            f"{source}: {name}, which is meant for {variable.path}, has {bad} of {value.size} "
            "numbers that are not finite in float32. Download the file again, or save the model "
            "again."
        )
    return value


def _check_config(path: Path, groups: int) -> None:
    """Refuse a network that has the same tensors but computes something else with them."""
    if not path.is_file():
        return
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}, which says how to compute with the file beside it, cannot be read ({error}). "
            "Download it again, or move the file away from it."
        ) from error
    if not isinstance(config, dict) or config.get("_class_name") != "UNet2DModel":
        return  # of something else
    for name, (wanted, default) in {**SETTINGS, "norm_num_groups": (groups, 32)}.items():
        value = config.get(name, default)
        if value != wanted:
            remedy = "Take another model: this one's tensors would fit, and its results be wrong."
            if name == "norm_num_groups":
                remedy = f"Build the network with groups={value}."
            raise ValueError(
                f"{path} says {name} = {value!r}, but the network computes with {wanted!r}. "
                + remedy
            )


# ---------------------------------------------------------------------------------------------
# Where the file is
# ---------------------------------------------------------------------------------------------


def _find(file: str | os.PathLike[str]) -> Path:
    path = Path(file).expanduser()
    if path.is_dir():
        for name in FILE_NAMES:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"The folder {path} holds neither of {' and '.join(FILE_NAMES)}.")
    if path.exists():
        return path
    is_name = isinstance(file, str) and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", file)
    if is_name and path.suffix not in (".bin", ".safetensors"):
        return _download(str(file))
    raise FileNotFoundError(
        f"There is no file {path}. Give the path of a .safetensors or .bin file, or a name on the "
        f"Hugging Face hub: {', '.join(PUBLISHED)}."
    )


def _download(name: str) -> Path:
    """Fetch a model's file, and the configuration beside it, or find them in the hub's cache."""
    by_hand = (
        f"download {FILE_NAMES[0]} or {FILE_NAMES[1]} from the page of {name} on the Hugging Face "
        "hub, on any machine, and pass its path"
    )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError as error:
        raise ImportError(
            f"There is no file {name}, and to fetch a model of that name huggingface_hub is "
            f"needed. Run pip install huggingface_hub; or {by_hand}."
        ) from error
    failures: list[Exception] = []
    for file_name in FILE_NAMES:
        try:
            path = Path(hf_hub_download(name, file_name))
        except (EntryNotFoundError, HfHubHTTPError) as error:
            failures.append(error)
            continue
        with contextlib.suppress(EntryNotFoundError, HfHubHTTPError):  # then taken on trust
            hf_hub_download(name, "config.json")
        return path
    if any(isinstance(error, FileNotFoundError) for error in failures):  # neither here nor reached
        raise ConnectionError(
            f"{name} is not on this computer, and the Hugging Face hub is not within reach. Try "
            f"again with a network; or {by_hand}."
        ) from failures[0]
    raise FileNotFoundError(
        f"There is no file {name} here, and on the Hugging Face hub none of {FILE_NAMES} under "
        f"that name ({failures[0]}). Names that fit: {', '.join(PUBLISHED)}."
    ) from failures[0]


# ---------------------------------------------------------------------------------------------
# Reading it
# ---------------------------------------------------------------------------------------------


def _read(path: Path) -> _Tensors:
    """All tensors of a file by name, if it is a UNet2DModel's and they hold decimal numbers."""
    readers = {".safetensors": _read_safetensors, ".bin": _read_bin}
    if path.suffix not in readers:
        raise ValueError(
            f"{path} ends in {path.suffix!r}; it must be a .safetensors or a .bin file that "
            f"diffusers wrote, such as {FILE_NAMES[0]}."
        )
    tensors, others = readers[path.suffix](path)
    names = sorted([*tensors, *others])
    if "conv_in.weight" not in names or "conv_out.weight" not in names:
        found = f"{len(names)} others, {names[0]!r} for one" if names else "none at all"
        raise ValueError(
            f"{path} is not of a UNet2DModel: it lacks the tensor conv_in.weight or "
            f"conv_out.weight, and holds {found}. Take {FILE_NAMES[0]} of one of "
            f"{', '.join(PUBLISHED)}."
        )
    for name, kind in others.items():
        raise ValueError(
            f"{path}: the tensor {name} is of type {kind}; it must be float32, float16 or float64. "
            "Save the model again as float32."
        )
    return tensors


def _read_safetensors(path: Path) -> tuple[_Tensors, dict[str, str]]:
    """The tensors of decimal numbers; and of the others, the types."""
    from safetensors import SafetensorError, safe_open

    tensors, others = {}, {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a dictionary
                kind = file.get_slice(name).get_dtype()
                if kind in ("F16", "F32", "F64"):
                    tensors[name] = file.get_tensor(name)
                else:
                    others[name] = kind
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not in the safetensors format, or incomplete ({error}). Download it again."
        ) from error
    return tensors, others


def _read_bin(path: Path) -> tuple[_Tensors, dict[str, str]]:
    """Read what ``torch.save`` wrote, as plain tensors: a pickle with code in it is refused."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"PyTorch is needed to read {path}. Take {FILE_NAMES[0]} instead, which is read "
            "without it; or run pip install torch."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch's errors are of many kinds
        raise ValueError(
            f"PyTorch cannot read {path} as named tensors ({str(error).partition('.')[0]}). "
            "Download it again."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{path} holds a {type(content).__name__}, and not tensors by name.")
    tensors, others = {}, {}
    for name, tensor in content.items():
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        if kind in (torch.float16, torch.float32, torch.float64):
            tensors[name] = tensor.numpy()
        else:
            others[name] = str(kind)
    return tensors, others
