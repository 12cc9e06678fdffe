"""What a line of words names: looked up and checked before anything is begun.

Files, folders, models and the way back are looked at here without TensorFlow, whose import takes
seconds. What is wrong is said in the language of the command line, with the option to change.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_walkthrough.checks import did_you_mean
from diffusion_walkthrough.classroom.lesson import start
from diffusion_walkthrough.command_line.places import (
    begun,
    check_same,
    leaves,
    model_place,
    parameters_of_model,
    path_of,
    run_folder,
)
from diffusion_walkthrough.command_line.words import DATA_SETS, PRESETS, PROGRAM
from diffusion_walkthrough.data import FOLDER_SIDE, NO_LABEL, load_images
from diffusion_walkthrough.files import UNREADABLE_NPZ
from diffusion_walkthrough.files.archives import array_names, opened_archive
from diffusion_walkthrough.files.pictures import class_names
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, load_parameters

#: The training images of the data sets that are known by name: number, height, width, channels.
SIZES = {
    "digits": (1500, 8, 8, 1),
    "faces": (10_000, 16, 16, 3),
    "mnist": (60_000, 28, 28, 1),
    "cifar10": (50_000, 32, 32, 3),
    "fashion_mnist": (60_000, 28, 28, 1),
}

#: Those that Keras downloads.
THROUGH_KERAS = ("mnist", "fashion_mnist", "cifar10")

#: Precision and coverage need more images than the neighbours that they look at.
FEWEST_COMPARED = 6

#: Of the noise that a restart begins with, as in ``faster_sampling``.
RESTART_SIGMA = 0.4

#: Where the steps of a walk may lie between those of the schedule, as in ``faster_sampling``.
MOST_STEPS = 10_000

#: A picture of more pixels than these is hard to open.
MOST_PIXELS = 2**26


class Run(NamedTuple):
    """A run of training as the line asks for it, ready to begin or to go on.

    Attributes:
        folder: where all of it is written.
        parameters: what defines the model, with the changes of the line.
        data: the name of the data set, or the path of the images.
        images: to train on.
        labels: of each, for a network that is told them, or None.
        steps: how many an epoch has.
        epochs: how many there will be in all.
        done: how many there are already.
    """

    folder: Path
    parameters: DiffusionParameters
    data: str
    images: np.ndarray
    labels: np.ndarray | None
    steps: int
    epochs: int
    done: int


class Comparison(NamedTuple):
    """A trained model and what it is measured with.

    Attributes:
        place: where the model is.
        data: the name of the data set, or the path of the images, that it was trained on.
        training: those images.
        held_out: others.
        labels: of those, for a network that is told them, or None.
        way: the options of ``model.sample``.
    """

    place: Path
    data: str
    training: np.ndarray
    held_out: np.ndarray
    labels: np.ndarray | None
    way: dict[str, Any]


def run(options: argparse.Namespace) -> Run:
    """Check a line that trains; raises ValueError, TypeError or OSError for what cannot be."""
    parameters = parameters_of(options)
    data = data_of(options.data, parameters)
    folder = run_folder(options.folder)
    before = begun(folder)
    if before is not None:
        check_same(folder, leaves(before.parameters), leaves(parameters))
        check_same(folder, before.others, {"seed": options.seed})
    loaded = None if data in SIZES else labelled(data, parameters, "train")
    size = SIZES[data] if loaded is None else loaded[0].shape
    training = parameters.training
    in_part = training.batch_size // training.gradient_accumulation_steps
    steps = options.steps_per_epoch or math.ceil(size[0] / in_part)
    if before is not None:
        now = {"number and shape of the images": [*size], "steps per epoch": steps}
        check_same(folder, before.others, now)
    epochs = _epochs(options.epochs, parameters, steps)
    images, labels = loaded or labelled(data, parameters, "train")
    done = before.epochs if before else 0
    return Run(folder, parameters, data, images, labels, steps, epochs, done)


def comparison(options: argparse.Namespace) -> Comparison:
    """Check a line that measures; raises ValueError, TypeError or OSError for what cannot be."""
    place = model_place(options.model)
    parameters = parameters_of_model(place)
    way = way_back(options, parameters)
    _check_enough(options.n, "Ask for more: -n")
    data = data_of(options.data, parameters)
    others, split = held_out_of(options, data)
    if parameters.unet.labels:
        _check_classes(data, others)
    training = labelled(data, parameters, "train")[0]
    held_out, labels = labelled(others, parameters, split)
    held_out, labels = held_out[: options.n], None if labels is None else labels[: options.n]
    _check_enough(min(len(held_out), len(training)), "Add images to --data or --held-out")
    if labels is not None:
        way["labels"] = labels
    return Comparison(place, data, training, held_out, labels, way)


# Parameters -----------------------------------------------------------------------------------


def parameters_of(options: argparse.Namespace) -> DiffusionParameters:
    """A preset, a file, or those of a run, with what the line changes of them."""
    given = options.parameters
    path = path_of("--parameters", given)
    if given in PRESETS:
        parameters = getattr(DiffusionParameters, given)()
    elif path.is_dir():
        parameters = parameters_of_model(model_place(given, "--parameters"))
    elif path.suffix and path.exists():
        parameters = load_parameters(path)
    else:
        guess = did_you_mean(path.stem, PRESETS)
        raise ValueError(
            f"--parameters {given} is none of {', '.join(PRESETS)}, nor a file (.json or .pkl) "
            f"that is there. {guess or f'`{PROGRAM} params --out my.json` writes a first one.'}"
        )
    return _as_the_line_has_it(parameters, options)


def changed(parameters: DiffusionParameters, changes: list[tuple[str, Any]]) -> DiffusionParameters:
    """The parameters with others in the place of some, which are named with or without their part.

    Raises ValueError for an unknown name, with the nearest known one, and as the parameters do.
    """
    values = dataclasses.asdict(parameters)
    places = {name: values for name in values if not isinstance(values[name], dict)}
    for part in values.values():
        places |= dict.fromkeys(part, part) if isinstance(part, dict) else {}
    for name, value in changes:
        part, _, bare = name.rpartition(".")
        if bare not in places or (part and values.get(part) is not places[bare]):
            guess = did_you_mean(bare, places, f"They are {', '.join(places)}.")
            raise ValueError(f"--set {name}={value}: there is no parameter {name!r}. {guess}")
        places[bare][bare] = value
    return DiffusionParameters.from_dict(values)


def first_parameters(options: argparse.Namespace) -> DiffusionParameters:
    """The parameters to begin with: those named, or those that fit the data."""
    if options.data is None:
        if options.image_size is not None:
            raise ValueError("--image-size is the size of the images of --data. Name them, too.")
        options.parameters = options.parameters or "digits"
        return parameters_of(options)
    if options.parameters is not None:
        raise ValueError(
            "--parameters and --data both say what to begin with. Leave one of them out: what fits "
            "the data can be changed with --set."
        )
    parameters = DiffusionParameters.for_data(options.data, _shape_of(options))
    return _as_the_line_has_it(parameters, options)


def _as_the_line_has_it(
    parameters: DiffusionParameters, options: argparse.Namespace
) -> DiffusionParameters:
    wanted = {"batch_size": options.batch_size, "precision": options.precision}
    given = [(name, value) for name, value in wanted.items() if value is not None]
    return changed(parameters, [*options.set, *given])


def _shape_of(options: argparse.Namespace) -> tuple[int, ...]:
    """Height, width and channels of the images of --data, as a network can take them."""
    data, size = options.data, options.image_size
    check_data("--data", data)
    if data in SIZES and size is None:
        return SIZES[data][1:]
    if size is None and path_of("--data", data).is_dir():
        size = FOLDER_SIDE
    shape = load_images(data, image_size=size)[0].shape[1:]
    if shape[0] != shape[1] or shape[0] % 2:
        raise ValueError(
            f"the images of {data} would be {shape[0]} pixels high and {shape[1]} wide, and a "
            "network takes squares of an even side. Resize them: --image-size 32."
        )
    return shape


# Data -----------------------------------------------------------------------------------------


def data_of(given: str | None, parameters: DiffusionParameters) -> str:
    """Where the images are: where the line says, or in the data set that fits the network."""
    shape = parameters.unet.image_shape
    if given is None:
        fitting = [name for name, size in SIZES.items() if size[1:] == shape]
        if not fitting:
            raise ValueError(
                f"no data set of images of shape {shape} is known by name. Say where they are: "
                "--data with a folder or an .npz file."
            )
        return fitting[0]
    check_data("--data", given)
    if given in SIZES:
        _check_shape(given, SIZES[given][1:], shape)
    return given


def held_out_of(options: argparse.Namespace, data: str) -> tuple[str, str]:
    """Where the held-out images are: a name or path, and the split."""
    if options.held_out is None:
        if not _has_split(data, "test"):
            raise ValueError(
                f"--data {data} has no held-out images of its own, only some to train on. Name a "
                "folder or an .npz file of others: --held-out FOLDER."
            )
        return data, "test"
    check_data("--held-out", options.held_out)
    split = "test" if _has_split(options.held_out, "test") else "train"
    both = [path_of("--data", name).resolve() for name in (options.held_out, data)]
    if split == "train" and both[0] == both[1]:
        raise ValueError(
            f"--held-out {options.held_out} is what --data names: a model that copies it would "
            "look perfect. Name images that the model has not seen."
        )
    return options.held_out, split


def check_data(word: str, given: str) -> None:
    """Raise ValueError unless there is something of that name, and it can hold images."""
    path = path_of(word, given)
    if given in DATA_SETS or path.is_dir() or (path.is_file() and path.suffix.lower() == ".npz"):
        return
    fault = "is neither a folder of pictures nor an .npz file"
    if not path.exists():
        fault = f"is neither a data set ({', '.join(DATA_SETS)}), nor a file or folder that is here"
    guess = did_you_mean(given, DATA_SETS, f"Check the path; the current folder is {Path.cwd()}.")
    raise ValueError(f"{word} {given} {fault}. {guess}")


def labelled(
    data: str, parameters: DiffusionParameters, split: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of one split, in the size of the network, and what it is told of them, if any.

    Raises ValueError if the data do not know the labels that it is told.
    """
    shape, described = parameters.unet.image_shape, parameters.unet.labels
    names = [name for name, _ in described]
    if data != "faces" and len(names) > 1:
        raise ValueError(
            f"the network is told {', '.join(names)} of each image, and {data} has one label for "
            "each. Change the parameters to one: --set \"labels={'class': 10}\"."
        )
    size = None if data in DATA_SETS else parameters.unet.image_size
    if data in THROUGH_KERAS:
        start()  # quietly
    chosen = names if data == "faces" and names else None
    images, labels = load_images(data, image_size=size, split=split, attributes=chosen)
    _check_shape(data, images.shape[1:], shape)
    if not names:
        return images, None
    if labels.max() == NO_LABEL:
        raise ValueError(
            f"the network is told {', '.join(names)} of each image, and {data} has no labels for "
            f"them. {_way_to_label(data, split)}."
        )
    _check_labels(data, labels, described)
    return images, labels


def _way_to_label(data: str, split: str) -> str:
    """How images that have no labels get some."""
    if path_of("--data", data).is_dir():
        return "Put the pictures into a folder for each class"
    return (
        f"Put {f'y_{split}' if _has_split(data, split) else 'labels'} into the .npz, one for each"
    )


def _check_labels(data: str, labels: np.ndarray, described: tuple[tuple[str, int], ...]) -> None:
    """Raise ValueError for a label that the network is not told of."""
    columns = labels.reshape(len(labels), -1).T
    for (name, count), values in zip(described, columns, strict=True):
        wrong = values[(values < NO_LABEL) | (values >= count)]
        if wrong.size:
            more = {**dict(described), name: int(values.max()) + 1}
            remedy = f'Train a network that is told of it: --set "labels={more}"'
            raise ValueError(
                f"{data} has images with the label {wrong[0]}, and the network is told {name} from "
                f"0 to {count - 1}, or {NO_LABEL} for what is not known. "
                f"{'Number the classes from 0 on' if wrong[0] < 0 else remedy}."
            )


def _check_classes(data: str, others: str) -> None:
    """Raise ValueError for two folders of which the subfolders, which are numbered, differ."""
    places = [path_of("--data", name) for name in (data, others)]
    if {data, others} & {*DATA_SETS} or not all(place.is_dir() for place in places):
        return
    known, found = (class_names(place) for place in places)
    missing = [name for name in known if name not in found]
    unknown = [name for name in found if name not in known]
    fault, remedy = f"lacks {', '.join(missing)[:200]}", "Make a folder of that name, an empty one"
    if unknown:
        fault, remedy = f"has {', '.join(unknown)[:200]} more", "Move that folder away"
    if missing or unknown:
        raise ValueError(
            f"--held-out {others}, compared with --data {data}, {fault}, so that the same numbers "
            f"would stand for other classes. {remedy}."
        )


def _check_enough(images: int, remedy: str) -> None:
    if images < FEWEST_COMPARED:
        raise ValueError(
            f"{images} images are too few to compare: each is looked at with its nearest "
            f"neighbours, so that {FEWEST_COMPARED} is the least. {remedy}."
        )


def _check_shape(data: str, found: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if tuple(found) != tuple(shape):
        words = f"{PROGRAM} params --data {shlex.quote(data)} --out fitting.json"
        raise ValueError(
            f"the images of {data} have shape {tuple(found)} (height, width, channels), and the "
            f"parameters are for {tuple(shape)}. `{words}` writes some that fit."
        )


def _has_split(data: str, split: str) -> bool:
    if data in DATA_SETS:
        return True
    try:
        with opened_archive(Path(data).expanduser()) as archive:
            return f"x_{split}" in array_names(archive)
    except UNREADABLE_NPZ:
        return False


# The way back ---------------------------------------------------------------------------------


def way_back(options: argparse.Namespace, parameters: DiffusionParameters) -> dict[str, Any]:
    """The options of ``model.sample`` that the line asks for.

    Raises ValueError for steps, a σ or an η that this model's schedule, or the sampler, has not.
    """
    schedule = NoiseSchedule.from_parameters(parameters.schedule)
    sigmas = schedule.sqrt_recipm1_alphas_cumprod
    if options.eta is not None and options.sampler != "ddim":
        raise ValueError(
            f"--eta belongs to --sampler ddim; {options.sampler} has no such choice. Leave one out."
        )
    sigma, steps, even = options.sigma_max, options.steps, options.spacing == "even"
    if sigma is not None and not sigmas[0] <= sigma <= sigmas[-1]:
        raise ValueError(
            f"--sigma-max {sigma} must be between this model's first and last σ, {sigmas[0]:.3g} "
            f"and {sigmas[-1]:.4g}."
        )
    if sigma is None and not even and not np.isfinite(sigmas[-1]):
        raise ValueError(
            f"--spacing {options.spacing} begins at the noise of the last step, which is infinite "
            "in this model. Begin at less: --sigma-max 80."
        )
    most = len(schedule) if sigma is None else int(np.searchsorted(sigmas, sigma, "right"))
    if even and steps is not None and steps > most:
        raise ValueError(
            f"--steps {steps} is more than there are: with --spacing even, at most {most} here. "
            "Leave it out for all."
        )
    if steps is not None and steps > (between := max(len(schedule), MOST_STEPS)):
        raise ValueError(
            f"--steps {steps} must be at most {between}; more change nothing that can be seen. "
            "Leave it out for as many as the schedule has."
        )
    _check_restarts(options, parameters, sigmas)
    asked = {"step": options.sampler, "steps": steps, "sigma_max": sigma, "eta": options.eta}
    asked |= {"spacing": None if even else options.spacing, "restarts": options.restarts}
    return {name: value for name, value in asked.items() if value is not None}


def _check_restarts(
    options: argparse.Namespace, parameters: DiffusionParameters, sigmas: np.ndarray
) -> None:
    """Raise ValueError for restarts, or left out steps, that this model cannot be walked with."""
    if options.restarts and not sigmas[0] <= RESTART_SIGMA <= sigmas[-1]:
        raise ValueError(
            f"--restarts begin at noise of σ = {RESTART_SIGMA}, and this model's first and last σ "
            f"are {sigmas[0]:.3g} and {sigmas[-1]:.4g}. Leave them out."
        )
    leaves_out = options.steps not in (None, len(sigmas)) or options.spacing != "even"
    leaves_out = leaves_out or options.restarts or options.sigma_max is not None
    if leaves_out and parameters.variance == "learned" and options.sampler == "ddpm":
        raise ValueError(
            "this model has learned the variance of a step to the next noise level, and --steps, "
            "--spacing, --sigma-max and --restarts leave some levels out. Do without them, or walk "
            "with --sampler ddim."
        )


def told(options: argparse.Namespace, parameters: DiffusionParameters) -> dict[str, Any]:
    """What the line says that the images are to show, and how far to go towards it.

    Raises ValueError for labels that the network of the model is not told, or does not know.
    """
    asked, scale, counts = options.labels, options.guidance_scale, dict(parameters.unet.labels)
    if asked is None and scale is None:
        return {}
    if not counts:
        word = "--guidance-scale" if asked is None else "--labels"
        raise ValueError(
            f"{word}: this model's network is told no labels. Leave it out, or name a model that "
            "was trained with some, as with --parameters digits_conditional."
        )
    if asked is None:
        raise ValueError(
            f"--guidance-scale {scale} goes on towards what labels say. Say what: --labels."
        )
    if isinstance(asked, list) and len(counts) > 1:
        example = ",".join(f"{name}=0" for name in counts)
        raise ValueError(
            f"--labels {asked[0]}: this model is told {', '.join(counts)}. Give the numbers their "
            f"names: --labels {example}."
        )
    if isinstance(asked, list) and len(asked) > options.n:
        raise ValueError(
            f"--labels {','.join(map(str, asked))[:80]} has {len(asked)} numbers, for {options.n} "
            f"images. Draw more, -n {len(asked)}, or leave some numbers out."
        )
    columns = dict.fromkeys(counts, asked) if isinstance(asked, list) else asked
    named = {name: np.atleast_1d(values) for name, values in columns.items()}
    for name, values in named.items():
        if name not in counts:
            guess = did_you_mean(name, counts, f"It is told {', '.join(counts)}.")
            raise ValueError(f"--labels {name}={values[0]}: the model knows no {name}. {guess}")
        wrong = values[(values < NO_LABEL) | (values >= counts[name])]
        if wrong.size:
            raise ValueError(
                f"--labels: {name}={wrong[0]} must be from 0 to {counts[name] - 1}, or {NO_LABEL} "
                "for what is not said. Choose another number."
            )
    labels = {name: np.resize(values, options.n) for name, values in named.items()}
    return {"labels": labels, **({} if scale is None else {"guidance_scale": scale})}


def check_picture(n: int, shape: tuple[int, ...], scale: int) -> None:
    """Raise ValueError if one picture of so many images would be too large to be opened."""
    most = MOST_PIXELS // ((shape[0] * scale + 2) * (shape[1] * scale + 2))
    if n > max(most, 1):
        raise ValueError(
            f"a picture of {n} images would be too large to be opened. Draw at most {most} into a "
            ".png, or name an --out that ends in .npz."
        )


def check_room(out: Path, numbers: int) -> None:
    """Raise ValueError if there is no room on the disk for so many pixels, of a byte each."""
    there = next(place for place in out.absolute().parents if place.exists())
    free = shutil.disk_usage(there).free
    if numbers > free:
        raise ValueError(
            f"--out {out} would need {numbers / 1e9:.3g} GB, and {free / 1e9:.3g} are left there. "
            "Draw fewer: -n, or name an --out on another disk."
        )


# How long a run is ----------------------------------------------------------------------------


def planned_epochs(parameters: DiffusionParameters, steps: int) -> int:
    """How many epochs of so many steps make up ``decay_steps``; 1 where there are none."""
    total, parts = parameters.training.decay_steps, parameters.training.gradient_accumulation_steps
    return 1 if total is None else math.ceil(total * parts / steps)


def _epochs(asked: int | None, parameters: DiffusionParameters, steps: int) -> int:
    """How many epochs there will be; ValueError for some at a learning rate of 0."""
    total, planned = parameters.training.decay_steps, planned_epochs(parameters, steps)
    if total is not None and asked is not None and asked > planned:
        needed = math.ceil(asked * steps / parameters.training.gradient_accumulation_steps)
        raise ValueError(
            f"--epochs {asked}: the run is over after {planned}, when the learning rate has fallen "
            f"to 0 (decay_steps={total}), and more would change nothing. Leave --epochs out, or "
            f"plan a longer run: --set decay_steps={needed}, in a new --folder."
        )
    return planned if asked is None else asked
