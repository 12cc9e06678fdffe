"""Trained models on disk: the parameters in plain sight, the weights beside them.

A saved model is a folder with two files, ``parameters.json`` (or ``parameters.pkl``) and
``weights.safetensors`` (earlier: ``weights.npz``); or, for a path that ends in ``.keras``, Keras's
own single file, which also keeps the optimizer. Either appears whole or not at all. (A folder takes
two renames to replace: killed between them, a run leaves the earlier model beside its place, and
the next :func:`load_model` or :func:`save_model` puts it back.)
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import keras

from diffusion_walkthrough import checks
from diffusion_walkthrough.checks import did_you_mean, integer, shown
from diffusion_walkthrough.engine.running import is_ours
from diffusion_walkthrough.files import UNREADABLE_NPZ, keras_archives, plain_data, writing
from diffusion_walkthrough.files.folders import PARAMETERS_FILES, model_of_run
from diffusion_walkthrough.files.published_weights import (
    load_published_weights as load_published_weights,
)
from diffusion_walkthrough.files.weights import (
    WEIGHTS_FILES,
    check_weights,
    load_weights,
    save_weights,
)
from diffusion_walkthrough.parameters import (
    FILE_FORMAT,
    DiffusionParameters,
    load_parameters,
    save_parameters,
)
from diffusion_walkthrough.planner.counting import count_parameters
from diffusion_walkthrough.training import DiffusionModel

#: The small trained models that ship with the package, by folder name.
PRETRAINED = Path(__file__).parent / "pretrained"

#: Where chapter 05 keeps what it has trained, below the folder in which it runs.
KEPT = Path("my-models")

#: Suffixes of single files, which a folder should not bear.
FILE_SUFFIXES = {
    *(".ckpt", ".h5", ".hdf5", ".json", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".safetensors")
}
PARAMETERS_AS = dict(zip(("json", "pickle"), PARAMETERS_FILES, strict=True))


def save_model(
    model: DiffusionModel,
    path: str | os.PathLike[str],
    *,
    parameters_as: str = "json",
    overwrite: bool = False,
) -> Path:
    """Save a model so that :func:`load_model` needs nothing but the path, which it returns.

    Args:
        model: trained or not.
        path: a folder to make; or a file name ending in ``.keras`` for Keras's own format, which
            also keeps the state of the optimizer.
        parameters_as: ``"json"`` or ``"pickle"``, the file beside the weights.
        overwrite: whether an earlier model at this path may be replaced.

    Raises:
        FileExistsError: if something is there already and ``overwrite`` is False.
        TypeError: if ``model`` is not a :class:`DiffusionModel`.
        ValueError: if ``parameters_as`` is neither of the two, the path is that of another kind of
            file or of the current folder, or the model has a network that its parameters do not
            describe.
    """
    path = checks.path("path", path)
    writing.tidy(path.resolve().parent)  # a model that a killed run left beside its place
    _check_request(model, path, parameters_as, overwrite)
    writing.make_folder(path.parent)
    if path.suffix == ".keras":
        with writing.whole_file(path) as temporary:
            model.save(temporary)
        return path
    _warn_of_own_class(model)
    parameters = model.diffusion_parameters
    with writing.whole_folder(path) as temporary:
        save_parameters(parameters, temporary / PARAMETERS_AS[parameters_as])
        save_weights(model.network, temporary / WEIGHTS_FILES[0], parameters.to_dict())
    return path


def _check_request(model: DiffusionModel, path: Path, parameters_as: str, overwrite: bool) -> None:
    if not isinstance(model, DiffusionModel):
        raise TypeError(
            f"model is a {type(model).__name__}; save_model keeps a DiffusionModel. For a bare "
            "network, use Keras's own network.save('name.keras')."
        )
    if parameters_as not in PARAMETERS_AS:
        raise ValueError(f"parameters_as = {parameters_as!r} must be 'json' or 'pickle'.")
    checks.flag("overwrite", overwrite)
    if path.resolve() in _where_we_are():
        rule = "a model needs a folder of its own, and this one is the current folder or around it"
        raise ValueError(checks.message("path", str(path), rule, "Name another, such as 'model'"))
    if path.suffix.lower() in FILE_SUFFIXES or path.suffix in (".Keras", ".KERAS"):
        raise ValueError(
            f"{path} ends in {path.suffix}, but a model is saved as a folder or as a .keras file. "
            f"Use {path.stem!r} or {path.stem + '.keras'!r}."
        )
    _check_network(model, None if path.suffix == ".keras" else DiffusionModel)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists and stays as it is. Choose another name, or pass overwrite=True to "
            "replace it."
        )
    if path.exists():
        _check_replaceable(path)


def _warn_of_own_class(model: DiffusionModel) -> None:
    """Say that a folder does not tell of what class a model was."""
    kind = type(model)
    if not is_ours(kind):
        checks.warn(
            f"The model is a {kind.__name__}, and a folder keeps parameters and weights alone: "
            "load_model will make a DiffusionModel of them. A path that ends in .keras keeps the "
            f"class; or build a {kind.__name__} with the same parameters, and give its network "
            "the weights, new.network.set_weights(load_model(path).network.get_weights())."
        )


def _check_network(model: DiffusionModel, kind: type[DiffusionModel] | None) -> None:
    """Refuse a network that load_model could not build again, as a ``kind`` of these parameters."""
    found, described = model.network.count_params(), _count(model.diffusion_parameters)
    if found != described:
        what = f"has {found:,} weights, and the one that its parameters describe {described:,}"
    elif model.network_given and not model.is_described(kind):
        what = "computes something else with its weights than the one that its parameters describe"
    else:
        return
    raise ValueError(
        f"the model's network {what}: load_model could not build it again. Give the model the "
        "parameters of its network; or keep the weights of a network of your own with "
        "model.network.save_weights('own.weights.h5')."
    )


def _where_we_are() -> tuple[Path, ...]:
    """The current folder and those that it is in; none if it has been removed."""
    try:
        here = Path.cwd().resolve()
    except FileNotFoundError:
        return ()
    return (here, *here.parents)


def _check_replaceable(path: Path) -> None:
    """Refuse to replace anything but a model: a folder of our files alone, or a .keras file."""
    strangers = writing.strangers(path, {*WEIGHTS_FILES, *PARAMETERS_FILES})
    right_kind = path.is_file() if path.suffix == ".keras" else path.is_dir()
    if not right_kind or (path.is_file() and not _may_be_our_keras_file(path)):
        strangers = [path.name]
    elif path.is_dir() and not strangers:
        ours = _ours(path, PARAMETERS_FILES)
        strangers = [file.name for file in ours if not _holds_parameters(file)]
        if not ours:  # weights alone may be anybody's
            strangers = [file.name for file in _ours(path, WEIGHTS_FILES)]
    if strangers:
        raise FileExistsError(
            f"{path} is not a model alone (look at {strangers[0]!r}) and stays as it is. Move "
            "that away, or choose a name of its own for the model."
        )


def _holds_parameters(file: Path) -> bool:
    """Whether a file says that it is one of parameters, whatever these are."""
    try:
        content = plain_data.read(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == FILE_FORMAT


def _may_be_our_keras_file(path: Path) -> bool:
    """Whether a file holds a DiffusionModel, whole or cut short, or is empty."""
    if not path.stat().st_size:
        return True
    try:
        found = keras_archives.known_class(keras_archives.read_config(path))
    except UNREADABLE_NPZ:
        return keras_archives.class_at_beginning(path) in _kinds_of_model()
    return found is not None and issubclass(found, DiffusionModel)


def _kinds_of_model() -> set[str]:
    """The names of all classes of models that are known in this process."""
    known = (DiffusionModel, *keras.saving.get_custom_objects().values())
    return {k.__name__ for k in known if isinstance(k, type) and issubclass(k, DiffusionModel)}


def load_model(path_or_name: str | os.PathLike[str]) -> DiffusionModel:
    """Load a model that :func:`save_model` wrote, or one that ships with the package.

    It gives bit-identical predictions to the one that was saved.

    Args:
        path_or_name: the path that was saved to; the folder of a run of the command line, whose
            newest model it is then; or a name such as ``"digits"``.

    Raises:
        FileNotFoundError: if there is no such path or name, a file is missing in the folder, or a
            run has saved no model yet.
        ValueError: if the file is damaged, or the weights do not fit the parameters.
    """
    path = checks.path("path_or_name", path_or_name)
    if path.is_dir() and not _ours(path, (*PARAMETERS_FILES, *WEIGHTS_FILES)):
        path = model_of_run(path, str(path_or_name)) or _not_hidden(path, str(path_or_name))
    if not path.exists() and writing.earlier_folder(path):
        writing.tidy(path.resolve().parent)  # a run was killed while replacing it
    if not path.exists():
        path = _pretrained(str(path_or_name), path)
    return _load_folder(path) if path.is_dir() else _load_keras_file(path)


def kept_model(data: str | os.PathLike[str]) -> Path:
    """Where chapter 05 keeps the model of a data set, or of a folder of pictures: by its name."""
    return KEPT / Path(data).expanduser().resolve().name.removesuffix(".npz")


def model_of(data: str | os.PathLike[str]) -> DiffusionModel:
    """Load the model that draws like a data set: the one that ships, or chapter 05's own.

    Args:
        data: a name such as ``"digits"``, or the path of a folder of pictures.

    Raises:
        FileNotFoundError: if none ships for it, and chapter 05 has kept none here.
        ValueError: as :func:`load_model` does.
    """
    if str(data) in pretrained_names():
        return load_model(PRETRAINED / str(data))
    place = kept_model(data)
    if not place.exists():
        raise FileNotFoundError(
            f"No model of {str(data)!r} ships with the package, as of "
            f"{', '.join(pretrained_names())}, and none is in {place}. Run chapter 05 with DATA = "
            f"{str(data)!r} first: it trains one and keeps it there."
        )
    return load_model(place)


def pretrained_names() -> list[str]:
    """List the models that ship with the package."""
    return sorted(folder.name for folder in PRETRAINED.glob("*") if _ours(folder, WEIGHTS_FILES))


def _not_hidden(folder: Path, name: str) -> Path:
    """The model that ships under the name of a folder of something else; or else the folder."""
    return PRETRAINED / name if name in pretrained_names() else folder


def _pretrained(name: str, path: Path) -> Path:
    names = pretrained_names()
    if name in names:
        return PRETRAINED / name
    hint = did_you_mean(name, names, "Check the path.")
    if left := writing.earlier_folder(path):
        hint = f"A run that is replacing it has put the earlier model aside, as {left}."
    raise FileNotFoundError(
        f"{name!r} is neither a saved model nor one of those that ship with the package "
        f"({', '.join(names)}). {hint}"
    )


def _load_keras_file(path: Path) -> DiffusionModel:
    if path.suffix != ".keras" or not path.is_file():
        raise ValueError(
            f"{path} is not a saved model: a model is a folder with {WEIGHTS_FILES[0]} and the "
            "parameters, or a file ending in .keras."
        )
    try:
        config = keras_archives.read_config(path)
        known = keras_archives.known_class(config)
        if known and issubclass(known, DiffusionModel):
            _check_keras_file(path, config)
            with warnings.catch_warnings():  # of a model that was compiled and never trained
                untrained = "(?s).*Skipping variable loading.* saved optimizer has 2 variables"
                warnings.filterwarnings("ignore", untrained)
                return keras.models.load_model(path, safe_mode=True)
    except Exception as error:  # of a damaged file, Keras and the libraries below raise all kinds
        raise ValueError(
            f"{path} could not be read as a Keras model ({str(error)[:300]}). The file is damaged "
            "or comes from another version; save the model again."
        ) from error
    raise ValueError(
        f"{path} holds a {shown(config.get('class_name'))[1:-1]}, not a DiffusionModel; load it "
        "with keras.models.load_model. (A class of your own that is made from DiffusionModel is "
        "known after keras.saving.register_keras_serializable.)"
    )


def _check_keras_file(path: Path, config: dict[str, Any]) -> None:
    """Raise an error for a file that Keras should not open, before it does."""
    keras_archives.check_classes(config)
    for name in ("seed", "epochs_asked"):
        integer(name, config["config"].get(name) or 0, minimum=0)
    parameters = DiffusionParameters.from_dict(config["config"]["parameters"], version=1)
    needed = _count(parameters)
    found = keras_archives.check_arrays(path, needed)
    if found < needed:
        raise ValueError(
            f"it holds {found:,} numbers, and its model needs {needed:,}; a network of one's own "
            "is not built again"
        )


def _load_folder(path: Path) -> DiffusionModel:
    parameters = load_parameters(_the_one(path, PARAMETERS_FILES))
    weights = _the_one(path, WEIGHTS_FILES)
    check_weights(weights, parameters.to_dict(), _count(parameters))
    model = DiffusionModel(parameters)
    load_weights(model.network, weights, parameters.to_dict())
    return model


def _count(parameters: DiffusionParameters) -> int:
    """How many numbers the network has that parameters describe."""
    return count_parameters(parameters.unet, parameters.variance == "learned")


def _the_one(folder: Path, names: tuple[str, ...]) -> Path:
    """The file of a model's folder that has one of two names."""
    found = _ours(folder, names)
    if len(found) == 1:
        return found[0]
    count = "none" if not found else "both, and they may disagree"
    error = FileNotFoundError if not found else ValueError
    raise error(f"{folder} must hold exactly one of {' or '.join(names)}; it holds {count}.")


def _ours(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]
