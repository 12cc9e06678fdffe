"""Everything that defines a diffusion model, as frozen dataclasses, and as a JSON or pickle file.

The numbers of the published models are those of Ho et al. 2020 (arXiv 2006.11239, appendix B).
Every value is checked when the object is made, so that a typing mistake is met here and not as a
strange picture an hour later. Files are written whole or not at all, and a pickle is read without
calling anything it names.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import numbers
import os
import pickle
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn, TypeVar

from diffusion_walkthrough.safe_pickle import (
    UnsafePickleError as UnsafePickleError,
    safe_pickle_load as safe_pickle_load,
)

SCHEDULE_NAMES = ("linear", "cosine", "sigmoid", "quad", "warmup10", "warmup50", "const", "jsd")
PREDICTION_NAMES = ("noise", "x_start", "x_prev")
VARIANCE_NAMES = ("fixed_small", "fixed_large", "learned")
LOSS_NAMES = ("mse", "kl")
PRECISION_NAMES = ("float32", "mixed_float16", "mixed_bfloat16")

FILE_FORMAT = "diffusion_walkthrough.parameters"
FILE_VERSION = 3
MAX_JSON_BYTES = 1024 * 1024

# ---------------------------------------------------------------------------------------------
# Checks: each returns the value in one normal form, or raises naming value, rule and remedy.
# ---------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    """A short text of any value, fit for an error message."""
    try:
        text = repr(value)
    except Exception:  # a broken __repr__ or an integer of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def _message(name: str, value: object, rule: str, remedy: str) -> str:
    end = "" if remedy.endswith("?") else "."
    return f"{name}={_shown(value)}: {rule}. {remedy}{end}"


def _integer(name: str, value: object, minimum: int) -> int:
    rule = f"{name} must be a whole number of at least {minimum}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        remedy = f"Give an int, such as {max(minimum, 1)}"
        if isinstance(value, float) and value.is_integer():
            remedy = f"Write {name}={int(value)}"
        raise TypeError(_message(name, value, rule, remedy))
    if value < minimum:
        raise ValueError(_message(name, value, rule, f"Use {max(minimum, 1)} or more"))
    return int(value)


def _real(name: str, value: object, rule: str, allowed: Callable[[float], bool]) -> float:
    rule = f"{name} must be a finite number {rule}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        remedy = "Give a float, without quotes"
        raise TypeError(_message(name, value, rule, remedy))
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result) or not allowed(result):
        raise ValueError(_message(name, value, rule, "Choose a value in that range"))
    return result


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        rule = f"{name} must be True or False"
        raise TypeError(_message(name, value, rule, "Write True or False, without quotes"))
    return value


def _choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    rule = f"{name} must be one of {', '.join(map(repr, choices))}"
    if not isinstance(value, str):
        raise TypeError(_message(name, value, rule, "Give one of these names as text"))
    if value not in choices:
        whole = [choice for choice in choices if value and value in choice]
        near = whole or difflib.get_close_matches(value, choices, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Choose for example {choices[0]!r}"
        raise ValueError(_message(name, value, rule, remedy))
    return str(value)


def _integers(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        rule = f"{name} must be a tuple or a list of whole numbers"
        remedy = f"Write {name}=({_shown(value)},)" if isinstance(value, int) else "Use a tuple"
        raise TypeError(_message(name, value, rule, remedy))
    return tuple(_integer(f"{name}[{i}]", item, minimum=1) for i, item in enumerate(value))


# ---------------------------------------------------------------------------------------------
# The parameters
# ---------------------------------------------------------------------------------------------

_P = TypeVar("_P", bound="_Parameters")


class _Parameters:
    """What the parameter classes share: a dictionary of plain values, there and back."""

    _nested: ClassVar[dict[str, type[_Parameters]]] = {}
    # What files of earlier versions do not say, and meant.
    _added_later: ClassVar[dict[str, object]] = {}

    def _normalise(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """All parameters as a dictionary of plain values (tuples as lists), ready for JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {name: _plain(value) for name, value in values.items()}

    @classmethod
    def from_dict(cls: type[_P], values: Mapping[str, Any]) -> _P:
        """The parameters that ``to_dict`` wrote; checks names and values again.

        Raises TypeError for anything but a dictionary, and ValueError naming an unknown key
        (with the nearest known one) or a missing key.
        """
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        if isinstance(values, Mapping):
            values = {**cls._added_later, **values}
        _check_keys(cls.__name__, values, names)
        return cls(
            **{
                name: cls._nested[name].from_dict(value) if name in cls._nested else value
                for name, value in values.items()
            }
        )

    def __str__(self) -> str:
        return "\n".join([type(self).__name__, *_lines(self.to_dict(), indent=2)])


def _plain(value: object) -> object:
    if isinstance(value, _Parameters):
        return value.to_dict()
    return list(value) if isinstance(value, tuple) else value


def _lines(values: Mapping[str, Any], indent: int) -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [" " * indent + name, *_lines(value, indent + 2)]
        else:
            lines.append(" " * indent + f"{name} = {value}")
    return lines


def _check_keys(owner: str, values: object, names: list[str]) -> None:
    if not isinstance(values, Mapping):
        raise TypeError(
            f"{owner} needs a dictionary with the keys {', '.join(names)}, "
            f"but got {_shown(values)}. Pass what to_dict() returned."
        )
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
            raise ValueError(
                f"{owner} has no parameter {_shown(key)}. Did you mean {near[0]!r}? "
                f"The parameters are {', '.join(names)}."
            )
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(
            f"{owner} lacks {', '.join(map(repr, missing))}. Add it to the dictionary; "
            f"{owner}'s docstring says what is usual."
        )


@dataclasses.dataclass(frozen=True)
class ScheduleParameters(_Parameters):
    """How much noise each step adds: β from ``beta_start`` to ``beta_end`` in ``timesteps`` steps.

    The defaults are the linear schedule of the DDPM paper (section 4). ``scaled`` multiplies both
    ends by 1000 / timesteps, so that a short schedule still ends in (nearly) pure noise; at 1000
    steps it changes nothing. The schedules "cosine" and "jsd" fit any number of steps as they are
    and do not use ``beta_start``, ``beta_end`` and ``scaled``; "const" does not use ``beta_start``.

    Raises TypeError or ValueError naming the parameter, its value, the rule and the remedy.
    """

    name: str = "linear"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    scaled: bool = True

    def __post_init__(self) -> None:
        rule = "above 0 and below 1"
        self._normalise(
            name=_choice("name", self.name, SCHEDULE_NAMES),
            timesteps=_integer("timesteps", self.timesteps, minimum=1),
            beta_start=_real("beta_start", self.beta_start, rule, lambda v: 0 < v < 1),
            beta_end=_real("beta_end", self.beta_end, rule, lambda v: 0 < v < 1),
            scaled=_flag("scaled", self.scaled),
        )
        if self.beta_end < self.beta_start:
            rule = f"beta_end must not be below beta_start={self.beta_start}, as noise grows"
            raise ValueError(_message("beta_end", self.beta_end, rule, "Exchange the two"))


@dataclasses.dataclass(frozen=True)
class UNetParameters(_Parameters):
    """The shape of the network that guesses the noise; the defaults are the paper's for CIFAR-10.

    Images are ``image_size`` pixels high and wide with ``channels`` channels. Level i works on a
    side of ``image_size / 2**i`` with ``base_width * width_multipliers[i]`` channels.
    ``attention_sizes`` names the sides (in pixels, not level numbers) that get self-attention; the
    middle always has it. ``dropout`` is a share in [0, 1); ``groups`` is for group normalization.

    Raises TypeError or ValueError naming the parameter, its value, the rule and the remedy.
    """

    image_size: int = 32
    channels: int = 3
    base_width: int = 128
    width_multipliers: tuple[int, ...] = (1, 2, 2, 2)
    residual_blocks: int = 2
    attention_sizes: tuple[int, ...] = (16,)
    dropout: float = 0.1
    groups: int = 32

    def __post_init__(self) -> None:
        attention_sizes = _integers("attention_sizes", self.attention_sizes)
        self._normalise(
            image_size=_integer("image_size", self.image_size, minimum=1),
            channels=_integer("channels", self.channels, minimum=1),
            base_width=_integer("base_width", self.base_width, minimum=4),
            width_multipliers=_integers("width_multipliers", self.width_multipliers),
            residual_blocks=_integer("residual_blocks", self.residual_blocks, minimum=1),
            attention_sizes=tuple(sorted(set(attention_sizes), reverse=True)),
            dropout=_real("dropout", self.dropout, "from 0 to below 1", lambda v: 0 <= v < 1),
            groups=_integer("groups", self.groups, minimum=1),
        )
        self._check_levels()
        self._check_attention_sizes()
        self._check_widths()

    def _check_levels(self) -> None:
        levels = len(self.width_multipliers)
        if levels == 0:
            rule = "width_multipliers must name at least one level"
            raise ValueError(_message("width_multipliers", (), rule, "Use for example (1, 2)"))
        factor = 2 ** (levels - 1)
        if self.image_size % factor:
            fitting = next(n for n in range(levels, 0, -1) if self.image_size % 2 ** (n - 1) == 0)
            rule = (
                f"each of the {levels} levels of width_multipliers halves the one above, "
                f"and {self.image_size}/{factor} is not whole"
            )
            padded = -(-self.image_size // factor) * factor
            remedy = f"Use fewer levels ({fitting} at most), or pad the images to {padded}"
            raise ValueError(_message("image_size", self.image_size, rule, remedy))

    def _check_attention_sizes(self) -> None:
        for size in self.attention_sizes:
            if size not in self.level_sizes:
                rule = (
                    f"no level has side {size}, so there would silently be no attention; "
                    f"the levels have {', '.join(map(str, self.level_sizes))}"
                )
                remedy = "Choose among these, or () for attention in the middle only"
                raise ValueError(_message("attention_sizes", self.attention_sizes, rule, remedy))

    def _check_widths(self) -> None:
        if self.base_width % 2:
            rule = "base_width must be even: the time embedding is half sines, half cosines"
            remedy = f"Use {self.base_width + 1}"
            raise ValueError(_message("base_width", self.base_width, rule, remedy))
        for width in self.level_widths:
            if width % self.groups:
                rule = f"groups must divide the width of every level, {self.level_widths}"
                remedy = f"Use for example {math.gcd(*self.level_widths, self.groups)}"
                raise ValueError(_message("groups", self.groups, rule, remedy))
            if width == self.groups:
                rule = (
                    f"a group needs at least two of a level's {width} channels: alone, a channel "
                    "loses its mean, and with it what the time step has added"
                )
                remedy = f"Use for example {max(width // 4, 1)}"
                raise ValueError(_message("groups", self.groups, rule, remedy))

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """The side of each level in pixels, the finest first, e.g. (32, 16, 8, 4)."""
        return tuple(self.image_size // 2**i for i in range(len(self.width_multipliers)))

    @property
    def level_widths(self) -> tuple[int, ...]:
        """The number of channels of each level, the finest first, e.g. (128, 256, 256, 256)."""
        return tuple(self.base_width * multiplier for multiplier in self.width_multipliers)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, (height, width, channels)."""
        return (self.image_size, self.image_size, self.channels)


@dataclasses.dataclass(frozen=True)
class TrainingParameters(_Parameters):
    """How the network is trained; the defaults are the paper's for CIFAR-10 (appendix B).

    ``learning_rate`` is reached after ``warmup_steps`` steps and then stays, or, if ``decay_steps``
    names the length of the whole run, falls to 0 along half a cosine (short runs want that);
    ``batch_size`` images per step; ``gradient_accumulation_steps`` in how many parts, one after the
    other, a step goes through them, for less memory at (almost) the same gradient;
    ``gradient_clip`` is the largest global norm of a gradient, None for no clipping;
    ``ema_momentum`` is the share of the old averaged weights kept in each step, None for no
    average (it begins low and rises to this number, so that short runs forget their start);
    ``horizontal_flip`` mirrors half of the images, which is right for photographs and wrong for
    digits;
    ``precision`` is that of the network's computations, one of Keras's policies: "float32",
    "mixed_float16" or "mixed_bfloat16"; weights and everything outside the network are float32.

    Raises TypeError or ValueError naming the parameter, its value, the rule and the remedy.
    """

    learning_rate: float = 2e-4
    warmup_steps: int = 5000
    decay_steps: int | None = None
    batch_size: int = 128
    gradient_clip: float | None = 1.0
    ema_momentum: float | None = 0.9999
    horizontal_flip: bool = True
    precision: str = "float32"
    gradient_accumulation_steps: int = 1

    _added_later: ClassVar[dict[str, object]] = {
        "precision": "float32",
        "gradient_accumulation_steps": 1,
    }

    def __post_init__(self) -> None:
        self._normalise(
            learning_rate=_real("learning_rate", self.learning_rate, "above 0", lambda v: v > 0),
            warmup_steps=_integer("warmup_steps", self.warmup_steps, minimum=0),
            batch_size=_integer("batch_size", self.batch_size, minimum=1),
            horizontal_flip=_flag("horizontal_flip", self.horizontal_flip),
            precision=_choice("precision", self.precision, PRECISION_NAMES),
            gradient_accumulation_steps=_integer(
                "gradient_accumulation_steps", self.gradient_accumulation_steps, minimum=1
            ),
        )
        self._check_accumulation()
        if self.decay_steps is not None:
            steps = _integer("decay_steps", self.decay_steps, minimum=self.warmup_steps + 1)
            self._normalise(decay_steps=steps)
        if self.gradient_clip is not None:
            rule = "above 0, or None for no clipping"
            clip = _real("gradient_clip", self.gradient_clip, rule, lambda v: v > 0)
            self._normalise(gradient_clip=clip)
        if self.ema_momentum is not None:
            rule = "above 0 and below 1, or None for no averaging"
            momentum = _real("ema_momentum", self.ema_momentum, rule, lambda v: 0 < v < 1)
            self._normalise(ema_momentum=momentum)

    def _check_accumulation(self) -> None:
        parts = self.gradient_accumulation_steps
        if self.batch_size % parts:
            rule = f"gradient_accumulation_steps must divide batch_size, {self.batch_size}"
            remedy = f"Use for example {math.gcd(self.batch_size, parts)}"
            raise ValueError(_message("gradient_accumulation_steps", parts, rule, remedy))


@dataclasses.dataclass(frozen=True)
class DiffusionParameters(_Parameters):
    """A whole diffusion model: noise schedule, network, training, and what the network predicts.

    ``prediction`` is what the network is asked for: the "noise" (Eq. 11 of the DDPM paper), the
    clean image "x_start", or the mean of the step back, "x_prev" (Eq. 8). ``variance`` is that of
    a backward step (section 3.2): "fixed_large" is β, "fixed_small" is the posterior variance β̃,
    and "learned" has the network predict its logarithm too. ``loss`` is "mse", the mean squared
    error of the prediction (Eq. 14), or "kl", the term of the variational bound (Eq. 5);
    ``pixel_levels`` is how many values a pixel of the data can have, which the bound counts with.

    Raises TypeError or ValueError naming the parameter, its value, the rule and the remedy; also
    for two that cannot go together.
    """

    schedule: ScheduleParameters
    unet: UNetParameters
    training: TrainingParameters
    prediction: str = "noise"
    variance: str = "fixed_large"
    loss: str = "mse"
    pixel_levels: int = 256

    _nested: ClassVar[dict[str, type[_Parameters]]] = {
        "schedule": ScheduleParameters,
        "unet": UNetParameters,
        "training": TrainingParameters,
    }
    _added_later: ClassVar[dict[str, object]] = {"loss": "mse", "pixel_levels": 256}

    def __post_init__(self) -> None:
        for name, kind in self._nested.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                rule = f"{name} must be a {kind.__name__}"
                remedy = f"Write {name}={kind.__name__}(...), or use from_dict for a dictionary"
                raise TypeError(_message(name, value, rule, remedy))
        self._normalise(
            prediction=_choice("prediction", self.prediction, PREDICTION_NAMES),
            variance=_choice("variance", self.variance, VARIANCE_NAMES),
            loss=_choice("loss", self.loss, LOSS_NAMES),
            pixel_levels=_integer("pixel_levels", self.pixel_levels, minimum=2),
        )
        self._check_combination()

    def _check_combination(self) -> None:
        if self.variance == "learned" and self.loss == "mse":
            rule = (
                "the mean squared error of the prediction does not depend on the variance, so "
                "that variance='learned' would stay as it was at the start"
            )
            remedy = "Use loss='kl', or one of the fixed variances"
            raise ValueError(_message("loss", self.loss, rule, remedy))
        if self.schedule.name == "jsd" and self.prediction == "noise":
            rule = (
                "after the last step of the schedule 'jsd' nothing is left of the image (ᾱ = 0), "
                "so that no guess of the noise says what the image was: Eq. 15 divides by √ᾱ"
            )
            remedy = "Use prediction='x_start', or another schedule"
            raise ValueError(_message("prediction", self.prediction, rule, remedy))

    @classmethod
    def digits(cls) -> DiffusionParameters:
        """A model of scikit-learn's 8x8 digits that two CPU cores train in about a minute."""
        return cls(
            schedule=ScheduleParameters(name="cosine", timesteps=100),
            unet=UNetParameters(
                image_size=8,
                channels=1,
                base_width=16,
                width_multipliers=(1, 3),
                residual_blocks=1,
                attention_sizes=(4,),
                dropout=0.0,
                groups=8,
            ),
            training=TrainingParameters(
                learning_rate=6e-3,
                warmup_steps=100,
                decay_steps=1080,
                ema_momentum=None,
                horizontal_flip=False,
            ),
            variance="fixed_large",
            pixel_levels=17,
        )

    @classmethod
    def mnist(cls) -> DiffusionParameters:
        """A small model of 28x28 handwritten digits (sides 28, 14, 7)."""
        return cls(
            schedule=ScheduleParameters(),
            unet=UNetParameters(
                image_size=28,
                channels=1,
                base_width=32,
                width_multipliers=(1, 2, 2),
                residual_blocks=1,
                attention_sizes=(7,),
                dropout=0.0,
                groups=8,
            ),
            training=TrainingParameters(
                learning_rate=1e-3, warmup_steps=500, ema_momentum=0.995, horizontal_flip=False
            ),
            variance="fixed_small",
        )

    @classmethod
    def cifar10(cls) -> DiffusionParameters:
        """The paper's model of CIFAR-10 (appendix B): 35.7 million parameters."""
        return cls(ScheduleParameters(), UNetParameters(), TrainingParameters())

    @classmethod
    def celeba_hq_256(cls) -> DiffusionParameters:
        """The paper's model of 256x256 faces (appendix B): 113.7 million parameters."""
        return cls(
            schedule=ScheduleParameters(),
            unet=UNetParameters(image_size=256, width_multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0),
            training=TrainingParameters(learning_rate=2e-5, batch_size=64),
            variance="fixed_small",
        )


# ---------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------


def save_parameters(
    parameters: DiffusionParameters, path: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Write the parameters to ``path``, as text (``.json``) or as a pickle (``.pkl``, ``.pickle``).

    The file appears whole or not at all. Saving the same parameters again changes nothing, so a
    notebook can be run twice. Returns the path.

    Raises FileExistsError if a file with other content is there and ``overwrite`` is False,
    ValueError for another suffix, FileNotFoundError if the folder does not exist, and TypeError
    for anything but ``DiffusionParameters``.
    """
    if not isinstance(parameters, DiffusionParameters):
        raise TypeError(
            f"save_parameters writes DiffusionParameters, but got {_shown(parameters)}. "
            "Put it into DiffusionParameters(schedule, unet, training) first."
        )
    target = Path(path).expanduser()
    encode, _ = _codec(target)
    content = encode(
        {"format": FILE_FORMAT, "version": FILE_VERSION, "parameters": parameters.to_dict()}
    )
    if target.is_file() and not overwrite:
        if _holds(target, parameters):
            return target
        raise FileExistsError(
            f"{target} exists and holds something else. Choose another name, or pass "
            "overwrite=True to replace it."
        )
    write_file_atomically(target, content)
    return target


def load_parameters(path: str | os.PathLike[str]) -> DiffusionParameters:
    """Read what ``save_parameters`` wrote; the suffix decides between JSON and pickle.

    Raises FileNotFoundError if there is no such file, ``UnsafePickleError`` (a ValueError) for a
    pickle that is damaged or holds more than plain data, and ValueError or TypeError for
    everything else that is wrong, naming the file, the problem and the remedy.
    """
    source = Path(path).expanduser()
    _, decode = _codec(source)
    if not source.is_file():
        raise FileNotFoundError(
            f"There is no file {source}. Check the name and the current folder ({Path.cwd()}), "
            "or write it with save_parameters."
        )
    try:
        with source.open("rb") as file:
            return _from_envelope(decode(file))
    except (ValueError, TypeError) as error:
        raise type(error)(f"{source} cannot be read as parameters: {error}") from error


def write_file_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``path`` so that at any moment the old or the new file is there, whole.

    The bytes go to a temporary name in the same folder, to the disk, and then take the place of
    ``path``; after a failure nothing is left behind. Raises FileNotFoundError if the folder does
    not exist, IsADirectoryError if ``path`` is a folder, and OSError if the disk refuses.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder. Give the name of a file in it.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {target.parent} does not exist. Create it first: "
            f"Path({str(target.parent)!r}).mkdir(parents=True)."
        )
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _codec(path: Path) -> tuple[Callable[[object], bytes], Callable[[BinaryIO], object]]:
    """The pair (encode, decode) for the suffix of a path."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _encode_json, _decode_json
    if suffix in (".pkl", ".pickle"):
        return _encode_pickle, safe_pickle_load
    rule = "the suffix decides the format and must be .json, .pkl or .pickle"
    raise ValueError(_message("path", str(path), rule, f"Use {path.stem or 'parameters'}.json"))


def _holds(path: Path, parameters: DiffusionParameters) -> bool:
    try:
        return load_parameters(path) == parameters
    except (OSError, ValueError, TypeError):
        return False


def _from_envelope(content: object) -> DiffusionParameters:
    if not isinstance(content, dict) or content.get("format") != FILE_FORMAT:
        raise ValueError(
            f'it does not say "format": "{FILE_FORMAT}". Write the file with save_parameters.'
        )
    version = content.get("version")
    if type(version) is not int or not 1 <= version <= FILE_VERSION:
        raise ValueError(
            f"version={_shown(version)}, and this package reads versions 1 to {FILE_VERSION}. "
            "Update diffusion_walkthrough, or save the parameters again."
        )
    _check_keys("the file", content, ["format", "version", "parameters"])
    return DiffusionParameters.from_dict(content["parameters"])


def _encode_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("utf-8")


def _encode_pickle(value: object) -> bytes:
    return pickle.dumps(value, protocol=4)


def _decode_json(file: BinaryIO) -> object:
    data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"it is larger than {MAX_JSON_BYTES} bytes. Is it the right file?")
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_duplicates,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON: {error}. Correct it or save it again.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in UTF-8 ({error}). Save it as UTF-8.") from None
    except RecursionError:
        raise ValueError("it is nested too deeply. Save the parameters again.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, and every number must be finite. Replace it.")


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {_shown(key)} stands in it twice. Remove one of the two.")
        result[key] = value
    return result
