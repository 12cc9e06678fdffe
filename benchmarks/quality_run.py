"""One run of ``time_to_quality.py``: train a recipe for so many seconds, draw, and mark.

The clock runs while the model is built, compiled and trained, and stands still while images are
drawn and marked. A run happens in a process of its own, which imports the recipe's library, and
builds the recipe once, before the clock starts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import machine
import numpy as np

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import density_coverage, precision_recall

#: Seconds that a run is planned for, or after which one without a planned end is looked at.
LENGTHS = (10, 15, 20, 30, 40, 60, 80)
#: Neighbours that a ball reaches to: those of precision, as in chapter 06, and of coverage.
PRECISION_K, COVERAGE_K = 3, 5
#: A look takes the mean over at most so many drawings.
DRAWINGS = 4


class Recipe(Protocol):
    """What trains and draws."""

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""

    def train(self, images: np.ndarray, share_of_rate: Callable[[int], float | None]) -> None:
        """Train with the share of the rate that is said after so many steps, until it is None."""

    def draw(self, n: int, seed: int) -> np.ndarray:
        """Draw images."""


def _ours(seed: int, rate: float, batch: int) -> Recipe:
    import keras
    import recipes_keras

    keras.utils.set_random_seed(seed)
    return recipes_keras.ours(seed, rate, batch)


def _keras_example(seed: int, rate: float, batch: int) -> Recipe:
    import keras
    import tensorflow as tf

    # Before our package tells TensorFlow to leave each operation on one core.
    tf.config.threading.set_intra_op_parallelism_threads(machine.usable_cores())
    import recipes_keras

    keras.utils.set_random_seed(seed)
    return recipes_keras.keras_example(seed, rate, batch)


def _annotated(seed: int, rate: float, batch: int) -> Recipe:
    import recipes_torch
    import torch

    torch.manual_seed(seed)
    return recipes_torch.AnnotatedDiffusion(rate, batch)


def _small(seed: int, rate: float, batch: int) -> Recipe:
    import recipes_torch
    import torch

    torch.manual_seed(seed)
    return recipes_torch.SmallDiffusion(rate, batch)


class Published(NamedTuple):
    """A recipe as it was published: how it is made, its learning rate and batch.

    ``warm_up`` is the share of a run in which the rate rises; ``tuned`` says whether it is worth
    trials; a colour of Okabe & Ito's, which most colour-blind readers can tell apart.
    """

    make: Callable[[int, float, int], Recipe]
    rate: float
    batch: int
    colour: str
    marker: str
    warm_up: float = 0.0
    tuned: bool = True


RECIPES: dict[str, Published] = {
    "ours": Published(_ours, 6e-3, 128, "#D55E00", "o", warm_up=100 / 1080),
    "annotated": Published(_annotated, 1e-3, 128, "#009E73", "s"),
    "smalldiffusion": Published(_small, 7e-4, 1024, "#CC79A7", "D"),
    "Keras example": Published(_keras_example, 2e-4, 32, "#0072B2", "^", tuned=False),
}
FOR_TORCH = ("annotated", "smalldiffusion")


@dataclass(frozen=True)
class Setting:
    """What is chosen of a recipe; ``falls`` is whether its learning rate falls to 0 at the end."""

    recipe: str
    rate: float
    batch: int
    falls: bool
    channels_last: bool = False

    def make(self, seed: int) -> Recipe:
        """Build the recipe."""
        recipe: Any = RECIPES[self.recipe].make(seed, self.rate, self.batch)
        return recipe.put_channels_last() if self.channels_last else recipe


def share_of_rate(passed: float, warm_up: float, falls: bool) -> float:
    """The share of the learning rate after a share of the run: as ``decay_steps`` has it, in time.

    An even rise during ``warm_up``, then constant, or falling to 0 along half a cosine.
    """
    if passed < warm_up:
        return passed / warm_up
    return (1 + math.cos(math.pi * (passed - warm_up) / (1 - warm_up))) / 2 if falls else 1.0


class Clock:
    """A clock that stands still while somebody looks, and plans the learning rate.

    Attributes:
        seconds: what the clock shows.
        steps: training steps so far.
        first_step: the seconds shown after the first step, compilation included.
        waiting: the looks still to come, in seconds.
    """

    def __init__(
        self, looks: tuple[float, ...], look: Callable[[Clock, float], None], *rate: Any
    ) -> None:
        """Plan to call ``look`` once the clock shows each of ``looks`` seconds.

        ``rate`` is what ``share_of_rate`` wants besides the share of the run, which is counted
        from the end of the first step, before which nothing but compilation happens.
        """
        self.waiting, self.end, self.look, self.rate = list(looks), looks[-1], look, rate
        self.seconds, self.steps, self.first_step = 0.0, 0, 0.0

    def start(self) -> None:
        """Let the clock run."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Let the clock stand."""
        self.seconds += time.perf_counter() - self._since

    def after_steps(self, steps: int) -> float | None:
        """Look, if it is time to; the share of the rate for the next step, None after the last."""
        self.stop()
        self.steps = steps
        if steps:
            self.first_step = self.first_step or self.seconds
        over = [seconds for seconds in self.waiting if seconds <= self.seconds]
        if over:  # a slow step can end after several: they find the same
            del self.waiting[: len(over)]
            self.look(self, over[-1])
        self.start()
        return self._share() if self.waiting else None

    def _share(self) -> float:
        if not self.steps:
            return share_of_rate(0.0, *self.rate)
        passed = (self.seconds - self.first_step) / (self.end - self.first_step)
        return share_of_rate(passed, *self.rate)


def marks(images: np.ndarray, held_out: np.ndarray) -> list[float]:
    """Precision and coverage; 0 for images that are not finite."""
    if not np.isfinite(images).all():
        return [0.0, 0.0]
    precision, _ = precision_recall(held_out, images, k=PRECISION_K)
    return [precision, density_coverage(held_out, images, k=COVERAGE_K)[1]]


def mean_marks(
    recipe: Recipe, seed: int, held_out: np.ndarray, seconds: float
) -> tuple[list[float], int]:
    """The mean over several drawings, begun within so many seconds, and how many there were."""
    begin, found = time.perf_counter(), list[list[float]]()
    while len(found) < DRAWINGS and (not found or time.perf_counter() - begin < seconds):
        drawn = recipe.draw(len(held_out), seed + 1000 * len(found))
        found.append(marks(drawn, held_out))
    return [round(value, 4) for value in np.mean(found, axis=0).tolist()], len(found)


def run(kind: str, setting: Setting, seed: int, planned: float, drawing: float) -> dict[str, Any]:
    """Train once; returns what was measured, ready for JSON.

    Args:
        kind: "trial" or "run".
        setting: what is trained.
        seed: of weights, questions and drawings.
        planned: the seconds of training.
        drawing: the seconds within which a look may begin another drawing.

    A look is ``[planned, seconds, steps, precision, coverage, drawings]``.
    """
    training, _ = load_images("digits", split="train")
    held_out, _ = load_images("digits", split="test")
    looks: list[list[float]] = []

    def look(clock: Clock, at: float) -> None:
        found, drawings = mean_marks(recipe, seed, held_out, drawing)
        looks.append([at, round(clock.seconds, 2), clock.steps, *found, drawings])

    setting.make(seed)  # imports the library and wakes it up: not on the clock
    only_the_end = setting.falls or kind == "trial"
    before = () if only_the_end else tuple(seconds for seconds in LENGTHS if seconds < planned)
    clock = Clock((*before, planned), look, RECIPES[setting.recipe].warm_up, setting.falls)
    clock.start()
    recipe = setting.make(seed)
    recipe.train(training, clock.after_steps)
    found = {"kind": kind, **asdict(setting), "seed": seed, "planned": planned, "looks": looks}
    found |= {"first_step": round(clock.first_step, 2), "parameters": recipe.parameters}
    return found | {"machine": machine.description()}


def order(recipe: str, rounds: int = 3, seconds: float = 3.0) -> dict[str, Any]:
    """Which order of axes is the faster one for PyTorch: milliseconds a step of each, in turns."""
    training, _ = load_images("digits", split="train")
    batch = min(RECIPES[recipe].batch, 128)
    settings = [Setting(recipe, RECIPES[recipe].rate, batch, False, last) for last in (False, True)]
    paces: list[list[float]] = [[], []]
    for _ in range(rounds):
        for setting, pace in zip(settings, paces, strict=True):
            clock = Clock((seconds,), lambda clock, at: None, 0.0, False)
            clock.start()
            setting.make(0).train(training, clock.after_steps)
            pace.append((clock.seconds - clock.first_step) / max(clock.steps - 1, 1))
    first, last = (round(1000 * float(np.median(pace)), 1) for pace in paces)
    found = {"kind": "order", "recipe": recipe, "batch": batch, "channels_first": first}
    return found | {"channels_last": last, "machine": machine.description()}


def real_marks(repeats: int = 50) -> list[float]:
    """The marks of training digits in the place of drawn ones, mean over several draws."""
    training, _ = load_images("digits", split="train")
    held_out, _ = load_images("digits", split="test")
    generator = np.random.default_rng(0)
    draws = (generator.permutation(training)[: len(held_out)] for _ in range(repeats))
    return np.mean([marks(drawn, held_out) for drawn in draws], axis=0).tolist()
