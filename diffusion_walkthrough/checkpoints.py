"""Trained models on disk: the parameters in plain sight, the weights beside them.

A saved model is a folder with two files, ``parameters.json`` (or ``parameters.pkl``) and
``weights.npz``; or, for a path that ends in ``.keras``, Keras's own single file, which also
keeps the optimizer. Either is written under a temporary name and renamed when complete, so that a
run that is killed leaves the earlier model or the new one, never half of either. (A folder takes
two renames to replace: killed between them, the earlier model is left beside its place, under the
hidden name that ends in ``-old``, and :func:`load_model` says so.)
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from diffusion_walkthrough.data import UNREADABLE_NPZ
from diffusion_walkthrough.parameters import load_parameters, save_parameters
from diffusion_walkthrough.published_weights import (
    load_published_weights as load_published_weights,
)
from diffusion_walkthrough.training import DiffusionModel

#: The small trained models that ship with the package, by folder name.
PRETRAINED = Path(__file__).parent / "pretrained"

WEIGHTS_FILE = "weights.npz"

#: Suffixes of single files, which a folder should not bear.
FILE_SUFFIXES = {".h5", ".hdf5", ".json", ".npz", ".pickle", ".pkl"}

PARAMETERS_FILES = {"json": "parameters.json", "pickle": "parameters.pkl"}


def save_model(
    model: DiffusionModel,
    path: str | os.PathLike[str],
    *,
    parameters_as: str = "json",
    overwrite: bool = False,
) -> Path:
    """Save a model so that :func:`load_model` needs nothing but the path.

    Args:
        model: the model, trained or not.
        path: a folder to make; or a file name ending in ``.keras`` for Keras's own format, which
            also keeps the state of the optimizer.
        parameters_as: ``"json"`` or ``"pickle"``, the file beside the weights.
        overwrite: whether an earlier model at this path may be replaced.

    Returns:
        The path.

    Raises:
        FileExistsError: if something is there already and ``overwrite`` is False.
        TypeError: if ``model`` is not a :class:`DiffusionModel`.
        ValueError: if ``parameters_as`` is neither of the two, or the path is that of another kind
            of file.
    """
    path = Path(path).expanduser()
    _check_request(model, path, parameters_as, overwrite)
    with _written_whole(path) as temporary:
        if path.suffix == ".keras":
            model.save(temporary)
        else:
            temporary.mkdir()
            save_parameters(model.diffusion_parameters, temporary / PARAMETERS_FILES[parameters_as])
            _save_weights(model.network, temporary / WEIGHTS_FILE)
    return path


def _check_request(model: DiffusionModel, path: Path, parameters_as: str, overwrite: bool) -> None:
    if not isinstance(model, DiffusionModel):
        raise TypeError(
            f"model is a {type(model).__name__}; save_model keeps a DiffusionModel. For a bare "
            "network, use Keras's own network.save('name.keras')."
        )
    if parameters_as not in PARAMETERS_FILES:
        raise ValueError(f"parameters_as = {parameters_as!r} must be 'json' or 'pickle'.")
    if path.suffix.lower() in FILE_SUFFIXES:
        raise ValueError(
            f"{path} ends in {path.suffix}, but a model is saved as a folder or as a .keras file. "
            f"Use {path.stem!r} or {path.stem + '.keras'!r}."
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists and stays as it is. Choose another name, or pass overwrite=True to "
            "replace it."
        )
    if path.is_dir() and path.suffix != ".keras":
        strangers = {p.name for p in path.iterdir()} - {WEIGHTS_FILE, *PARAMETERS_FILES.values()}
        if strangers:
            raise FileExistsError(
                f"{path} holds files that are not a model's ({sorted(strangers)[0]!r} for one) "
                "and stays as it is. Choose a folder of its own for the model."
            )


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """Hand out a temporary name beside ``path``; move it there at the end, or leave no trace."""
    path = path.resolve()  # of a link, the place it points to is replaced and not the link
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    temporary = path.with_name(f".{path.stem}-{mark}{path.suffix}")
    old = path.with_name(f".{path.stem}-{mark}-old")
    try:
        yield temporary
        if path.is_dir():  # a folder cannot be renamed onto one that has files in it
            path.rename(old)
        os.replace(temporary, path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    finally:
        for leftover in (temporary, old):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def load_model(path_or_name: str | os.PathLike[str]) -> DiffusionModel:
    """Load a model that :func:`save_model` wrote, or one that ships with the package.

    Args:
        path_or_name: the path that was saved to, or a name such as ``"digits"``.

    Returns:
        The model, which gives bit-identical predictions to the one that was saved.

    Raises:
        FileNotFoundError: if there is no such path or name, or a file is missing in the folder.
        ValueError: if the file is damaged, or the weights do not fit the parameters.
    """
    path = Path(path_or_name).expanduser()
    if not path.exists():
        path = _pretrained(str(path_or_name), path)
    return _load_keras_file(path) if path.is_file() else _load_folder(path)


def pretrained_names() -> list[str]:
    """List the models that ship with the package."""
    return sorted(p.name for p in PRETRAINED.glob("*") if (p / WEIGHTS_FILE).exists())


def _pretrained(name: str, path: Path) -> Path:
    names = pretrained_names()
    if name in names:
        return PRETRAINED / name
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {nearest[0]!r}?" if nearest else "Check the path."
    if left := sorted(path.parent.glob(f".{glob.escape(path.stem)}-*-old")):
        hint = f"A run that was killed while replacing it left the earlier model as {left[0]}."
    raise FileNotFoundError(
        f"{name!r} is neither a saved model nor one of those that ship with the package "
        f"({', '.join(names)}). {hint}"
    )


def _load_keras_file(path: Path) -> DiffusionModel:
    if path.suffix != ".keras":
        raise ValueError(
            f"{path} is not a saved model: a model is a folder with {WEIGHTS_FILE} and the "
            "parameters, or a file ending in .keras."
        )
    try:
        model = keras.models.load_model(path)
    except Exception as error:
        raise ValueError(
            f"{path} could not be read as a Keras model ({error}). The file is damaged or comes "
            "from another version; save the model again."
        ) from error
    if not isinstance(model, DiffusionModel):
        raise ValueError(
            f"{path} holds a {type(model).__name__}, not a DiffusionModel; load it with "
            "keras.models.load_model."
        )
    return model


def _load_folder(path: Path) -> DiffusionModel:
    found = [path / name for name in PARAMETERS_FILES.values() if (path / name).exists()]
    if len(found) != 1:
        names = " or ".join(PARAMETERS_FILES.values())
        count = "none" if not found else "both, and they may disagree"
        error = FileNotFoundError if not found else ValueError
        raise error(f"{path} must hold exactly one of {names}; it holds {count}.")
    weights = path / WEIGHTS_FILE
    if not weights.exists():
        raise FileNotFoundError(f"{path} lacks {WEIGHTS_FILE}, the weights; save the model again.")
    model = DiffusionModel(load_parameters(found[0]))
    try:
        with np.load(weights, allow_pickle=False) as file:
            arrays = [file[key] for key in sorted(file.files)]
    except UNREADABLE_NPZ as error:
        raise ValueError(
            f"{weights} is damaged ({error}). Save the model again, or fetch the file again."
        ) from error
    _set_weights(model.network, arrays, weights)
    return model


def _set_weights(network: keras.Model, arrays: list[np.ndarray], source: Path) -> None:
    """Set every weight of a network, or none if one of them does not fit."""
    shapes = [tuple(variable.shape) for variable in network.weights]
    for i, (array, shape) in enumerate(zip(arrays, shapes, strict=False)):
        if array.shape != shape:
            raise ValueError(
                f"{source} does not fit the parameters beside it: weight {i} "
                f"({network.weights[i].path}) has shape {array.shape}, the network needs {shape}. "
                "The two files must come from one save_model."
            )
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(
                f"{source} is damaged: weight {i} ({network.weights[i].path}) is not all finite "
                "numbers with a decimal point. Save the model again, or fetch the file again."
            )
    if len(arrays) != len(shapes):
        raise ValueError(
            f"{source} does not fit the parameters beside it: it holds {len(arrays)} weights, the "
            f"network has {len(shapes)}. The two files must come from one save_model."
        )
    network.set_weights(arrays)


def _save_weights(network: keras.Model, path: Path) -> None:
    """Write the weights as plain arrays, numbered in the network's order.

    Plain arrays depend on no version of Keras and no backend, and hold no code.
    """
    arrays = {f"{i:05d}": array for i, array in enumerate(network.get_weights())}
    with path.open("xb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
