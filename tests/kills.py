"""Processes that save or train, killed at random moments: is what they leave whole?

Run as a script, with the project and its tests in PYTHONPATH: ``python tests/kills.py FOLDER COUNT
SEED``. Each process finds what the one before it, which was killed, has left: it must be a whole
model, the earlier one or the later one, or a run that goes on. Last line: ``N killed, N at fault``.
tests/test_kills.py asks.

TensorFlow is imported once, by the process that all others are forked from: it never computes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import keras
import numpy as np
from pocket import pocket_network, pocket_parameters
from tiny import SMALLEST_UNET

from diffusion_walkthrough import parameters
from diffusion_walkthrough.checkpoints import load_model, save_model
from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.engine.resuming import ResumeTraining
from diffusion_walkthrough.files.writing import _OURS
from diffusion_walkthrough.training import DiffusionModel

EPOCHS = 40
# How long after a process says that it begins to save or to train it may be killed, in seconds.
LATEST = {"model": 0.15, "model.keras": 0.6, "run": 1.0}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if _OURS.fullmatch(path.name)]


def save_for_ever(place: Path, begin) -> None:
    """Save models of which all numbers are the same, one more each time."""
    training = parameters.TrainingParameters(warmup_steps=0, batch_size=4, ema_momentum=None)
    schedule = parameters.ScheduleParameters(timesteps=10)
    model = DiffusionModel(
        parameters.DiffusionParameters(schedule, SMALLEST_UNET, training), seed=0
    )
    model.compile()
    model.optimizer.build(model.trainable_variables)
    number = 0
    if any(place.parent.iterdir()):
        found = load_model(place)
        numbers = np.concatenate([weight.ravel() for weight in found.get_weights()])
        assert (numbers == numbers[0]).all(), "a model that is half the earlier and half the later"
        number = int(numbers[0])
    for k in range(number + 1, 10**9):
        model.network.set_weights([np.full(w.shape, k, "f4") for w in model.network.get_weights()])
        save_model(model, place, overwrite=True)
        assert [path.name for path in place.parent.iterdir()] == [place.name]
        if k == number + 1:
            begin()


def train(folder: Path, begin) -> None:
    """Train a run to its end, and keep what it has come to; or go on with it."""
    rules = pocket_parameters(batch_size=16, ema_momentum=0.9, warmup_steps=2)
    keras.utils.set_random_seed(0)
    model = DiffusionModel(rules, seed=3, network=pocket_network(rules))
    model.compile()
    started = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: begin())
    callbacks = [ResumeTraining(folder / "kept"), started]
    history = model.fit(
        load_images("digits")[0][:64], epochs=EPOCHS, verbose=0, callbacks=callbacks
    )
    assert leftovers(folder) == []
    np.savez(folder / "result.npz", *model.get_weights(), loss=history.history["loss"])


def forked(work, *arguments) -> tuple[int, int]:
    """Run a function in a process of its own; return its number, and a pipe that it writes to."""
    ours, its = os.pipe()
    process = os.fork()
    if process:
        os.close(its)
        return process, ours
    os.close(ours)
    told = []

    def begin() -> None:
        if not told:
            told.append(os.write(its, b"b"))

    try:
        work(*arguments, begin)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(process: int, pipe: int, seconds: float) -> int | None:
    """Kill a process so many seconds after it has begun; None if it did not end by itself."""
    os.read(pipe, 1)  # empty, if it ends before
    os.close(pipe)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.WEXITSTATUS(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def same(result: Path, other: Path) -> bool:
    with np.load(result) as found, np.load(other) as expected:
        return found.files == expected.files and all(
            (found[name] == expected[name]).all() for name in found.files
        )


def kill_all(folder: Path, count: int, rng: random.Random) -> int:
    """Kill so many processes in turn; return how often what they left was at fault."""
    faults = killed = runs = 0
    (folder / "undisturbed").mkdir()
    process, pipe = forked(train, folder / "undisturbed")
    os.waitpid(process, 0)
    os.close(pipe)
    for name in ("model", "model.keras"):
        (folder / name).mkdir()
    while killed < count:
        name = list(LATEST)[killed % len(LATEST)]
        place = folder / name / name
        if name == "run":
            place = folder / f"run {runs}"
            place.mkdir(exist_ok=True)
        work = train if name == "run" else save_for_ever
        code = ended(*forked(work, place), rng.uniform(0, LATEST[name]))
        killed += code is None
        faults += bool(code)
        if faults > count:
            break  # nothing gets as far as to be killed
        if name == "run" and code is not None:
            runs += 1
            faults += not same(place / "result.npz", folder / "undisturbed" / "result.npz")
    for name in ("model", "model.keras"):  # what the last ones left
        faults += bool(ended(*forked(save_once, folder / name / name), 60))
    return faults


def save_once(place: Path, begin) -> None:
    def end() -> None:
        os._exit(0)

    save_for_ever(place, end)


def main() -> int:
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    faults = kill_all(folder, count, random.Random(seed))
    print(f"{count} killed, {faults} at fault", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
