"""Interrupted training goes on: everything that a run is made of, on disk, between two epochs.

That a run can end as if it had never been interrupted is due to its questions, which depend on
nothing but the model's seed and the number of the epoch: weights, the optimizer with its averages,
and the history are all that a checkpoint has to hold.

A checkpoint is one ``.npz`` of plain arrays with its description in JSON: no code is ever loaded.
It appears whole or not at all; a process that is killed meanwhile leaves the earlier ones as they
are.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough import checks
from diffusion_walkthrough.engine.callbacks import AveragedWeights
from diffusion_walkthrough.engine.optimizer import bare_optimizer
from diffusion_walkthrough.files import UNREADABLE_NPZ
from diffusion_walkthrough.files.archives import (
    array_header,
    array_names,
    opened_archive,
    read_array,
    read_member,
)
from diffusion_walkthrough.files.locking import FolderLock
from diffusion_walkthrough.files.writing import make_folder, tidy, whole_file
from diffusion_walkthrough.parameters import DiffusionParameters

FILE_FORMAT = "diffusion_walkthrough.training"
FILE_VERSION = 2

_KEPT = 2  # the newest checkpoint, and one to fall back to should it be damaged
_ABOUT = "about.json"  # the member of the .npz that describes the rest
_MOST_ABOUT = 8 * 1024**2  # bytes of it: the history of 80,000 epochs, of four numbers each
# What it must say, beside its format and version.
_SAID = {"epoch": int, "asked": int, "planned": int, "stopped": bool, "run": dict, "history": dict}
# How many epochs are finished; and, in version 0.1, steps.
_NAME = re.compile(r"checkpoint-(\d{6,})(?:-\d{8,})?\.npz")


class _NotOursError(Exception):
    """A file in good order that this package has not written."""


class Checkpoint(NamedTuple):
    """A checkpoint on disk and its description."""

    path: Path
    about: dict[str, Any]


class ResumeTraining(keras.callbacks.Callback):
    """Save a run of ``DiffusionModel.fit`` as it goes, and go on from what was saved.

    >>> model.fit(images, epochs=500, callbacks=[ResumeTraining("run")])

    The first time, this trains from the start. Killed, and run again with the same lines, it goes
    on from the newest checkpoint in ``run``; the history that ``fit`` returns has all epochs. If
    the run had ended already, by itself or by another callback, ``fit`` returns at once with the
    model as it was at the end; with more epochs than before, it goes on, from the last epoch that
    was finished.

    Losses and weights are those of a run without interruption (to the bit, where the machine adds
    up in the same order each time, as TensorFlow on a CPU does; on PyTorch, dropout draws anew). An
    epoch that was not finished is trained again: where it takes hours, ``fit(…,
    steps_per_epoch=500)`` makes epochs of 500 steps. With a data set of another kind than an array,
    the order of the images is the data set's own affair. What other callbacks remember is theirs: a
    learning rate that was lowered is restored, the patience of the callback that lowered it is not.

    While one process trains, no other may train in the same folder.
    """

    def __init__(self, folder: str | os.PathLike[str], every_epochs: int = 1) -> None:
        """Plan when to save: after every so many epochs, at least 1, and at the end of the run.

        The last two checkpoints of this one run are kept in ``folder``, which is made if it is not
        there. Raises TypeError or ValueError if ``every_epochs`` is not such a number.
        """
        super().__init__()
        self.folder = checks.path("folder", folder)
        self.every_epochs = checks.integer("every_epochs", every_epochs, 1)
        self._run: dict[str, Any] = {}  # what must be the same when the run goes on
        self._past: tuple[list[int], dict[str, Any]] | None = None  # history of earlier epochs
        self._own: list[Any] | None = None  # the training's own weights, when a run has ended

    @contextlib.contextmanager
    def going_on(
        self, model: Any, questions: Any, options: dict[str, Any]
    ) -> Iterator[keras.callbacks.History | None]:
        """Restore the newest checkpoint, if any, for the time of a run. ``fit`` calls this.

        The ``initial_epoch`` of its options becomes the number of epochs already done. What is
        handed out is the history of a run that has ended, or None while epochs are left.

        Raises:
            ValueError: if the checkpoint belongs to another run, or all of them are damaged.
            BlockingIOError: if another process trains in the folder.
            OSError: if a checkpoint cannot be written; the one before it is still there.
        """
        for other in options["callbacks"]:
            if isinstance(other, keras.callbacks.SwapEMAWeights) and other.swap_on_epoch:
                raise ValueError(
                    "SwapEMAWeights(swap_on_epoch=True) has the averages in the model between "
                    "epochs, where ResumeTraining saves it: a run would go on from these. Leave "
                    "swap_on_epoch out, or let the parameters average: "
                    "TrainingParameters(ema_momentum=…)."
                )
        make_folder(self.folder)
        with FolderLock(self.folder):
            tidy(self.folder)
            model.optimizer.build(model.trainable_variables)
            self._run, self._planned = _description(model, questions), options["epochs"]
            self._batches = len(questions)
            ours = (c for c in options["callbacks"] if isinstance(c, AveragedWeights))
            self._averaged = next(ours, None)
            model.history, self._past = keras.callbacks.History(), ([], {})
            model.history.set_model(model)
            options["callbacks"].append(model.history)
            found = newest_checkpoint(self.folder, options["epochs"])
            ended = found is not None and self._restored(found, model, options)
            yield model.history if ended else None
            if self._own is not None and not ended:
                done = model.history.epoch
                done = done[-1] + 1 if done else options.get("initial_epoch", 0)
                self._save(model, done, self._own)

    def _restored(self, found: Checkpoint, model: Any, options: dict[str, Any]) -> bool:
        """Bring weights, optimizer and history back; whether the run has ended.

        For a longer run, the weights become those that training stood at, not their averages.
        """
        _check_same_run(found, self._run)
        about = found.about
        done = about["planned"] if about["stopped"] else about["epoch"]
        ended = done >= options["epochs"]
        with opened_archive(found.path) as archive:
            places, shows_average = _variables(model), "own/00000" in array_names(archive)
            if not ended and shows_average:
                own = {f"own/{i:05d}": v for i, v in enumerate(model.trainable_variables)}
                places |= own  # read last, these stay
            _check_arrays(found.path, archive, places)
            for name, variable in places.items():
                variable.assign(read_array(archive, name))
        model.epochs_asked, model.holds_average = about["asked"], ended
        if ended and self._averaged and not shows_average:  # saved on the way to more epochs
            self._averaged.set_model(model)
            self._averaged.on_train_end()
        options["initial_epoch"] = about["epoch"]
        self._past = about["history"]["epoch"], about["history"]["logs"]
        model.history.epoch, model.history.history = self._past
        return ended

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuse models whose training is not known well enough."""
        if not self._run:
            raise ValueError(
                "ResumeTraining works within DiffusionModel.fit, whose questions can be asked "
                "again. For other models, use keras.callbacks.BackupAndRestore."
            )
        self._own, self._last = None, self._batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note how far the epoch has come: another callback may stop it there."""
        self._last = batch

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Save what the epochs before have come to, when all callbacks have seen their end."""
        if self._past is not None:  # the first epoch here
            (self.model.history.epoch, self.model.history.history), self._past = self._past, None
        elif epoch % self.every_epochs == 0:
            if self._averaged:
                self._averaged.show_own()
            self._save(self.model, epoch)

    def on_train_end(self, logs: Any = None) -> None:
        """Keep the weights from which a longer run would go on; the model gets the averages."""
        trained = [ops.convert_to_numpy(weight) for weight in self.model.trainable_variables]
        self._own = (self._averaged and self._averaged.own_weights) or trained

    def _save(self, model: Any, epoch: int, own: Iterable[Any] = ()) -> None:
        about = {
            "format": FILE_FORMAT,
            "version": FILE_VERSION,
            "epoch": epoch,
            "asked": model.epochs_asked,
            "planned": self._planned,
            "stopped": bool(own and model.stop_training),
            "cut": bool(own and model.stop_training and self._last < self._batches - 1),
            "run": self._run,
            "history": {"epoch": model.history.epoch, "logs": model.history.history},
        }
        values = {**_variables(model), **{f"own/{i:05d}": value for i, value in enumerate(own)}}
        arrays = ((name, ops.convert_to_numpy(value)) for name, value in values.items())
        write_checkpoint(self.folder / f"checkpoint-{epoch:06d}.npz", about, arrays)


# What a run is made of ------------------------------------------------------------------------


def _description(model: Any, questions: Any) -> dict[str, Any]:
    """What must be the same when a run goes on, in words that an error message can use."""
    about: dict[str, Any] = {"backend": keras.backend.backend(), "seed": model.seed}
    about["parameters"] = model.diffusion_parameters.to_dict()
    optimizer = bare_optimizer(model.optimizer)
    about["optimizer"] = {"kind": type(optimizer).__name__, **optimizer.get_config()}
    about["optimizer"].pop("name", None)  # Keras numbers those of a process
    if not isinstance(about["optimizer"].get("learning_rate"), Mapping):
        about["optimizer"].pop("learning_rate", None)  # a callback may have changed the number
    for name in ("batch_size", "shuffle", "images", "labels", "weights"):
        value = getattr(questions, name, None)
        if isinstance(value, np.ndarray):
            shown = np.ascontiguousarray(value[:: max(len(value) // 64, 1)])
            about[f"number and shape of the {name}"] = value.shape
            value, name = zlib.crc32(shown.tobytes()), f"checksum of some of the {name}"
        about[name.replace("_", " ")] = value
    about["steps per epoch"] = len(questions)
    for name, variable in _variables(model).items():
        group, number = name.split("/")
        about[f"variable {int(number)} of the {group}"] = [*variable.shape, str(variable.dtype)]
    return json.loads(json.dumps(about, default=str))


def _check_same_run(found: Checkpoint, run: dict[str, Any]) -> None:
    """Refuse a checkpoint of which anything does not fit, before anything is changed."""
    before = dict(found.about["run"])
    try:
        # Parameters that were added later have a meaning in the files of before, too.
        parameters = DiffusionParameters.from_dict(before["parameters"], version=1)
        old, new = _flat({**before, "parameters": parameters.to_dict()}), _flat(run)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{found.path} does not say well enough what run it is of ({str(error)[:300]}). Choose "
            "another folder for a new run."
        ) from error
    old.pop("optimizer.name", None)  # in earlier files
    for name in old | new:
        if old.get(name) != new.get(name):
            was, is_now = checks.shown(old.get(name)), checks.shown(new.get(name))
            raise ValueError(
                f"{found.path} belongs to another run: {name[:80]} was {was} there and is "
                f"{is_now} here. Go on with what it was, or choose another folder for a new run."
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with one dotted name for each value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return {prefix + name: value for name, value in flat.items()}


def _variables(model: Any) -> dict[str, Any]:
    """All that changes in training, by names; the model's own include dropout's random states."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {f"{group}/{i:05d}": v for group, found in groups.items() for i, v in enumerate(found)}


# Checkpoints on disk --------------------------------------------------------------------------


def write_checkpoint(
    path: Path, about: Mapping[str, Any], arrays: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write a checkpoint so that it is there whole or not at all, and remove all but the last two.

    Arrays come with their names one after the other: a large model is not copied at once. Raises
    OSError if the disk refuses, and ValueError for a history too long to be read again; the earlier
    checkpoints are still there.
    """
    description = json.dumps(about, default=lambda x: np.asarray(x).tolist())
    if len(description) > _MOST_ABOUT:  # of ASCII letters
        raise ValueError(
            f"the description of {path.name}, with the history of its epochs, has "
            f"{len(description)} bytes, more than the {_MOST_ABOUT} that can be read again. Let an "
            "epoch have more steps: fit(…, steps_per_epoch=…)."
        )
    with whole_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_ABOUT, description)
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    for old in _checkpoints(path.parent)[_KEPT:]:
        with contextlib.suppress(_NotOursError, *UNREADABLE_NPZ):
            with opened_archive(old) as archive:
                _about(archive)  # which refuses what others have written
            old.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    files = (path for path in folder.glob("*") if path.is_file())
    found = [(_NAME.fullmatch(path.name), path) for path in files]
    return [path for _, path in sorted([(int(m[1]), p) for m, p in found if m], reverse=True)]


def newest_checkpoint(
    folder: str | os.PathLike[str], epochs: int | None = None
) -> Checkpoint | None:
    """Find the newest checkpoint that is whole; None if there is none at all.

    A run of more ``epochs`` than were planned does not go on from within an epoch, where another
    callback stopped it: it takes the one before, and trains this epoch again.

    A damaged one is set aside (its name then ends in ``.damaged``), with a warning that names it.
    Raises ValueError if all are damaged, or if another version of this package wrote the newest.
    """
    damaged: list[tuple[Path, Exception]] = []
    for path in _checkpoints(Path(folder).expanduser()):
        try:
            about = _read_about(path)
        except _NotOursError:
            raise ValueError(
                f"{path} bears the name of a checkpoint, but was not written by this package, "
                "which does not touch it. Move it away, or choose another folder."
            ) from None
        except UNREADABLE_NPZ as error:
            damaged.append((path, error))
            continue
        _set_aside(damaged, path)
        if about.get("version") != FILE_VERSION:
            number = checks.shown(about.get("version"))
            raise ValueError(
                f"{path} was written by another version of this package (its format is number "
                f"{number}, this one's {FILE_VERSION}), which trains in another way. Go on with "
                "that version, or choose another folder for a new run."
            )
        if about.get("cut") is True and about["planned"] < (epochs or 0):
            continue
        return Checkpoint(path, about)
    if damaged:
        path, reason = damaged[0]
        raise ValueError(
            f"None of the checkpoints in {path.parent} can be read ({path.name}: {reason}). Bring "
            "one back from a copy, or choose another folder to begin anew."
        )
    return None


def _set_aside(damaged: list[tuple[Path, Exception]], instead: Path) -> None:
    for path, error in damaged:
        path.rename(path.with_name(path.name + ".damaged"))
        checks.warn(
            f"The checkpoint {path} is damaged ({error}). It is kept as {path.name}.damaged, and "
            f"training goes on from the one before it, {instead.name}."
        )


def _read_about(path: Path) -> dict[str, Any]:
    """Read a checkpoint's description, after comparing every byte with its checksum."""
    with opened_archive(path) as archive:
        if broken := archive.testzip():
            raise ValueError(f"the checksum of {broken} is wrong")
        about = _about(archive)
    if about.get("version") == FILE_VERSION:
        _check_about(about)
    return about


def _about(archive: zipfile.ZipFile) -> dict[str, Any]:
    if _ABOUT not in archive.namelist():
        raise _NotOursError
    about = json.loads(read_member(archive, _ABOUT, _MOST_ABOUT))
    if not isinstance(about, dict) or about.get("format") != FILE_FORMAT:
        raise _NotOursError
    return about


def _check_about(about: Mapping[str, Any]) -> None:
    """Refuse a description that lacks something, or has another kind of thing in its place."""
    for name, kind in _SAID.items():
        value = about.get(name)
        if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
            raise ValueError(f"its {name} is {checks.shown(value)}")
    past = about["history"]
    if not isinstance(past.get("epoch"), list) or not isinstance(past.get("logs"), dict):
        raise ValueError(f"its history is {checks.shown(past)}")


def _check_arrays(path: Path, archive: zipfile.ZipFile, places: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks an array, or has another one in its place."""
    for name, variable in places.items():
        try:
            shape, dtype = array_header(archive, name)
            fits = shape == tuple(variable.shape)
            fits &= (dtype.kind == "f") == ("float" in str(variable.dtype))
        except UNREADABLE_NPZ:
            fits = False
        if not fits:
            raise ValueError(
                f"{path} holds another {name} than this run needs, or none. "
                "Bring the file back from a copy, or choose another folder to begin anew."
            )
