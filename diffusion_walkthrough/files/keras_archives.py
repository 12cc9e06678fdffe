"""What a ``.keras`` file may hold, looked at before Keras's own reader opens it.

Keras makes the objects that ``config.json`` asks for, and reads the arrays of ``model.weights.h5``
however large they say they are. So a file is admitted only if it asks for a model and an optimizer
of classes that are known here, and if its arrays are as large in the file as they are in memory.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from diffusion_walkthrough.checks import shown
from diffusion_walkthrough.files.archives import opened_archive, read_member
from diffusion_walkthrough.files.plain_data import MAX_BYTES, decode_json

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = {CONFIG, WEIGHTS, "metadata.json"}
MAX_OBJECTS = 10_000  # groups and arrays; the largest network of the presets has some 4,000
MOST_COPIES = 8  # of the weights: themselves, and what an optimizer keeps for each, with averages

#: How a file of Keras begins: unpacked, the class first.
BEGINNING = re.compile(
    rb"PK\x03\x04.{26}metadata\.json\{[^{}]*\}PK\x03\x04.{26}config\.json"
    rb'\{"module": "[^"]*", "class_name": "([^"]*)"',
    re.DOTALL,
)

#: Where Keras keeps what a model's optimizer is made of; nothing in them runs code from a file.
#: PyTorch's optimizers are classes of their own.
HARMLESS = re.compile(
    r"keras\.optimizers(\.schedules)?|keras\.src\.backend\.torch\.optimizers\.torch_[a-z]+"
)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of the model in a ``.keras`` file, of which nothing is made.

    Raises ValueError or an error of ``files.UNREADABLE_NPZ`` if the file is damaged or too large.
    """
    with opened_archive(path) as archive:
        config = decode_json(read_member(archive, CONFIG, MAX_BYTES))
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise ValueError(f"its {CONFIG} describes no model")
    return config


def known_class(config: Any) -> type | None:
    """The class that a configuration asks for, if it is registered in this process."""
    name = config.get("registered_name")
    found = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    return found if isinstance(found, type) else None


def class_at_beginning(path: Path) -> str:
    """The name of the class of the model in a ``.keras`` file that is cut short; else ""."""
    if zipfile.is_zipfile(path):  # it has its end, and whoever cannot read it is the one to blame
        return ""
    with path.open("rb") as file:
        found = BEGINNING.match(file.read(MAX_BYTES))
    return found[1].decode("utf-8", "replace") if found else ""


def check_classes(config: dict[str, Any]) -> None:
    """Raise ValueError if a configuration asks for anything but what is known to be harmless."""
    parts: list[Any] = [config]
    for part in parts:  # which grows as their own parts are met
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            parts += part.values()
            if "class_name" in part and not _is_harmless(part):
                raise ValueError(
                    f"it asks for {shown(part['class_name'])} of {shown(part.get('module'))}, "
                    "which is no part of a model that save_model writes"
                )


def _is_harmless(config: dict[str, Any]) -> bool:
    name = config["class_name"]
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        return False
    if known := known_class(config):
        return known.__name__ == name
    module = config.get("module")
    return isinstance(module, str) and HARMLESS.fullmatch(module) is not None


def check_arrays(path: Path, needed: int) -> int:
    """Count the numbers in a ``.keras`` file of a model that needs so many, all arrays together.

    Raises ValueError or another error of a library below if one is not stored as it will be read,
    or holds what is no finite number in float32, and if there is far more than is needed.
    """
    import h5py

    with opened_archive(path) as archive:
        if others := set(archive.namelist()) - MEMBERS:
            raise ValueError(f"it holds {shown(sorted(others)[0])}, which no model of ours needs")
        most = 8 * MOST_COPIES * needed + MAX_OBJECTS * 1024  # bytes, with what tells of each array
        content = read_member(archive, WEIGHTS, most)  # the checksum is compared, too
    count, stored, size = 0, 0, len(content)
    with h5py.File(io.BytesIO(content), "r") as file:
        for array in _arrays(file):
            _check_storage(array)
            stored += array.nbytes
            if stored > size:
                raise ValueError("its arrays say that they are larger than the file")
            count += array.size
            if count > MOST_COPIES * needed + MAX_OBJECTS:
                raise ValueError(f"it holds far more numbers than the {needed:,} of its model")
            with np.errstate(over="ignore"):  # what does not fit becomes infinite
                if not np.isfinite(array[()].astype(np.float32, copy=False)).all():
                    raise ValueError("it holds weights that are not finite numbers")
    return count


def _arrays(file: Any) -> list[Any]:
    """All arrays of an HDF5 file; raises ValueError for too many parts, and what lies elsewhere."""
    import h5py

    groups: list[Any] = [file]
    arrays: list[Any] = []
    for group in groups:  # which grows as their own groups are met
        for name in group:
            if type(group.get(name, getlink=True)) is not h5py.HardLink:
                raise ValueError(f"{shown(name)} in it points to another place")
            part = group[name]
            (groups if isinstance(part, h5py.Group) else arrays).append(part)
            if len(groups) + len(arrays) > MAX_OBJECTS:
                raise ValueError(f"it has more than {MAX_OBJECTS} parts")
    return arrays


def _check_storage(array: Any) -> None:
    """Refuse what is no array of numbers, or not in the file as a whole and as it will be read."""
    import h5py

    if not isinstance(array, h5py.Dataset) or array.shape is None or array.dtype.kind not in "fiub":
        raise ValueError(f"{shown(array.name)} is no array of numbers")
    plain = not array.chunks and not array.external and not array.is_virtual
    if not plain or array.id.get_storage_size() != array.nbytes:
        raise ValueError(f"{shown(array.name)} is not stored as Keras stores arrays")
