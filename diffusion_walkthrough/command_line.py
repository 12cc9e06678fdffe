"""A long run without a notebook: ``python -m diffusion_walkthrough train|sample|evaluate|plan``.

Each command is a few lines that call what the chapters teach. ``train`` writes all it knows into
one folder as it goes, and goes on where it stopped when the same line runs again.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import io
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_walkthrough.checks import did_you_mean
from diffusion_walkthrough.data import DATA_SET_NAMES, load_images, to_uint8
from diffusion_walkthrough.files.writing import whole_file, write_whole
from diffusion_walkthrough.parameters import PRECISION_NAMES, DiffusionParameters, load_parameters

PRESETS = ("digits", "mnist", "cifar10", "celeba_hq_256", "faces")
SAMPLERS, SPACINGS = ("ddpm", "ddim", "dpm++2m", "heun"), ("even", "log_snr", "karras")
CHECKPOINTS, MODEL, HISTORY, PICTURES = "checkpoints", "model", "history.csv", "pictures"

#: More images than these make precision and coverage slow, and hardly more exact.
MOST_COMPARED = 10_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: the words after the program's name; None takes those of this process.

    Returns:
        The exit code: 0, 2 for an error, which is told in one line, or 130 after Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that a terminal cannot show ends no run
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except KeyboardInterrupt:
        print(f"\nInterrupted. {options.after_interruption}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ArithmeticError, RuntimeError) as error:
        if options.traceback:
            raise
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


# The commands ---------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> None:
    """Train a model, with checkpoints, history and pictures in ``options.folder``."""
    import keras

    from diffusion_walkthrough.checkpoints import save_model
    from diffusion_walkthrough.engine.callbacks import RunProgress
    from diffusion_walkthrough.engine.resuming import ResumeTraining
    from diffusion_walkthrough.training import DiffusionModel

    parameters = _parameters(options)
    images = _images(options, parameters, "train")
    folder = Path(options.folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(options.seed)
    model = DiffusionModel(parameters, seed=options.seed)
    model.compile()
    steps = options.steps_per_epoch or math.ceil(len(images) / parameters.training.batch_size)
    short = steps <= 20
    callbacks = [
        ResumeTraining(folder / CHECKPOINTS),
        _history_file(model, folder / HISTORY),
        _pictures(model, folder, options.pictures_every),
        *([RunProgress()] if short and not options.quiet else []),
    ]
    verbose = 0 if options.quiet or short else 1
    lengths = {"epochs": options.epochs, "steps_per_epoch": options.steps_per_epoch}
    history = model.fit(images, verbose=verbose, callbacks=callbacks, **lengths)
    save_model(model, folder / MODEL, overwrite=True)
    epochs, loss = len(history.epoch), history.history["loss"][-1]
    print(f"{epochs} epochs, loss {loss:.4f}. The model is in {folder / MODEL}")
    if history.params is None:  # nobody has trained
        print(f"This run had ended already. {_how_to_go_on(parameters, epochs)}")


def sample(options: argparse.Namespace) -> None:
    """Draw images with a trained model into a picture or an ``.npz``."""
    import keras

    from diffusion_walkthrough.checkpoints import load_model

    out = Path(options.out).expanduser()
    if out.exists() and not options.overwrite:
        raise FileExistsError(f"{out} exists and stays as it is. Add --overwrite to replace it.")
    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out {out} must end in .png (one picture of all) or .npz (an array).")
    model = load_model(options.model)
    bar = None if options.quiet else keras.utils.Progbar(options.n, unit_name="image")
    batches = _drawn(model, options.n, options, bar)
    if out.suffix == ".png":
        _write_grid(out, np.concatenate(list(batches)))
    else:
        shape = (options.n, *model.diffusion_parameters.unet.image_shape)
        _write_npz(out, shape, batches)
    print(f"{options.n} images in {out}")


def evaluate(options: argparse.Namespace) -> None:
    """Measure a trained model against images that it has not seen."""
    import keras

    from diffusion_walkthrough.checkpoints import load_model
    from diffusion_walkthrough.evaluation import density_coverage, precision_recall
    from diffusion_walkthrough.loss import bits_per_dim

    keras.utils.set_random_seed(options.seed)  # the noise that the loss asks about
    model = load_model(options.model)
    parameters = model.diffusion_parameters
    training = _images(options, parameters, "train")
    held_out = _images(options, parameters, "test")[: options.n]
    model.compile()
    loss = model.evaluate(held_out, batch_size=options.batch_size, verbose=0)
    print(f"loss of {len(held_out)} held-out images: {loss:.4f}")
    drawn = np.concatenate(list(_drawn(model, len(held_out), options, None)))
    real = training[:MOST_COMPARED]
    for name, images in {"drawn": drawn, "held-out": held_out}.items():
        precision, coverage = precision_recall(real, images)[0], density_coverage(real, images)[1]
        print(f"{len(images)} {name} images: precision {precision:.3f}, coverage {coverage:.3f}")
    if options.bits_per_dim:
        progress, levels = not options.quiet, parameters.pixel_levels
        how = {"batch_size": options.batch_size, "progress": progress, "seed": options.seed}
        bound = bits_per_dim(model.denoise, model.schedule, held_out, levels=levels, **how)
        bits = bound.total.mean()
        print(f"bits per dimension of {len(held_out)} held-out images: {bits:.3f} at most")


def plan(options: argparse.Namespace) -> None:
    """Say what a training run needs, before it begins."""
    from diffusion_walkthrough.planner.plan import plan as plan_run

    print(plan_run(_parameters(options), device=options.device, images=options.images))


# What they share ------------------------------------------------------------------------------


def _how_to_go_on(parameters: DiffusionParameters, epochs: int) -> str:
    if parameters.training.decay_steps is None:
        return f"For a longer one, add --epochs with more than {epochs}."
    return (
        "Its learning rate falls to 0 over decay_steps: a longer one needs a file of parameters "
        "with more decay_steps, and another --folder."
    )


def _parameters(options: argparse.Namespace) -> DiffusionParameters:
    """A preset or a file, with what the command line changes of it."""
    if options.parameters in PRESETS:
        parameters = getattr(DiffusionParameters, options.parameters)()
    elif Path(options.parameters).suffix:
        parameters = load_parameters(options.parameters)
    else:
        guess = did_you_mean(options.parameters, PRESETS, "Or is it a .json file?")
        raise ValueError(
            f"--parameters {options.parameters} is none of {', '.join(PRESETS)}, and a file of "
            f"parameters ends in .json or .pkl. {guess}"
        )
    wanted = {"batch_size": options.batch_size, "precision": options.precision}
    changes = {name: value for name, value in wanted.items() if value is not None}
    training = dataclasses.replace(parameters.training, **changes)
    return dataclasses.replace(parameters, training=training)


def _images(options: argparse.Namespace, parameters: DiffusionParameters, split: str) -> np.ndarray:
    """The images of one split, in the size of the network."""
    shape = parameters.unet.image_shape
    known = {
        (8, 8, 1): "digits",
        (16, 16, 3): "faces",
        (28, 28, 1): "mnist",
        (32, 32, 3): "cifar10",
    }
    name = options.data or known.get(shape)
    if name is None:
        raise ValueError(
            f"no data set of images of shape {shape} is known by name. Say where they are: --data "
            "with a folder or an .npz file."
        )
    held_out = getattr(options, "held_out", None)
    if split == "test" and held_out:
        name, split = held_out, "train"
    size = None if name in DATA_SET_NAMES else parameters.unet.image_size
    return load_images(name, image_size=size, split=split)[0]


def _drawn(model: Any, n: int, options: argparse.Namespace, bar: Any) -> Iterator[np.ndarray]:
    """Draw batch after batch, so that memory is bounded by one batch."""
    import keras

    seed = keras.random.SeedGenerator(options.seed)
    words = ("sampler", "steps", "spacing", "sigma_max", "eta")
    given = {word: value for word in words if (value := getattr(options, word)) is not None}
    step = given.pop("sampler", "ddpm")
    for start in range(0, n, options.batch_size):
        size = min(options.batch_size, n - start)
        yield model.sample(size, seed=seed, step=step, **given)
        if bar:
            bar.add(size)


def _write_grid(path: Path, images: np.ndarray) -> None:
    """Write images as one picture, small ones enlarged."""
    from diffusion_walkthrough.classroom.plots import tile, to_png

    columns = math.ceil(math.sqrt(len(images)))
    scale = max(1, 48 // images.shape[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, to_png(tile(images, columns=columns, scale=scale)))


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


def _history_file(model: Any, path: Path) -> Any:
    """A callback that writes the history of all epochs, also those before an interruption."""
    import keras

    def write(epoch: int, logs: dict[str, float]) -> None:
        past = model.history  # of the epochs before this one
        columns = [[name, *past.history.get(name, []), value] for name, value in logs.items()]
        numbers = ["epoch", *(finished + 1 for finished in [*past.epoch, epoch])]
        text = io.StringIO()
        csv.writer(text).writerows(zip(numbers, *columns, strict=True))
        with _going_on_without():
            write_whole(path, text.getvalue().encode())

    return keras.callbacks.LambdaCallback(on_epoch_end=write)


@contextlib.contextmanager
def _going_on_without() -> Iterator[None]:
    """Warn of a file that could not be written on the way: the next time may go better."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{error} Training goes on without that.", stacklevel=3)


def _pictures(model: Any, folder: Path, every: int) -> Any:
    """A callback that draws a few images now and then, and saves the model that drew them."""
    from diffusion_walkthrough.checkpoints import save_model
    from diffusion_walkthrough.engine.callbacks import SampleHistory

    def show(epochs: int, images: np.ndarray) -> None:
        with _going_on_without():
            _write_grid(folder / PICTURES / f"epoch-{epochs:06d}.png", images)
        if epochs:
            with _going_on_without():
                save_model(model, folder / MODEL, overwrite=True)

    return SampleHistory(every=every, show=show)


# The words of the command line ----------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffusion_walkthrough",
        description="Train diffusion models, draw images with them, and measure them.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _train_words(_added(commands, train, "--parameters digits --folder run"))
    _sample_words(_added(commands, sample, "--model digits -n 64 --out digits.png"))
    _evaluate_words(_added(commands, evaluate, "--model digits --bits-per-dim"))
    _plan_words(_added(commands, plan, "--parameters cifar10 --device 'RTX 2060 SUPER'"))
    return parser


def _added(commands: Any, command: Any, example: str) -> argparse.ArgumentParser:
    about = (command.__doc__ or "").splitlines()[0].replace("``options.folder``", "one folder")
    example = f"example: python -m diffusion_walkthrough {command.__name__} {example}"
    added = commands.add_parser(command.__name__, help=about, description=about, epilog=example)
    added.add_argument("--traceback", action="store_true", help="show where an error arose")
    added.set_defaults(command=command, after_interruption="Nothing was written.")
    return added


def _count(text: str) -> int:
    """A number of things, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number of at least 1")
    return int(text)


def _train_words(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_parameters(parser)
    _add_data(parser)
    add("--folder", required=True, help="where all of this run is written")
    add("--epochs", type=_count, help="default: the run that the parameters plan")
    add("--seed", type=int, default=0, help="default: %(default)s")
    steps = "how long an epoch is; a checkpoint is saved after each (default: all images once)"
    add("--steps-per-epoch", type=_count, metavar="N", help=steps)
    pictures = "draw a few images after so many epochs (%(default)s)"
    add("--pictures-every", type=_count, default=10, metavar="EPOCHS", help=pictures)
    add("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(after_interruption="The same line goes on from the last checkpoint.")


def _sample_words(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_model(parser)
    add("-n", "--n", type=_count, default=64, help="how many images (%(default)s)")
    add("--out", required=True, help="a .png, one picture of all, or an .npz")
    add("--overwrite", action="store_true", help="replace a file that is there")
    _add_sampler(parser)


def _evaluate_words(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_model(parser)
    _add_data(parser)
    add("--held-out", help="held-out images, if they are not a split of --data")
    add("-n", "--n", type=_count, default=1000, help="how many at most (%(default)s)")
    add("--bits-per-dim", action="store_true", help="also the variational bound")
    _add_sampler(parser)


def _plan_words(parser: argparse.ArgumentParser) -> None:
    _add_parameters(parser)
    parser.add_argument("--device", default="this machine", help="default: %(default)s")
    parser.add_argument("--images", type=_count, default=50_000, help="an epoch's, %(default)s")


def _add_parameters(parser: argparse.ArgumentParser) -> None:
    presets = f"a file of parameters, or one of {', '.join(PRESETS)}"
    parser.add_argument("--parameters", required=True, help=presets)
    parser.add_argument("--batch-size", type=_count, help="images a step")
    parser.add_argument("--precision", choices=PRECISION_NAMES, help="of the network")


def _add_data(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(DATA_SET_NAMES)
    parser.add_argument("--data", help=f"a folder of pictures, an .npz file, or one of {names}")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="a saved model, or one that ships by name")
    parser.add_argument("--batch-size", type=_count, default=64, help="at a time (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_sampler(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sampler", help=f"how to step back: {', '.join(SAMPLERS)} (ddpm)")
    add("--steps", type=_count, help="how many steps back (default: all of the schedule)")
    add("--spacing", help=f"where they lie: {', '.join(SPACINGS)} (even)")
    add("--sigma-max", type=float, help="noise to begin with, such as 80 (default: all there is)")
    add("--eta", type=float, help="how much of the noise is new in each step of ddim, 0 to 1 (0)")
