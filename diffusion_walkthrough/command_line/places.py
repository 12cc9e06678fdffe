"""Where things are: models, the folders of runs, and what is to be written.

Looked up without TensorFlow, and told by the option that names them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_walkthrough import checks
from diffusion_walkthrough.checks import did_you_mean
from diffusion_walkthrough.files import UNREADABLE_NPZ, plain_data
from diffusion_walkthrough.files.archives import opened_archive, read_member
from diffusion_walkthrough.files.folders import (
    CHECKPOINTS,
    MODEL,
    PARAMETERS_FILES,
    has_begun,
    model_of_run,
    resume_folder,
)
from diffusion_walkthrough.files.weights import WEIGHTS_FILES
from diffusion_walkthrough.files.writing import strangers
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters

HISTORY, PICTURES = "history.csv", "pictures"

#: The small trained models that ship with the package.
PRETRAINED = Path(__file__).parent.parent / "pretrained"

#: Of the description of a checkpoint: as much as ``engine.resuming`` writes.
_MOST_BYTES = 8 * 1024**2


class Begun(NamedTuple):
    """What the newest checkpoint of a run says of it.

    Attributes:
        parameters: those it was begun with.
        epochs: how many are done.
        others: the seed, the steps of an epoch, and number and shape of the images.
    """

    parameters: DiffusionParameters
    epochs: int
    others: dict[str, Any]


def path_of(word: str, given: str) -> Path:
    """A path of the line, with the home directory in the place of ~."""
    if not given.strip():
        raise ValueError(f"{word} is empty. Name a file or a folder.")
    try:
        return checks.path(word, given)
    except RuntimeError as error:
        raise ValueError(f"{word} {given}: {error} Write the whole path, without the ~.") from error


def output(options: argparse.Namespace, suffixes: dict[str, str]) -> Path:
    """Where ``--out`` is to go; nothing that is there is replaced unless the line says so."""
    path = path_of("--out", options.out)
    if path.suffix.lower() not in suffixes:
        ends = " or ".join(f"{suffix} ({what})" for suffix, what in suffixes.items())
        raise ValueError(f"--out {options.out} must end in {ends}.")
    if path.is_dir():
        raise ValueError(f"--out {options.out} is a folder. Name a file in it.")
    if path.exists() and not options.overwrite:
        raise FileExistsError(f"{path} exists and stays as it is. Add --overwrite to replace it.")
    _check_writable("--out", path.parent)
    return path


def _check_writable(word: str, folder: Path) -> None:
    ways = (folder, *folder.absolute().parents)
    there = next(place for place in ways if place.exists() or place.is_symlink())
    if not there.exists():
        raise FileNotFoundError(
            f"{word}: {there} is a link to {os.readlink(there)}, which is not there. Make that "
            "folder, or choose another place."
        )
    if not there.is_dir():
        raise NotADirectoryError(f"{word}: {there} is a file, and not a folder. Choose another.")
    try:
        tempfile.TemporaryDirectory(dir=there, prefix=".~").cleanup()
    except OSError as error:
        raise PermissionError(
            f"{word}: nothing can be written in {there} ({error.strerror}). Choose another place."
        ) from error


# Models -------------------------------------------------------------------------------------------


def model_place(given: str, word: str = "--model") -> Path:
    """Where a model is: at a path, in the folder of the run at a path, or among those that ship."""
    path = path_of(word, given)
    shipped = sorted(found.parent.name for found in PRETRAINED.glob("*/parameters.json"))
    if not path.exists():
        if given in shipped:
            return PRETRAINED / given
        guess = did_you_mean(given, shipped, "Check the path.")
        raise FileNotFoundError(
            f"{word} {given} is neither a saved model, nor the folder of a run, nor a model that "
            f"ships ({', '.join(shipped)}). {guess}"
        )
    if path.is_file():
        if path.suffix != ".keras":
            raise ValueError(
                f"{word} {given} is a file, and a saved model is a folder, or a file that ends in "
                f".keras. Did you mean the folder that it is in, {path.parent}?"
            )
        return path
    if _has_parameters(path):
        return _with_weights(path, word, given)
    place = model_of_run(path, f"{word} {given}")
    if place is not None and _has_parameters(place):
        return _with_weights(place, word, given)
    if place is None and given in shipped and word == "--model":  # a folder of something else
        return PRETRAINED / given
    raise FileNotFoundError(f"{word} {given} is a folder without a model. Check the path.")


def _has_parameters(place: Path) -> bool:
    return any((place / name).is_file() for name in PARAMETERS_FILES)


def _with_weights(place: Path, word: str, given: str) -> Path:
    if not any((place / name).is_file() for name in WEIGHTS_FILES):
        raise FileNotFoundError(
            f"{word} {given}: {place} holds parameters and no weights, so that it is no whole "
            f"model. Put {WEIGHTS_FILES[0]} back into it, or train again."
        )
    return place


def parameters_of_model(place: Path) -> DiffusionParameters:
    """What a saved model says of itself, read without building it."""
    if place.is_dir():
        names = [name for name in PARAMETERS_FILES if (place / name).is_file()]
        return load_parameters(place / names[0])
    try:
        with opened_archive(place) as archive:
            data = read_member(archive, "config.json", plain_data.MAX_BYTES)
        config = plain_data.decode_json(data)
        return DiffusionParameters.from_dict(config["config"]["parameters"], version=1)
    except UNREADABLE_NPZ as error:
        raise ValueError(
            f"{place} cannot be read as a model of this package ({error}). Check that it was saved "
            "with save_model, and save it again."
        ) from error


# Runs ---------------------------------------------------------------------------------------------


def run_folder(given: str) -> Path:
    """Where all of a run is to be written: a folder, which those in it stand for, too.

    Raises ValueError for any other saved model, and FileExistsError for a folder in which a run
    would replace what is not its own.
    """
    folder = path_of("--folder", given)
    of_model = folder.name == MODEL and has_begun(folder.parent)
    of_resume = folder == resume_folder(folder.parent) and any(folder.glob(CHECKPOINTS))
    if of_model or of_resume:
        folder = folder.parent
    if any((folder / name).exists() for name in PARAMETERS_FILES):
        raise ValueError(
            f"--folder {given} is a saved model, which a run would mix up with its own files. Name "
            "the folder of the run, or a new one."
        )
    for place in (folder, resume_folder(folder)):
        _check_writable("--folder", place)
    if found := _not_of_a_run(folder):
        raise FileExistsError(
            f"--folder {given}: a run would replace {found.relative_to(folder)}, which none that "
            "can go on there has written. Name a new folder, or move that away."
        )
    return folder


def _not_of_a_run(folder: Path) -> Path | None:
    """What somebody else has put where a run writes, if anything."""
    model = folder / MODEL
    if model.is_dir() and (others := strangers(model, {*WEIGHTS_FILES, *PARAMETERS_FILES})):
        return model / others[0]
    if model.exists() and not model.is_dir():
        return model
    names = () if has_begun(folder) else (HISTORY, MODEL, f"{PICTURES}/epoch-*.png")
    return next((place for name in names for place in sorted(folder.glob(name))), None)


def begun(folder: Path) -> Begun | None:
    """Look at the newest checkpoint of a run, if there is one that can be read.

    ``ResumeTraining`` looks closely, and says what is wrong with a damaged one.
    """
    for path in sorted(resume_folder(folder).glob(CHECKPOINTS), reverse=True):
        try:
            with opened_archive(path) as archive:
                about = json.loads(read_member(archive, "about.json", _MOST_BYTES))
            run = about["run"]
            before = DiffusionParameters.from_dict(run["parameters"], version=1)
            others = {name: run[name] for name in _SAID}
            kinds = [isinstance(others[name], kind) for name, kind in _SAID.items()]
            if all(kinds) and isinstance(about["epoch"], int):
                return Begun(before, about["epoch"], others)
        except UNREADABLE_NPZ:
            continue
    return None


#: What a checkpoint says beside the parameters, and of what kind it is.
_SAID: dict[str, Any] = {
    "seed": (int, type(None)),
    "steps per epoch": int,
    "number and shape of the images": list,
}

#: The options that say what a run was begun with; the rest are parameters.
_OPTIONS = {
    "seed": "--seed",
    "batch_size": "--batch-size",
    "precision": "--precision",
    "steps per epoch": "--steps-per-epoch",
    "number and shape of the images": "--data with",
}


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError for a folder whose run was begun in another way."""
    for name, value in now.items():
        was = before[name]
        if was != value:
            words = f"--set {shlex.quote(f'{name}={was}')}"
            words = f"{_OPTIONS[name]} {was}" if name in _OPTIONS else words
            raise ValueError(
                f"the run in {folder} was begun with {name} {was}, and this line has {value}. Go "
                f"on with what it was: {words}; or choose another --folder for a new run."
            )


def leaves(parameters: DiffusionParameters) -> dict[str, Any]:
    """All parameters by their own names, without the parts that they stand in."""
    values = dataclasses.asdict(parameters)
    parts = [part for part in values.values() if isinstance(part, dict)]
    alone = {name: value for name, value in values.items() if not isinstance(value, dict)}
    return {**alone, **{name: value for part in parts for name, value in part.items()}}
