"""Interrupted training goes on: everything that a run is made of, on disk, and in a known order.

:class:`ResumeTraining` is a callback. With it, ``model.fit(images, …)`` that was killed at any
moment goes on where its last checkpoint stands when the same lines run again, and ends as if
nothing had happened. Two things make that exact. A checkpoint holds all that changes in training:
weights, the optimizer with its averages, random states, the running means of the present epoch,
the history. And the order of the images depends only on a seed and on the number of the step
(:class:`OrderedImages`), so that the middle of an epoch is a place one can come back to.

A checkpoint is one ``.npz`` of plain arrays with its description in JSON: no code is ever loaded.
It is written under a temporary name, brought to the disk, and renamed; a process that is killed
meanwhile leaves the earlier checkpoints as they are.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.data import UNREADABLE_NPZ
from diffusion_walkthrough.parameters import DiffusionParameters
from diffusion_walkthrough.precision import bare_optimizer
from diffusion_walkthrough.replicas import gather_from_workers, is_first_worker, worker_count

FILE_FORMAT = "diffusion_walkthrough.training"
FILE_VERSION = 1

#: How many checkpoints are kept: the newest, and one to fall back to should it be damaged.
KEPT = 2

_ABOUT = "about.json"  # the member of the .npz that describes the rest
_NAME = re.compile(r"checkpoint-(\d{6,})-(\d{8,})\.npz")  # epochs finished, steps of the next one


class OrderedImages(keras.utils.PyDataset):
    """Batches of images in an order that depends only on a seed and the number of the step.

    The steps of all epochs are one stream that goes through the images again and again, each time
    in the order that NumPy's default generator draws from the seed and the number of the pass. Any
    step's batch is thus known without those before it.

    Attributes:
        epoch: the epoch that is read next, from 0.
        skipped: how many of its steps have been taken already, before an interruption.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int,
        steps_per_epoch: int | None = None,
        seed: tuple[int, ...] | None = None,
    ) -> None:
        """Plan the stream.

        Args:
            images: ``(n, …)``; not copied.
            batch_size: images per step; the last step of a pass has what is left.
            steps_per_epoch: None for one pass through the images.
            seed: whole numbers of at least 0; None leaves the images in their own order.
        """
        super().__init__()
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self._batches = math.ceil(len(images) / batch_size)
        self.steps_per_epoch = steps_per_epoch or self._batches
        self.epoch = self.skipped = 0
        self._latest_order: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        """How many steps are left of the epoch."""
        return self.steps_per_epoch - self.skipped

    def __getitem__(self, index: int) -> tuple[np.ndarray]:
        """The batch of one of the steps that are left, as Keras wants it: a tuple of one array."""
        step = self.epoch * self.steps_per_epoch + self.skipped + index
        number, batch = divmod(step, self._batches)
        part = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
        return (self.images[part] if self.seed is None else self.images[self._order(number)[part]],)

    def _order(self, number: int) -> np.ndarray:
        """The order of one pass. Kept as one tuple: Keras reads ahead in a thread of its own."""
        latest, order = self._latest_order
        if latest != number:
            generator = np.random.default_rng([*(self.seed or ()), number])
            order = generator.permutation(len(self.images))
            self._latest_order = (number, order)
        return order


class Checkpoint(NamedTuple):
    """A checkpoint on disk and its description."""

    path: Path
    about: dict[str, Any]


class ResumeTraining(keras.callbacks.Callback):
    """Save a run of ``DiffusionModel.fit`` now and then, and go on from what was saved.

    >>> model.fit(images, epochs=500, callbacks=[ResumeTraining("run")])

    The first time, this trains from the start. Killed, and run again with the same lines, it goes
    on from the newest checkpoint in ``run``; the history that ``fit`` returns has all epochs. If
    the run had ended already, ``fit`` returns at once with the model as it was at the end; with
    more epochs than before, it goes on.

    With images in one array, the losses and weights are those of a run without interruption (to
    the bit, where the machine adds up in the same order each time, as TensorFlow on a CPU does).
    With a data set of another kind, checkpoints are written between epochs only, and the order of
    the images is the data set's own affair. What other callbacks remember is theirs: a learning
    rate that was lowered is restored, the patience of the callback that lowered it is not.

    Several workers (``tf.distribute.MultiWorkerMirroredStrategy``) need one folder that all of them
    see: the first one writes, all of them read. A worker that dies ends the others with an
    ``UnavailableError``, at once, or some seconds after it was last heard of; start all of them
    again. ``every_seconds`` does not count there: the clocks of workers differ, and all must save
    at the same step.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every_epochs: int = 1,
        every_steps: int | None = None,
        every_seconds: float | None = 600.0,
    ) -> None:
        """Plan when to save; the end of the run is saved in any case.

        Args:
            folder: where the checkpoints of this one run lie; made if it is not there. The last
                two are kept.
            every_epochs: after how many epochs each time.
            every_steps: also within an epoch, after so many steps since the last checkpoint.
            every_seconds: also within an epoch, when the last checkpoint is that old.

        Raises:
            ValueError: if one of the numbers is not above 0.
        """
        super().__init__()
        if every_epochs < 1:
            raise ValueError(f"every_epochs = {every_epochs!r} must be at least 1.")
        for name, value in {"every_steps": every_steps, "every_seconds": every_seconds}.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} = {value!r} must be above 0, or None for never.")
        self.folder = Path(folder).expanduser()
        self.every_epochs, self.every_steps = every_epochs, every_steps
        self.every_seconds = every_seconds
        self._found: Checkpoint | None = None
        self._data: OrderedImages | None = None
        self._run: dict[str, Any] = {}
        self._start = (0, 0)

    # What happens before Keras's fit ---------------------------------------------------------

    def prepare(
        self, model: Any, x: Any, batch_size: int | None, options: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Look for a checkpoint, and put the images in their order. ``DiffusionModel.fit`` calls.

        Args:
            model: the model to be trained.
            x: what it is to be trained on.
            batch_size: images per step, of an array.
            options: those of ``fit``.

        Returns:
            What to hand to Keras in the place of ``x`` and ``options``.

        Raises:
            ValueError: if the checkpoint belongs to another run, or all of them are damaged.
        """
        strategy = getattr(model, "distribute_strategy", None)
        self._is_alone, self._writes = worker_count(strategy) == 1, is_first_worker(strategy)
        self._found = self._look(strategy)
        about = self._found.about if self._found else {}
        seed = about.get("order_seed") or [
            int(n) % 2**32 for n in ops.convert_to_numpy(model.seed_generator.state.value)
        ]
        self._start = (about.get("epoch", options.get("initial_epoch", 0)), about.get("step", 0))
        _check_same_start(self.folder, self._start, strategy)
        options = {**options, "initial_epoch": self._start[0]}
        shuffle = bool(options.get("shuffle", True))
        self._data = None
        if isinstance(x, np.ndarray) or ops.is_tensor(x):
            x = self._data = _ordered(x, batch_size or 32, options, seed if shuffle else None)
        elif self.every_steps:
            raise ValueError(
                f"every_steps = {self.every_steps} needs images in one array, whose order is known "
                f"at each step; a {type(x).__name__} can be saved between epochs only. Leave "
                "every_steps out, or train on an array."
            )
        self._order_seed = seed
        self._run = _description(model, self._data, shuffle)
        if self._found:
            _check_same_run(self._found, self._run)
        return x, options

    def _look(self, strategy: Any) -> Checkpoint | None:
        """Find the newest checkpoint; the first worker does so before the others, and tidies up."""
        found = newest_checkpoint(self.folder) if self._writes else None
        gather_from_workers([0], strategy)  # all wait for the first
        return found if self._writes else newest_checkpoint(self.folder)

    @contextlib.contextmanager
    def in_the_middle_of_an_epoch(self) -> Iterator[None]:
        """Silence Keras's warning that data ran out: the rest of an epoch is a short one."""
        with warnings.catch_warnings():
            if self._start[1]:
                warnings.filterwarnings("ignore", message="Your input ran out of data")
            yield

    # What happens while Keras trains ---------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Restore weights, optimizer and random states."""
        self._saved_at = time.monotonic()
        self._generator = _generator_state()
        if not self._run:
            raise ValueError(
                "ResumeTraining works within DiffusionModel.fit, which puts the images in order. "
                "For other models, use keras.callbacks.BackupAndRestore."
            )
        if self._found:
            self.model.optimizer.build(self.model.trainable_variables)
            _check_variables(self._found, self.model)
            _restore(self._found, self.model, ("model", "optimizer"))
            with np.load(self._found.path, allow_pickle=False) as file:
                self._generator = [file[f"generator/{i:05d}"] for i in range(len(self._generator))]
            self.model._fit_has_ended = False  # for AveragedWeights: the averages go on

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Say where the epoch begins, and restore its running means if that is in its middle."""
        first = epoch == self._start[0]
        self._epoch, self._saved_step = epoch, self._start[1] if first else 0
        if first:
            self._restore_history()
        if self._data is not None:
            self._data.epoch, self._data.skipped = epoch, self._saved_step
        if self._found and first and self._start[1]:
            # Those that Keras and TrainingLogs have just set back to zero.
            _restore(self._found, self.model, ("optimizer", "metrics"))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Save within an epoch if it is time: here, all steps before this one are complete."""
        _set_generator_state(self._generator)  # what a loader of data draws between does not count
        if self._data is None or not batch:
            return
        done = self._data.skipped + batch
        if done >= self._data.steps_per_epoch:
            # The rest of an epoch is shorter than Keras expects. Left to find that out in the step
            # itself, TensorFlow would have moved the random states on already.
            raise StopIteration
        if self._is_time(done):
            self._save(self._epoch, done, self._history())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Remember where the step has left the random generator."""
        self._generator = _generator_state()

    def _is_time(self, done: int) -> bool:
        if self.every_steps and done - self._saved_step >= self.every_steps:
            return True
        age = time.monotonic() - self._saved_at
        return self._is_alone and self.every_seconds is not None and age >= self.every_seconds

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save after every so many epochs, and after the last."""
        finished = epoch + 1
        ends = finished == self.params["epochs"] or self.model.stop_training
        if finished % self.every_epochs == 0 or ends:
            history = self._history()
            history["epoch"].append(epoch)
            for name, value in (logs or {}).items():
                history["history"].setdefault(name, []).append(float(value))
            self._save(finished, 0, history)

    def on_train_end(self, logs: Any = None) -> None:
        """Restore the history also where nothing was left to train."""
        if self._start[0] >= self.params["epochs"]:
            self._restore_history()

    def _history(self) -> dict[str, Any]:
        """A copy of what Keras has recorded of the finished epochs."""
        record = self.model.history
        values = {name: list(values) for name, values in record.history.items()}
        return {"epoch": list(record.epoch), "history": values}

    def _restore_history(self) -> None:
        if self._found:
            past = self._found.about["history"]
            self.model.history.epoch = list(past["epoch"])
            values = {name: list(values) for name, values in past["history"].items()}
            self.model.history.history = values

    def _save(self, epoch: int, step: int, history: dict[str, Any]) -> None:
        groups = _variables(self.model)
        about = {
            "format": FILE_FORMAT,
            "version": FILE_VERSION,
            "epoch": epoch,
            "step": step,
            "run": self._run,
            "order_seed": self._order_seed,
            "optimizer": _optimizer_name(self.model),
            "shapes": {name: _shapes(group) for name, group in groups.items()},
            "history": history,
        }
        arrays = (
            (f"{name}/{i:05d}", ops.convert_to_numpy(variable))
            for name, group in {**groups, "generator": self._generator}.items()
            for i, variable in enumerate(group)
        )
        if self._writes:
            write_checkpoint(self.folder / f"checkpoint-{epoch:06d}-{step:08d}.npz", about, arrays)
        else:
            for _ in arrays:  # some are sums over the workers, in which this one takes part
                pass
        self._saved_at, self._saved_step = time.monotonic(), step


def _ordered(images: Any, batch_size: int, options: dict[str, Any], seed: Any) -> OrderedImages:
    """Put the images in order, and take out of the options what Keras does to arrays only."""
    for name in ("sample_weight", "class_weight"):
        if options.get(name) is not None:
            raise ValueError(
                f"{name} cannot be used together with ResumeTraining and images in an array. Put "
                "images and weights into a keras.utils.PyDataset and train on that."
            )
    images = ops.convert_to_numpy(images)
    options["shuffle"] = False
    split = options.pop("validation_split", 0.0)
    if split and options.get("validation_data") is None:
        kept = math.floor(len(images) * (1.0 - split))
        options["validation_data"] = (images[kept:],)
        images = images[:kept]
    steps = options.pop("steps_per_epoch", None)
    return OrderedImages(images, batch_size, steps, None if seed is None else tuple(seed))


def _description(model: Any, data: OrderedImages | None, shuffle: bool) -> dict[str, Any]:
    """What must be the same when a run goes on, in words that an error message can use."""
    about: dict[str, Any] = {"backend": keras.backend.backend()}
    about["parameters"] = model.diffusion_parameters.to_dict()
    if data is not None:
        shown = data.images[:: max(len(data.images) // 64, 1)]
        about["batch size"] = data.batch_size
        about["steps per epoch"] = data.steps_per_epoch
        about["shuffle"] = shuffle
        about["number and shape of the images"] = list(data.images.shape)
        about["checksum of some of the images"] = zlib.crc32(np.ascontiguousarray(shown).tobytes())
    return about


def _check_same_start(folder: Path, start: tuple[int, int], strategy: Any) -> None:
    starts = gather_from_workers(list(start), strategy)
    if any(other != starts[0] for other in starts):
        places = "; ".join(
            f"worker {i}: epoch {epoch}, step {step}" for i, (epoch, step) in enumerate(starts)
        )
        raise ValueError(
            f"The workers would go on from different places ({places}). All of them must see the "
            f"same checkpoints: put the folder ({folder} here) where every machine can read it, or "
            "copy the first worker's to the others before each start."
        )


def _check_same_run(found: Checkpoint, run: dict[str, Any]) -> None:
    before = dict(found.about["run"])
    # Parameters that were added later have a meaning in the files of before, too.
    before["parameters"] = DiffusionParameters.from_dict(before["parameters"]).to_dict()
    old, new = _flat(before), _flat(run)
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            raise ValueError(
                f"{found.path} belongs to another run: {name} was {old.get(name)!r} there and is "
                f"{new.get(name)!r} here. Go on with what it was, or choose another folder for "
                "a new run."
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with one dotted name for each value."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{name}."))
        else:
            result[prefix + name] = value
    return result


# What a run is made of ------------------------------------------------------------------------


def _variables(model: Any) -> dict[str, list[Any]]:
    """All that changes in training. The model's own include the states of its random generators."""
    return {
        "model": list(model.variables),
        "optimizer": list(model.optimizer.variables),
        "metrics": list(model.metrics_variables),
    }


def _shapes(variables: Iterable[Any]) -> list[list[Any]]:
    return [[*variable.shape, str(variable.dtype)] for variable in variables]


def _optimizer_name(model: Any) -> str:
    return type(bare_optimizer(model.optimizer)).__name__


def _check_variables(found: Checkpoint, model: Any) -> None:
    """Refuse a checkpoint of which anything does not fit, before anything is changed."""
    before, now = found.about["optimizer"], _optimizer_name(model)
    if before != now:
        raise ValueError(
            f"{found.path} belongs to another run: it was trained with the optimizer {before}, and "
            f"the model is compiled with {now}. Compile it with {before}, or choose another folder."
        )
    for name, variables in _variables(model).items():
        old, new = found.about["shapes"][name], _shapes(variables)
        if old != new:
            odd = next((pair for pair in zip(old, new, strict=False) if pair[0] != pair[1]), None)
            difference = f"one is {odd[0]} there and {odd[1]} here" if odd else "they differ"
            raise ValueError(
                f"{found.path} belongs to another run: it holds {len(old)} variables of the "
                f"{name}, and there are {len(new)} now ({difference}). Build and compile the model "
                "as before, or choose another folder."
            )


def _restore(found: Checkpoint, model: Any, names: Iterable[str]) -> None:
    groups = _variables(model)
    with np.load(found.path, allow_pickle=False) as file:
        for name in names:
            for i, variable in enumerate(groups[name]):
                variable.assign(file[f"{name}/{i:05d}"])


def _generator_state() -> list[np.ndarray]:
    """The state of PyTorch's own random generator, which its dropout draws from; elsewhere none."""
    if keras.backend.backend() != "torch":
        return []
    import torch

    on_gpu = torch.cuda.is_available()
    return [(torch.cuda.get_rng_state() if on_gpu else torch.get_rng_state()).numpy()]


def _set_generator_state(states: list[np.ndarray]) -> None:
    for state in states:
        import torch

        on_gpu = torch.cuda.is_available()
        (torch.cuda.set_rng_state if on_gpu else torch.set_rng_state)(torch.from_numpy(state))


# Checkpoints on disk --------------------------------------------------------------------------


def write_checkpoint(
    path: Path, about: Mapping[str, Any], arrays: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write a checkpoint so that it is there whole or not at all, and remove all but the last two.

    Args:
        path: the file; its folder is made if it is not there.
        about: the description, plain values.
        arrays: names and arrays, one after the other, so that a large model is not copied at once.

    Raises:
        OSError: if the disk refuses; the earlier checkpoints are still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_ABOUT, json.dumps(about))
                for name, array in arrays:
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    for old in _checkpoints(path.parent)[KEPT:]:
        old.unlink()


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk, too; where a folder can be opened, which Windows refuses."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    found = [(match, path) for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))]
    found.sort(key=lambda pair: tuple(map(int, pair[0].groups())), reverse=True)
    return [path for _, path in found]


def newest_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint | None:
    """Find the newest checkpoint that is whole; None if there is none at all.

    A damaged one is set aside (its name then ends in ``.damaged``), with a warning that names it.
    Half-written files of a process that was killed are removed.

    Raises:
        ValueError: if there are checkpoints and all are damaged, or the newest one was written by a
            later version of this package.
        NotADirectoryError: if ``folder`` is a file.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file. Give a folder for the checkpoints.")
    for leftover in folder.glob(".checkpoint-*.npz.tmp"):
        leftover.unlink()
    damaged = []
    for path in _checkpoints(folder):
        try:
            found = Checkpoint(path, _read_about(path))
        except UNREADABLE_NPZ as error:
            damaged.append((path, error))
            continue
        _set_aside(damaged, path)
        _check_version(found)
        return found
    if damaged:
        path, reason = damaged[0]
        raise ValueError(
            f"None of the checkpoints in {folder} can be read ({path.name}: {reason}). Bring one "
            "back from a copy, or choose another folder to begin anew."
        )
    return None


def _set_aside(damaged: list[tuple[Path, Any]], instead: Path) -> None:
    for path, error in damaged:
        path.rename(path.with_name(path.name + ".damaged"))
        warnings.warn(
            f"The checkpoint {path} is damaged ({error}). It is kept as {path.name}.damaged, and "
            f"training goes on from the one before it, {instead.name}.",
            stacklevel=5,
        )


def _read_about(path: Path) -> dict[str, Any]:
    """Read a checkpoint's description, after comparing every byte with its checksum."""
    with zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise ValueError(f"the checksum of {broken} is wrong")
        about = json.loads(archive.read(_ABOUT))
    if about["format"] != FILE_FORMAT:
        raise ValueError(f"it does not say that its format is {FILE_FORMAT}")
    return about


def _check_version(found: Checkpoint) -> None:
    if found.about["version"] > FILE_VERSION:
        raise ValueError(
            f"{found.path} was written by a later version of this package (its format is number "
            f"{found.about['version']}; known are those up to {FILE_VERSION}). Update "
            "diffusion_walkthrough, or choose another folder."
        )
