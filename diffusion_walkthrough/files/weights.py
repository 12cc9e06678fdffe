"""The weights of a network in a file, by name, with the parameters that give them a meaning.

``weights.safetensors`` holds plain float32 arrays, each under the name of its layer and variable
("down.0.residual.0.conv_1.kernel"), and in its header those of the model's parameters without
which the weights mean something else. Earlier versions wrote ``weights.npz``, arrays numbered in
the network's order, which is still read.

Names, shapes and types are compared before an array is read, and all are read before one is set.
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_walkthrough.checks import shown
from diffusion_walkthrough.files import UNREADABLE_NPZ
from diffusion_walkthrough.files.plain_data import decode_json

#: The name of the file, and the one that it had in earlier versions.
WEIGHTS_FILES = ("weights.safetensors", "weights.npz")
FILE_FORMAT = "diffusion_walkthrough.weights"

# The parts of a model's parameters that weights depend on: how they were trained is none of them.
_MEANING = ("schedule", "unet", "prediction", "variance")


class _Archive(NamedTuple):
    """An open file of arrays: what they were saved with, what there is, and how to read one."""

    meaning: Any
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, str]
    read: Callable[[str], np.ndarray]


def save_weights(network: Any, path: Path, parameters: Mapping[str, Any]) -> None:
    """Write the weights of a network, and the meaning that the ``parameters`` give them.

    Raises ValueError if two weights of the network bear one name.
    """
    from safetensors.numpy import save

    arrays = [np.array(weight, "float32", order="C") for weight in network.get_weights()]
    meaning = {name: parameters[name] for name in _MEANING}
    meaning["unet"] = {name: v for name, v in meaning["unet"].items() if name != "dropout"}
    about = {"format": FILE_FORMAT, "version": "1", "parameters": json.dumps(meaning)}
    # Not save_file, which writes a file that nobody else may read.
    path.write_bytes(save(dict(zip(weight_names(network), arrays, strict=True)), about))


def load_weights(network: Any, path: Path, parameters: Mapping[str, Any]) -> None:
    """Set all weights of a network to those of a file, or none if one of them does not fit.

    Args:
        network: the network that the parameters describe.
        path: a ``weights.safetensors``, or the ``weights.npz`` of an earlier version.
        parameters: those of the whole model, as a dictionary.

    Raises:
        ValueError: if the file is damaged, the weights do not fit the network or are not all
            finite, or they were saved with other parameters.
    """
    old = path.suffix == ".npz"
    names = [f"{i:05d}" for i in range(len(network.weights))] if old else weight_names(network)
    with _calling_it_damaged(path), (_opened_npz if old else _opened)(path) as archive:
        _check_meaning(archive.meaning, parameters, path)
        _check_fit(archive, dict(zip(names, network.weights, strict=True)), path)
        arrays = [_finite(name, archive.read(name)) for name in names]
    network.set_weights(arrays)


def name_of(variable: Any) -> str:
    """The name of a weight in files, "down.0.residual.1.conv_2.kernel": PyTorch wants no dots."""
    return variable.path.replace("/", ".").replace("-", ".")


def weight_names(network: Any) -> list[str]:
    """Name each weight for its layer and variable, in the network's order.

    Raises ValueError if two bear one name.
    """
    names = [name_of(variable) for variable in network.weights]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"The network has two weights of the name {double}, so that a file could not tell them "
            "apart. Give its layers names that differ."
        )
    return names


# What a file holds -------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        meaning = (file.metadata() or {}).get("parameters", "{}")
        yield _Archive(
            meaning=decode_json(meaning.encode()),
            shapes={name: tuple(part.get_shape()) for name, part in parts.items()},
            kinds={name: part.get_dtype() for name, part in parts.items()},
            read=file.get_tensor,
        )


@contextlib.contextmanager
def _opened_npz(path: Path) -> Iterator[_Archive]:
    with zipfile.ZipFile(path) as file:
        shapes, kinds = {}, {}
        for member in file.namelist():
            with file.open(member) as start:
                np.lib.format.read_magic(start)
                shape, _, dtype = np.lib.format.read_array_header_1_0(start)
            name = member.removesuffix(".npy")
            shapes[name], kinds[name] = shape, f"{dtype.kind.upper()}{8 * dtype.itemsize}"

        def read(name: str) -> np.ndarray:
            with file.open(f"{name}.npy") as member:
                return np.lib.format.read_array(member, allow_pickle=False)

        yield _Archive({}, shapes, kinds, read)


class _MisfitError(ValueError):
    """Weights in good order, but of something else."""


@contextlib.contextmanager
def _calling_it_damaged(path: Path) -> Iterator[None]:
    """Give what the readers below raise a common form."""
    from safetensors import SafetensorError

    try:
        yield
    except _MisfitError:
        raise
    except (*UNREADABLE_NPZ, SafetensorError) as error:
        raise ValueError(
            f"{path} is damaged ({error}). Save the model again, or fetch the file again."
        ) from error


# Does it fit? ------------------------------------------------------------------------------------


def _check_meaning(saved: Any, parameters: Mapping[str, Any], path: Path) -> None:
    changes = list(_changes(saved, parameters))
    if changes:
        raise _MisfitError(
            f"The parameters beside {path} were edited after the weights were saved: "
            f"{'; '.join(changes[:5])}. With these values the weights mean something else. Put "
            "back what was there, or train a model with the new ones."
        )


def _changes(saved: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say what differs; a parameter that there was not yet when the weights were saved does not."""
    if isinstance(saved, dict) and isinstance(now, Mapping):
        for key, value in saved.items():
            yield from _changes(value, now.get(key), f"{name}.{key}" if name else key)
    elif saved != now:
        yield f"{name} was {shown(saved)} and is {shown(now)} now"


def _check_fit(archive: _Archive, variables: Mapping[str, Any], path: Path) -> None:
    problems = [f"it lacks the weight {name}" for name in variables if name not in archive.shapes]
    problems += [
        f"there is no place for {name}" for name in archive.shapes.keys() - variables.keys()
    ]
    for name, variable in variables.items():
        shape, needed = archive.shapes.get(name, ()), tuple(variable.shape)
        if name in archive.shapes and shape != needed:
            where = f" ({variable.path})" if path.suffix == ".npz" else ""
            problems.append(f"weight {name}{where} has shape {shape}, the network needs {needed}")
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise _MisfitError(
            f"{path} does not fit the parameters beside it: {problems[0]}{more}. "
            "The two files must come from one save_model."
        )
    for name in variables:
        if archive.kinds[name] not in ("F16", "F32", "F64"):
            raise ValueError(
                f"weight {name} is of type {archive.kinds[name]}, not a decimal number"
            )


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found next
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise ValueError(f"weight {name} is not all finite numbers")
    return array
