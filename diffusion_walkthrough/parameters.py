"""Everything that defines a diffusion model, as frozen dataclasses, and as a JSON or pickle file.

The numbers of the published models are those of Ho et al. 2020 (arXiv 2006.11239, appendix B);
warm-up, clipping and the choice of variance stand in their program only.
Every value is checked when the object is made, so that a typing mistake is met here and not as a
strange picture an hour later. Files are written whole or not at all, and a pickle is read without
calling anything it names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from diffusion_walkthrough import checks
from diffusion_walkthrough.files import plain_data
from diffusion_walkthrough.files.plain_data import (
    UnsafePickleError as UnsafePickleError,
    load_plain_pickle as load_plain_pickle,
)
from diffusion_walkthrough.files.records import Additions, Record
from diffusion_walkthrough.files.writing import write_whole

SCHEDULE_NAMES = (
    "linear", "cosine", "sigmoid", "quad", "warmup10", "warmup50", "const", "jsd", "straight",
)  # fmt: skip
#: Schedules that leave nothing of the image (ᾱ = 0) at their last step.
ENDING_IN_NOTHING = ("jsd", "straight")
PREDICTION_NAMES = ("noise", "x_start", "x_prev", "v", "flow")
VARIANCE_NAMES = ("fixed_small", "fixed_large", "learned")
LOSS_NAMES = ("mse", "kl")
PRECISION_NAMES = ("float32", "mixed_float16", "mixed_bfloat16")

FILE_FORMAT = "diffusion_walkthrough.parameters"
FILE_VERSION = 4
#: Written for a model that is told no labels, as it was before there were any.
VERSION_WITHOUT_LABELS = 3

#: The published linear schedule was made for this many steps.
REFERENCE_TIMESTEPS = 1000

#: A step that adds less noise than this would be lost in the rounding of 1 - ᾱ.
SMALLEST_BETA = 1e-8

# More than anybody has needed, and little enough that a mistyped number is met here, and not when
# the memory is full.
MOST_TIMESTEPS = 1_000_000
MOST_STRAIGHT_TIMESTEPS = 10_000  # the first step's β is 1 / T²
LARGEST_SIDE = 4096
LARGEST_ATTENTION_SIDE = 128  # 128⁴ pairs of pixels are 1 GB for each image
MOST_CHANNELS = 1024
LARGEST_WIDTH = 8192
LARGEST_MULTIPLIER = 64
MOST_LEVELS = 13  # from 4096 pixels down to one
MOST_RESIDUAL_BLOCKS = 32
MOST_WEIGHTS = 10_000_000_000  # 40 GB
LARGEST_BATCH = 1_000_000
MOST_STEPS = 1_000_000_000
MOST_PIXEL_LEVELS = 65_536  # 16 bits
MOST_LABELS = 64
MOST_LABEL_VALUES = 100_000


@dataclasses.dataclass(frozen=True)
class ScheduleParameters(Record):
    """How much noise each step adds: β from ``beta_start`` to ``beta_end`` in ``timesteps`` steps.

    The defaults are the linear schedule of the DDPM paper (section 4). ``scaled`` multiplies both
    ends by 1000 / timesteps, so that a short schedule still ends in (nearly) pure noise; at 1000
    steps it changes nothing. The schedules "cosine", "jsd" and "straight" fit any number of steps
    as they are and do not use ``beta_start``, ``beta_end`` and ``scaled``; "const" does not use
    ``beta_start``.

    Raises TypeError or ValueError naming the parameter, its value, the rule and the remedy.
    """

    name: str = "linear"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    scaled: bool = True

    def __post_init__(self) -> None:
        share = ("above 0 and below 1", lambda v: 0 < v < 1)
        self._check("name", checks.choice, SCHEDULE_NAMES)
        self._check("timesteps", checks.integer, 1, MOST_TIMESTEPS)
        self._check("beta_start", checks.real, *share)
        self._check("beta_end", checks.real, *share)
        self._check("scaled", checks.flag)
        if self.beta_end < self.beta_start:
            start = checks.written("beta_start", self.beta_start)
            rule = f"beta_end must not be below {start}, as noise grows"
            self._refuse("beta_end", rule, "Exchange the two")
        if self.name == "straight" and self.timesteps > MOST_STRAIGHT_TIMESTEPS:
            rule = (
                f"in more than {MOST_STRAIGHT_TIMESTEPS} steps the first would be lost in rounding"
            )
            self._refuse("timesteps", rule, f"Use at most {MOST_STRAIGHT_TIMESTEPS}")
        if self.name not in ("cosine", "jsd", "straight"):
            self._check_first_step("beta_end" if self.name == "const" else "beta_start")

    def _check_first_step(self, name: str) -> None:
        scale = REFERENCE_TIMESTEPS / self.timesteps if self.scaled else 1.0
        first = scale * getattr(self, name)
        if first < SMALLEST_BETA:
            rule = (
                f"the first step would add noise of variance {first:.2g}, and less than "
                f"{SMALLEST_BETA} is lost in rounding"
            )
            self._refuse(name, rule, f"Use at least {1.1 * SMALLEST_BETA / scale:.2g}")


@dataclasses.dataclass(frozen=True)
class UNetParameters(Record):
    """The shape of the network that guesses the noise; the defaults are the paper's for CIFAR-10.

    Images are squares of ``image_size`` by ``image_size`` pixels, with ``channels`` channels. Level
    i works on a side of ``image_size / 2**i`` with ``base_width * width_multipliers[i]`` channels.
    ``attention_sizes`` names the sides (in pixels, not level numbers) that get self-attention; the
    middle always has it. ``dropout`` is a share in [0, 1); ``groups`` is for group normalization.

    ``labels`` is what the network is told of an image beside the time: the name of each label and
    how many values it has, 0 and up, as (("digit", 10),) or {"hat": 13, "glasses": 5}. The names
    are for messages, their order is that of the columns. With none, the network is told nothing.

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
    labels: tuple[tuple[str, int], ...] = ()

    _only_if_used: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        self._check("image_size", checks.side, LARGEST_SIDE)
        self._check("channels", checks.integer, 1, MOST_CHANNELS)
        self._check("residual_blocks", checks.integer, 1, MOST_RESIDUAL_BLOCKS)
        self._check("groups", checks.integer, 1, LARGEST_WIDTH)
        self._check("base_width", checks.integer, 4, LARGEST_WIDTH)
        self._check("width_multipliers", checks.integers, LARGEST_MULTIPLIER, MOST_LEVELS)
        self._check("attention_sizes", checks.descending, LARGEST_SIDE, MOST_LEVELS)
        rule = "from 0 to below 1, at most 0.99"
        self._check("dropout", checks.real, rule, lambda v: 0 <= v <= 0.99)
        self._check("labels", checks.named_counts, MOST_LABEL_VALUES, MOST_LABELS)
        self._check_levels()
        self._check_widths()
        self._check_costs()

    def _check_levels(self) -> None:
        levels = len(self.width_multipliers)
        if levels == 0:
            rule = "width_multipliers must name at least one level"
            self._refuse("width_multipliers", rule, f"Use for example {checks.shown((1, 2))}")
        factor = 2 ** (levels - 1)
        if self.image_size % factor:
            fitting = next(n for n in range(levels, 0, -1) if self.image_size % 2 ** (n - 1) == 0)
            rule = (
                f"each of the {levels} levels of width_multipliers halves the one above, "
                f"and {self.image_size}/{factor} is not whole"
            )
            padded = -(-self.image_size // factor) * factor
            remedy = f"Use fewer levels ({fitting} at most), or pad the images to {padded}"
            self._refuse("image_size", rule, remedy)
        for size in self.attention_sizes:
            if size not in self.level_sizes:
                rule = (
                    f"no level has side {size}, so there would silently be no attention; "
                    f"the levels have {', '.join(map(str, self.level_sizes))}"
                )
                nothing = checks.shown(())
                remedy = f"Choose among these, or {nothing} for attention in the middle only"
                self._refuse("attention_sizes", rule, remedy)

    def _check_widths(self) -> None:
        if self.base_width % 2:
            rule = "base_width must be even: the time embedding is half sines, half cosines"
            self._refuse("base_width", rule, f"Use {self.base_width + 1}")
        for width in self.level_widths:
            if width % self.groups:
                widths = checks.shown(self.level_widths)
                rule = f"groups must divide the width of every level, {widths}"
                self._refuse("groups", rule, f"Use for example {self._fitting_groups()}")
            if width == self.groups:
                rule = (
                    f"a group needs at least two of a level's {width} channels: alone, a channel "
                    "loses its mean, and with it what the time step has added"
                )
                self._refuse("groups", rule, f"Use for example {self._fitting_groups()}")

    def _fitting_groups(self) -> int:
        """Groups that divide every width, and none of them alone in its group."""
        fitting = math.gcd(*self.level_widths, self.groups)
        alone = fitting == min(self.level_widths)
        return max(n for n in range(1, fitting) if fitting % n == 0) if alone else fitting

    def _check_costs(self) -> None:
        """Refuse what no computer could hold, although each number by itself is possible."""
        for side in (*self.attention_sizes, self.level_sizes[-1]):
            if side > LARGEST_ATTENTION_SIDE:
                middle = side == self.level_sizes[-1]
                rule = (
                    "attention looks from each pixel at each other one, which at a side of "
                    f"{side} are {side**4:.2g} pairs{', in the middle too' if middle else ''}; the "
                    f"largest side for it is {LARGEST_ATTENTION_SIDE}"
                )
                remedy = "Use more levels, each halves the side" if middle else "Leave it out"
                self._refuse("width_multipliers" if middle else "attention_sizes", rule, remedy)
        blocks, last = self.residual_blocks, self.level_widths[-1]
        weights = sum((45 * blocks + 27) * width**2 for width in self.level_widths) + 40 * last**2
        weights += 4 * self.base_width * sum(count + 1 for _, count in self.labels)
        if weights > MOST_WEIGHTS:
            rule = (
                f"with widths of {checks.shown(self.level_widths)} the network would have some "
                f"{weights:.2g} weights, and at most {MOST_WEIGHTS:.0e} can be built"
            )
            self._refuse("base_width", rule, "Use smaller widths, or fewer residual_blocks")

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
class TrainingParameters(Record):
    """How the network is trained; the defaults are the original's for CIFAR-10.

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
    "mixed_float16" or "mixed_bfloat16"; weights and everything outside the network are float32;
    ``label_dropping`` is the share of images whose labels are left out, all of one image together,
    so that the network learns to do without as well, which guidance needs (of a network that is
    told labels).

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
    label_dropping: float = 0.1

    _only_if_used: ClassVar[tuple[str, ...]] = ("label_dropping",)
    _added_later: ClassVar[Additions] = {
        "decay_steps": (2, None),
        "precision": (3, "float32"),
        "gradient_accumulation_steps": (3, 1),
    }

    def __post_init__(self) -> None:
        none = checks.shown(None)
        rule = "above 0, from 1e-9 to 10"
        self._check("learning_rate", checks.real, rule, lambda v: 1e-9 <= v <= 10)
        self._check("warmup_steps", checks.integer, 0, MOST_STEPS)
        self._check("batch_size", checks.integer, 1, LARGEST_BATCH)
        self._check("horizontal_flip", checks.flag)
        self._check("precision", checks.choice, PRECISION_NAMES)
        rule = "from 0 to below 1"
        self._check("label_dropping", checks.real, rule, lambda v: 0 <= v < 1)
        self._check("gradient_accumulation_steps", checks.integer, 1, LARGEST_BATCH)
        parts = self.gradient_accumulation_steps
        if self.batch_size % parts:
            rule = f"gradient_accumulation_steps must divide batch_size, {self.batch_size}"
            remedy = f"Use for example {math.gcd(self.batch_size, parts)}"
            self._refuse("gradient_accumulation_steps", rule, remedy)
        if self.decay_steps is not None:
            self._check("decay_steps", checks.integer, self.warmup_steps + 1, MOST_STEPS + 1)
        if self.gradient_clip is not None:
            rule = f"above 0, from 1e-9 to 1e9, or {none} for no clipping"
            self._check("gradient_clip", checks.real, rule, lambda v: 1e-9 <= v <= 1e9)
        if self.ema_momentum is not None:
            rule = f"above 0 and below 1, at most 0.9999999, or {none} for no averaging"
            self._check("ema_momentum", checks.real, rule, lambda v: 0 < v <= 0.9999999)


@dataclasses.dataclass(frozen=True)
class DiffusionParameters(Record):
    """A whole diffusion model: noise schedule, network, training, and what the network predicts.

    ``prediction`` is what the network is asked for: the "noise" (Eq. 11 of the DDPM paper), the
    clean image "x_start", the mean of the step back, "x_prev" (Eq. 8), or a mix of noise and image:
    "v" (Salimans and Ho 2022, arXiv 2202.00512) or "flow", their difference, the velocity of
    rectified flow (Liu et al. 2022, arXiv 2209.03003). ``variance`` is that
    of a backward step (section 3.2): "fixed_large" is β, "fixed_small" is the posterior variance β̃,
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

    _nested: ClassVar[dict[str, type[Record]]] = {
        "schedule": ScheduleParameters,
        "unet": UNetParameters,
        "training": TrainingParameters,
    }
    _added_later: ClassVar[Additions] = {"loss": (2, "mse"), "pixel_levels": (3, 256)}

    def __post_init__(self) -> None:
        self._check_nested()
        self._check("prediction", checks.choice, PREDICTION_NAMES)
        self._check("variance", checks.choice, VARIANCE_NAMES)
        self._check("loss", checks.choice, LOSS_NAMES)
        self._check("pixel_levels", checks.integer, 2, MOST_PIXEL_LEVELS)
        if self.variance == "learned" and self.loss == "mse":
            rule = (
                "the mean squared error of the prediction does not depend on the variance, so that "
                f"{checks.written('variance', 'learned')} would stay as it was at the start"
            )
            remedy = f"Use {checks.written('loss', 'kl')}, or one of the fixed variances"
            self._refuse("loss", rule, remedy)
        dropped = self.training.label_dropping
        if not self.unet.labels and dropped != TrainingParameters.label_dropping:
            rule = (
                "the network is told no labels (those of unet are none), so that none can be left"
            )
            raise ValueError(
                checks.message("label_dropping", dropped, f"{rule} out", "Leave it as it is")
            )
        if self.schedule.name in ENDING_IN_NOTHING and self.prediction == "noise":
            name = checks.shown(self.schedule.name)
            rule = (
                f"after the last step of the schedule {name} nothing is left of the "
                "image (ᾱ = 0), so that no guess of the noise says what the image was: Eq. 15 "
                "divides by √ᾱ"
            )
            other = checks.written("prediction", "x_start")
            self._refuse("prediction", rule, f"Use {other}, or another schedule")

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
    def faces(cls) -> DiffusionParameters:
        """A model of the project's 16x16 faces that two CPU cores train in a quarter of an hour."""
        return cls(
            schedule=ScheduleParameters(name="jsd", timesteps=250),
            unet=UNetParameters(
                image_size=16,
                channels=3,
                base_width=24,
                width_multipliers=(1, 2, 2),
                residual_blocks=1,
                attention_sizes=(8, 4),
                dropout=0.0,
                groups=8,
            ),
            training=TrainingParameters(
                learning_rate=3e-3,
                warmup_steps=100,
                decay_steps=12_000,
                batch_size=32,
                ema_momentum=None,
                horizontal_flip=False,
            ),
            prediction="v",
            variance="fixed_small",
        )

    @classmethod
    def digits_conditional(cls) -> DiffusionParameters:
        """The model of the digits, told which digit each is: the label of the data set."""
        return cls.digits()._told((("digit", 10),))

    @classmethod
    def faces_conditional(cls) -> DiffusionParameters:
        """The model of the faces, told the attributes that ``faces.KEPT_OUT`` speaks of.

        Pairs of these are never shown together, which asks what guidance makes of them.
        """
        attributes = ("hat", 13), ("glasses", 5), ("beard", 4)
        return cls.faces()._told((*attributes, ("hair_colour", 9), ("clothes_colour", 8)))

    def _told(self, labels: tuple[tuple[str, int], ...]) -> DiffusionParameters:
        return dataclasses.replace(self, unet=dataclasses.replace(self.unet, labels=labels))

    @classmethod
    def mnist(cls) -> DiffusionParameters:
        """A model of 28x28 handwritten digits that two CPU cores train in a quarter of an hour."""
        return cls(
            schedule=ScheduleParameters(name="cosine", timesteps=250),
            unet=UNetParameters(
                image_size=28,
                channels=1,
                base_width=16,
                width_multipliers=(1, 2, 4),
                residual_blocks=1,
                attention_sizes=(7,),
                dropout=0.0,
                groups=4,
            ),
            training=TrainingParameters(
                learning_rate=2e-3,
                warmup_steps=100,
                decay_steps=7500,  # four epochs
                batch_size=32,
                ema_momentum=None,
                horizontal_flip=False,
            ),
            prediction="v",
            variance="fixed_small",
        )

    @classmethod
    def cifar10(cls) -> DiffusionParameters:
        """The paper's model of CIFAR-10 (appendix B): 35.7 million parameters."""
        return cls(ScheduleParameters(), UNetParameters(), TrainingParameters())

    @classmethod
    def for_data(
        cls, name: str | os.PathLike[str], image_shape: Sequence[int]
    ) -> DiffusionParameters:
        """The settings with which a page trains on a data set: one planned run, for two CPU cores.

        "digits", "faces" and "mnist" have those of their names, and "fashion_mnist" MNIST's. All
        others, CIFAR-10 and pictures of your own, have those of the faces, fitted to the shape of
        an image, ``(height, width, channels)``. (``cifar10()`` is the paper's model, which needs
        days of a large GPU.)

        Raises ValueError for images that are not square, or of an odd side, or have no channels.
        """
        presets = {preset.__name__: preset for preset in (cls.digits, cls.faces, cls.mnist)}
        presets["fashion_mnist"] = cls.mnist
        if str(name) not in presets:
            return cls._small(image_shape)
        preset = presets[str(name)]()
        fits = preset.unet.image_shape == tuple(image_shape)
        return preset if fits else cls._small(image_shape)

    @classmethod
    def _small(cls, image_shape: Sequence[int]) -> DiffusionParameters:
        """The settings of the faces, for images of another shape."""
        if len(image_shape) != 3 or image_shape[0] != image_shape[1] or image_shape[0] % 2:
            raise ValueError(
                f"image_shape={tuple(image_shape)}: must be (side, side, channels) with an even "
                "side. Load the images with image_size=16, say, which cuts them to squares."
            )
        side, channels, faces = image_shape[0], image_shape[2], cls.faces()
        widths = faces.unet.width_multipliers[: 2 if side % 4 or side <= 8 else 3]
        sides = [side // 2**i for i in range(len(widths))]
        unet = dataclasses.replace(
            faces.unet,
            image_size=side,
            channels=channels,
            width_multipliers=widths,
            attention_sizes=tuple(s for s in sides if s <= 8),
        )
        return dataclasses.replace(faces, unet=unet)

    @classmethod
    def celeba_hq_256(cls) -> DiffusionParameters:
        """The paper's model of 256x256 faces (appendix B): 113.7 million parameters."""
        return cls(
            schedule=ScheduleParameters(),
            unet=UNetParameters(image_size=256, width_multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0),
            training=TrainingParameters(learning_rate=2e-5, batch_size=64),
            variance="fixed_small",
        )


def save_parameters(
    parameters: DiffusionParameters, path: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Write the parameters to ``path``, as text (``.json``) or as a pickle (``.pkl``, ``.pickle``).

    The file appears whole or not at all. Saving the same parameters again changes nothing, so a
    notebook can be run twice. Returns the path.

    Raises FileExistsError if a file with other content is there and ``overwrite`` is False, or one
    that is not of parameters at all; ValueError for another suffix; FileNotFoundError if the folder
    does not exist; and TypeError for anything but ``DiffusionParameters``.
    """
    if not isinstance(parameters, DiffusionParameters):
        raise TypeError(
            f"save_parameters writes DiffusionParameters, but got {checks.shown(parameters)}. "
            "Put it into DiffusionParameters(schedule, unet, training) first."
        )
    target = checks.path("path", path)
    checks.flag("overwrite", overwrite)
    version = FILE_VERSION if parameters.unet.labels else VERSION_WITHOUT_LABELS
    content = {"format": FILE_FORMAT, "version": version, "parameters": parameters.to_dict()}
    data = plain_data.encode(content, target)
    if overwrite and target.is_file() and not _is_ours(target):
        raise FileExistsError(
            f"{target} is no file of parameters, and stays as it is. Choose another name, or "
            "remove it yourself."
        )
    if target.is_file() and not overwrite:
        with contextlib.suppress(OSError, ValueError, TypeError):  # not a file of parameters
            if load_parameters(target) == parameters:
                return target
        raise FileExistsError(
            f"{target} exists and holds something else. Choose another name, or pass "
            "overwrite=True to replace it."
        )
    write_whole(target, data)
    return target


def _is_ours(file: Path) -> bool:
    """Whether a file is one of parameters, though it may be damaged, or is empty."""
    if not file.stat().st_size:
        return True
    try:
        content = plain_data.read(file)
    except ValueError:
        return plain_data.begins_with(file, "format", FILE_FORMAT)
    return isinstance(content, dict) and content.get("format") == FILE_FORMAT


def load_parameters(path: str | os.PathLike[str]) -> DiffusionParameters:
    """Read what ``save_parameters`` wrote; the suffix decides between JSON and pickle.

    Raises FileNotFoundError if there is no such file, ``UnsafePickleError`` (a ValueError) for a
    pickle that is damaged or holds more than plain data, and ValueError or TypeError for
    everything else that is wrong, naming the file, the problem and the remedy.
    """
    source = checks.path("path", path)
    in_json = source.suffix.lower() == ".json"
    try:
        with checks.speaking_json() if in_json else contextlib.nullcontext():
            return _from_content(plain_data.read(source))
    except (ValueError, TypeError) as error:
        raise type(error)(f"{source} cannot be read as parameters: {error}") from error


def _from_content(content: object) -> DiffusionParameters:
    if not isinstance(content, dict) or content.get("format") != FILE_FORMAT:
        raise ValueError(
            f'it does not say "format": "{FILE_FORMAT}". Write the file with save_parameters.'
        )
    if "version" not in content:
        usual = checks.written("version", FILE_VERSION)
        raise ValueError(
            f"its {checks.shown('version')} is missing; of a new file it is {usual}. "
            "Add it, or write the file with save_parameters."
        )
    version = checks.integer("version", content["version"], 1)
    if version > FILE_VERSION:
        raise ValueError(
            f"{checks.written('version', version)}, and this package reads versions 1 to "
            f"{FILE_VERSION}. Update diffusion_walkthrough, or save the parameters again."
        )
    checks.keys("the file", content, ["format", "version", "parameters"])
    return DiffusionParameters.from_dict(content["parameters"], version)
