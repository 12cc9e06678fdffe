"""The commands, each a few lines that call what the chapters teach.

A command checks its line, works, prints what a person wants to know, and returns what a program
does. ``train`` writes all it knows into one folder as it goes, and goes on where it stopped when
the same line runs again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_walkthrough.classroom.lesson import devices, start
from diffusion_walkthrough.command_line import checking, places, watching
from diffusion_walkthrough.command_line.words import PROGRAM
from diffusion_walkthrough.data import to_uint8
from diffusion_walkthrough.files import folders
from diffusion_walkthrough.files.writing import whole_file
from diffusion_walkthrough.parameters import save_parameters

#: More images than these make precision and coverage slow, and hardly more exact.
MOST_COMPARED = 10_000

Answer = dict[str, Any]


def train(options: argparse.Namespace) -> Answer:
    """Train a model, with checkpoints, history and pictures in one folder."""
    run = checking.run(options)
    print(_about(run))
    start(options.seed)
    print(f"On {devices()}.", flush=True)

    from diffusion_walkthrough.checkpoints import save_model
    from diffusion_walkthrough.engine.resuming import ResumeTraining
    from diffusion_walkthrough.training import DiffusionModel

    run.folder.mkdir(parents=True, exist_ok=True)
    model = DiffusionModel(run.parameters, seed=options.seed)
    model.compile()
    place = run.folder / folders.MODEL

    def save() -> Path:
        return save_model(model, place, overwrite=True)

    verbose, shown = watching.progress(run.epochs, run.steps, options.quiet)
    pictures = run.folder / places.PICTURES
    callbacks = [
        ResumeTraining(folders.resume_folder(run.folder)),
        watching.history_file(model, run.folder / places.HISTORY),
        watching.pictures(model, pictures, save, options.pictures_every),
        *shown,
    ]
    lengths = {"epochs": run.epochs, "steps_per_epoch": options.steps_per_epoch}
    with _told_if_moved(run.folder):
        history = model.fit(run.images, run.labels, verbose=verbose, callbacks=callbacks, **lengths)
        save()
    ended_before = history.params is None  # nobody has trained
    return _ended(run, history.history["loss"], ended_before)


def sample(options: argparse.Namespace) -> Answer:
    """Draw images with a trained model into a picture or an .npz."""
    out = places.output(options, {".png": "one picture of all", ".npz": "an array"})
    place = places.model_place(options.model)
    parameters = places.parameters_of_model(place)
    way, shape = checking.way_back(options, parameters), parameters.unet.image_shape
    way |= checking.told(options, parameters)
    if out.suffix.lower() == ".png":
        checking.check_picture(options.n, shape, watching.scale_of(shape))
    else:
        checking.check_room(out, options.n * math.prod(shape))
    start(options.seed)

    from diffusion_walkthrough.checkpoints import load_model

    model = load_model(place)
    batches = _drawn(model, options.n, options, way)
    if out.suffix.lower() == ".png":
        watching.write_grid(out, np.concatenate(list(batches)))
    else:
        _write_npz(out, (options.n, *shape), batches)
    print(f"{_several(options.n, 'image')} in {out}")
    return {"out": str(out), "model": str(place), "images": options.n, "seed": options.seed}


def evaluate(options: argparse.Namespace) -> Answer:
    """Measure a trained model against images that it has not seen."""
    place, data, training, held_out, labels, way = checking.comparison(options)
    start(options.seed)  # also of the noise that the loss asks about

    from diffusion_walkthrough.checkpoints import load_model

    model = load_model(place)
    model.compile()
    loss = float(model.evaluate(held_out, labels, batch_size=options.batch_size, verbose=0))
    print(f"loss of {len(held_out)} held-out images: {loss:.4f}", flush=True)
    answer: Answer = {"model": str(place), "data": data, "images": len(held_out), "loss": loss}
    drawn = np.concatenate(list(_drawn(model, len(held_out), options, way)))
    for name, images in {"drawn": drawn, "held-out": held_out}.items():
        marks = _marks(training[:MOST_COMPARED], images)
        answer[name.replace("-", "_")] = marks
        told = ", ".join(f"{mark} {value:.3f}" for mark, value in marks.items())
        print(f"{len(images)} {name} images: {told}", flush=True)
    if options.bits_per_dim:
        bits = _bits(model, held_out, labels, options)
        answer["bits_per_dim"] = bits
        print(f"bits per dimension of {len(held_out)} held-out images: {bits:.3f} at most")
    return answer


def plan(options: argparse.Namespace) -> Answer:
    """Say what a training run needs, before it begins."""
    parameters = checking.parameters_of(options)
    start()

    from diffusion_walkthrough.planner.plan import plan as plan_run

    planned = plan_run(parameters, device=options.device, images=options.images)
    print(planned)
    names = ("parameters", "operations_per_step", "operations_per_epoch", "seconds_per_step")
    return {
        "device": planned.machine.name,
        "fits": planned.fits,
        **{name: getattr(planned, name) for name in (*names, "seconds_per_epoch")},
        "memory": {**dataclasses.asdict(planned.memory), "total": planned.memory.total},
        "memory_of_device": planned.machine.memory,
        "remedies": [remedy.words for remedy in planned.remedies],
    }


def params(options: argparse.Namespace) -> Answer:
    """Write a first file of parameters, to be read and changed, or show them."""
    out = options.out
    if out is not None:
        out = places.output(options, {".json": "to be read", ".pkl": "a pickle"})
    parameters = checking.first_parameters(options)
    if out is None:
        print(parameters)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        save_parameters(parameters, out, overwrite=options.overwrite)
        data = f" --data {shlex.quote(options.data)}" if options.data else ""
        print(f"The parameters are in {out}. To train with them:")
        print(f"{PROGRAM} train --parameters {shlex.quote(str(out))}{data} --folder run")
    return {"out": None if out is None else str(out), "parameters": parameters.to_dict()}


# What they share ------------------------------------------------------------------------------


def _several(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _about(run: checking.Run) -> str:
    """What is about to happen."""
    height, width, channels = run.images.shape[1:]
    kind = "grey" if channels == 1 else "in colour" if channels == 3 else f"of {channels} channels"
    images = f"{len(run.images)} images of {run.data}, {height}x{width}, {kind}"
    length = f"{_several(run.epochs, 'epoch')} of {_several(run.steps, 'step')}"
    begun = f" {run.done} of them are done." if 0 < run.done < run.epochs else ""
    return f"{images}. {length}, all in {run.folder}.{begun}"


@contextlib.contextmanager
def _told_if_moved(folder: Path) -> Iterator[None]:
    """Say of a run's folder that is there no more what has become of it, and how to go on."""
    try:
        yield
    except FileNotFoundError as error:
        if folder.exists():
            raise
        raise OSError(
            f"--folder {folder} has gone since training began: it was moved or removed. Move it "
            "back and run the same line again, or run it with its new --folder: it goes on from "
            "the last checkpoint."
        ) from error


def _ended(run: checking.Run, losses: list[float], ended_before: bool) -> Answer:
    """Say how a run has ended, and what to do next."""
    epochs, place = len(losses), run.folder / folders.MODEL
    print("This run had ended already." if ended_before else "The run has ended.")
    print(f"{_several(epochs, 'epoch')}, loss {losses[-1]:.4f}. The model is in {place}")
    print(_what_next(run, epochs))
    return {
        "folder": str(run.folder),
        "model": str(place),
        "data": run.data,
        "images": len(run.images),
        "epochs": epochs,
        "steps_per_epoch": run.steps,
        "loss": losses[-1],
        "ended_already": ended_before,
    }


def _what_next(run: checking.Run, epochs: int) -> str:
    """How to draw with the model, and how to make the run longer."""
    drawn = shlex.quote(str(run.folder / "drawn.png"))
    draw = f"To draw: {PROGRAM} sample --model {shlex.quote(str(run.folder))} --out {drawn}"
    decay, line = run.parameters.training.decay_steps, "For a longer run: the same line with"
    if decay is None:
        return f"{draw}\n{line} --epochs and more than {epochs}."
    planned = checking.planned_epochs(run.parameters, run.steps)
    if epochs < planned:
        return f"{draw}\n{line} --epochs and up to {planned}, when the learning rate is 0."
    change = f"--set decay_steps={2 * decay}"
    return f"{draw}\nIts learning rate is 0. {line} {change}, say, and another --folder."


def _marks(real: np.ndarray, images: np.ndarray) -> dict[str, float]:
    from diffusion_walkthrough.evaluation import density_coverage, precision_recall

    precision, coverage = precision_recall(real, images)[0], density_coverage(real, images)[1]
    return {"precision": float(precision), "coverage": float(coverage)}


def _bits(
    model: Any, images: np.ndarray, labels: np.ndarray | None, options: argparse.Namespace
) -> float:
    from diffusion_walkthrough.loss import bits_per_dim

    levels = model.diffusion_parameters.pixel_levels
    progress = not options.quiet and watching.shows_bars()
    how = {"batch_size": options.batch_size, "progress": progress, "seed": options.seed}
    how["labels"] = labels
    bound = bits_per_dim(model.denoise, model.schedule, images, levels=levels, **how)
    return float(bound.total.mean())


def _drawn(
    model: Any, n: int, options: argparse.Namespace, way: dict[str, Any]
) -> Iterator[np.ndarray]:
    """Draw some at a time: the images that ``model.sample`` draws, whatever the size of a batch."""
    add = watching.counter(n, "image", options.quiet)
    for part in model.drawn(n, options.seed, batch_size=options.batch_size, **way):
        yield part
        add(len(part))


def _write_npz(path: Path, shape: tuple[int, ...], batches: Iterator[np.ndarray]) -> None:
    """Write ``images``, uint8, batch after batch; the file appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with (
        whole_file(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open("images.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        for batch in batches:
            member.write(to_uint8(batch).tobytes())
