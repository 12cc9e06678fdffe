"""The weights of a network in a file, by name, with the parameters that give them a meaning.

``weights.safetensors`` holds plain float32 arrays, each under the name of its layer and variable
("down.0.residual.0.conv_1.kernel"), and in its header those of the model's parameters without
which the weights mean something else. Earlier versions wrote ``weights.npz``, arrays numbered in
the network's order, which is still read.

Names, shapes and types are compared before an array is read, and all are read before one is set.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_walkthrough.checks import shown, warn
from diffusion_walkthrough.files import UNREADABLE_NPZ
from diffusion_walkthrough.files.archives import (
    MAX_CONTENTS,
    array_header,
    array_names,
    opened_archive,
    read_array,
)
from diffusion_walkthrough.files.plain_data import decode_json

#: The name of the file, and the one that it had in earlier versions.
WEIGHTS_FILES = ("weights.safetensors", "weights.npz")
FILE_FORMAT = "diffusion_walkthrough.weights"

# The parts of a model's parameters that weights depend on: how they were trained is none of them.
_MEANING = ("schedule", "unet", "prediction", "variance")

Shapes = Mapping[str, tuple[int, ...]]


class MisfitError(ValueError):
    """Arrays in good order, but of something else."""


class Arrays(NamedTuple):
    """An open file of arrays: what they were saved with, what there is, and how to read one."""

    meaning: Any
    shapes: Shapes
    kinds: Mapping[str, str]
    read: Callable[[str], np.ndarray]

    def misfit(self, needed: Shapes, ours: Mapping[str, str]) -> str:
        """The first thing that is wrong with names, types or shapes; "" if all is as ``needed``.

        ``ours`` says how the network calls what has this or another name in the file.
        """
        called = {n: n if n == here else f"{n} ({here})" for n, here in ours.items()}
        problems = [f"it lacks {called[name]}" for name in needed if name not in self.shapes]
        problems += [f"there is no place for {name}" for name in self.shapes if name not in needed]
        problems += [
            f"{name} is of type {kind}; it must be float16, float32 or float64"
            for name, kind in self.kinds.items()
            if kind not in ("F16", "F32", "F64")
        ]
        problems += [
            f"{called[name]} has shape {self.shapes[name]}, the network needs {shape}"
            for name, shape in needed.items()
            if self.shapes.get(name, shape) != shape
        ]
        first = "".join(problems[:1])[:300]
        return f"{first}, and {len(problems) - 1} more" if len(problems) > 1 else first

    def finite(self, name: str) -> np.ndarray:
        """Read one array as float32; raises ValueError if it holds NaN or infinity."""
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found next
            array = self.read(name).astype(np.float32, copy=False)
        if bad := array.size - np.isfinite(array).sum():
            raise ValueError(f"{bad} of {array.size} numbers of {name} are not finite in float32")
        return array


def save_weights(network: Any, path: Path, parameters: Mapping[str, Any]) -> None:
    """Write the weights of a network, and the meaning that the ``parameters`` give them.

    Raises ValueError if two weights of the network bear one name.
    """
    from safetensors.numpy import save

    weights = zip(named_weights(network), network.get_weights(), strict=True)
    arrays = {name: np.array(weight, "float32", order="C") for name, weight in weights}
    meaning = {name: parameters[name] for name in _MEANING}
    meaning["unet"] = {name: v for name, v in meaning["unet"].items() if name != "dropout"}
    about = {"format": FILE_FORMAT, "version": "1", "parameters": json.dumps(meaning)}
    # Not save_file, which writes a file that nobody else may read.
    path.write_bytes(save(arrays, about))


def check_weights(path: Path, parameters: Mapping[str, Any], count: int) -> None:
    """Refuse a file of weights that cannot be those of a network, before the network is built.

    Args:
        path: as for :func:`load_weights`.
        parameters: those of the whole model, as a dictionary.
        count: how many numbers the network has.

    Raises ValueError if there are fewer in the file, it is damaged, or its weights were saved with
    other parameters; warns if it does not say with which.
    """
    with opened(path) as arrays:
        _check_meaning(arrays, path, parameters)
        found = sum(math.prod(shape) for shape in arrays.shapes.values())
        if found < count:
            raise MisfitError(
                f"{path} does not fit the parameters beside it: it holds {found:,} numbers, and "
                f"the network that they describe has {count:,}. The two files must come from one "
                "save_model."
            )
        if unsaid := [name for name in _MEANING if name not in arrays.meaning]:
            warn(
                f"{path} does not say for which {', '.join(unsaid)} its weights were trained, so "
                "that nobody can check whether the parameters beside it are those. If they are, "
                "save the model again: then it says so."
            )


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
    variables = named_weights(network)
    old = path.suffix == ".npz"
    ours = {f"{i:05d}" if old else name: name for i, name in enumerate(variables)}
    needed = {name: tuple(variables[here].shape) for name, here in ours.items()}
    with opened(path) as arrays:
        _check_meaning(arrays, path, parameters)
        if misfit := arrays.misfit(needed, ours):
            raise MisfitError(
                f"{path} does not fit the parameters beside it: {misfit}. The two files must come "
                "from one save_model."
            )
        values = [arrays.finite(name) for name in needed]
    network.set_weights(values)


def named_weights(network: Any) -> dict[str, Any]:
    """The variables of a network in its order, by names such as "down.0.residual.1.conv_2.kernel".

    Raises ValueError if two have one name.
    """
    named: dict[str, Any] = {}
    for variable in network.weights:
        name = variable.path.replace("/", ".").replace("-", ".")  # PyTorch wants no dots in a path
        if name in named:
            raise ValueError(
                f"The network has two weights of the name {name}, so that a file could not tell "
                "them apart. Give its layers names that differ."
            )
        named[name] = variable
    return named


def _check_meaning(arrays: Arrays, path: Path, parameters: Mapping[str, Any]) -> None:
    if changes := list(_changes(arrays.meaning, parameters)):
        raise MisfitError(
            f"The parameters beside {path} were edited after the weights were saved: "
            f"{'; '.join(changes[:5])}. With these values the weights mean something else. "
            "Put back what was there, or train a model with the new ones."
        )


def _changes(saved: Any, now: Any, name: str = "") -> Iterator[str]:
    """Say what differs; a parameter that there was not yet when the weights were saved does not."""
    if isinstance(saved, dict) and isinstance(now, Mapping):
        for key, value in saved.items():
            yield from _changes(value, now.get(key), f"{name}.{key}"[-80:] if name else key[:80])
    elif saved != now:
        yield f"{name} was {shown(saved)} and is {shown(now)} now"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Arrays]:
    """Open a file of arrays; raises ValueError if it is damaged, here or while it is read."""
    from safetensors import SafetensorError

    try:
        with (_opened_npz if path.suffix == ".npz" else _opened_safetensors)(path) as arrays:
            yield arrays
    except MisfitError:
        raise
    except (*UNREADABLE_NPZ, SafetensorError) as error:
        raise ValueError(
            f"{path} is damaged ({str(error)[:300]}). Save the model or fetch the file again."
        ) from error


@contextlib.contextmanager
def _opened_safetensors(path: Path) -> Iterator[Arrays]:
    from safetensors import safe_open

    with path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if length > MAX_CONTENTS:
        raise ValueError(f"it says that its table of contents has {length} bytes")
    with safe_open(path, framework="numpy") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
        yield Arrays(
            meaning=decode_json((file.metadata() or {}).get("parameters", "{}").encode()),
            shapes={name: tuple(part.get_shape()) for name, part in parts.items()},
            kinds={name: part.get_dtype() for name, part in parts.items()},
            read=file.get_tensor,
        )


@contextlib.contextmanager
def _opened_npz(path: Path) -> Iterator[Arrays]:
    with opened_archive(path) as archive:
        headers = {name: array_header(archive, name) for name in array_names(archive)}
        yield Arrays(
            meaning={},
            shapes={name: header.shape for name, header in headers.items()},
            kinds={
                name: f"{header.dtype.kind.upper()}{8 * header.dtype.itemsize}"
                for name, header in headers.items()
            },
            read=functools.partial(read_array, archive),
        )
