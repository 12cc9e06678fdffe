"""Training: hide, ask, mark, nudge, a thousand times; the diffusion model as a Keras model.

A step of training has four parts, and each has one place. :class:`Questions` *hides* images under
noise. :meth:`DiffusionModel.call` *asks* the network. :meth:`DiffusionModel.compute_loss` *marks*
its answers. Keras's ``fit`` *nudges* the weights, and brings bars, callbacks and half precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.backward_sampling import ddpm_step
from diffusion_walkthrough.engine.cores import prepare_processor, side_by_side
from diffusion_walkthrough.engine.doors import given
from diffusion_walkthrough.engine.drawing import CompiledNetwork, collected, in_parts
from diffusion_walkthrough.engine.feeding import QuestionSet
from diffusion_walkthrough.engine.optimizer import AveragingAdam
from diffusion_walkthrough.engine.precision import dtype_policy
from diffusion_walkthrough.engine.running import TrainedOnQuestions, mean_of_batch
from diffusion_walkthrough.faster_sampling import named, restarted
from diffusion_walkthrough.guidance import denoiser, without_some
from diffusion_walkthrough.loss import mark
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, TrainingParameters
from diffusion_walkthrough.predictions import check_prediction
from diffusion_walkthrough.unet import build_unet

prepare_processor()


class Questions(QuestionSet):
    """Images hidden under noise, batch by batch: *what was done to this one?*

    A batch depends on nothing but the seed, the epoch and its number: a run that was killed goes on
    with the questions that it would have met, and every backend and device is asked alike.
    """

    def __init__(
        self,
        images: np.ndarray,
        schedule: NoiseSchedule,
        batch_size: int,
        seed: int = 0,
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        shuffle: bool = True,
        mirror: bool = False,
        steps_per_epoch: int | None = None,
        always_alike: bool = False,
        label_dropping: float = 0.0,
    ) -> None:
        """Plan the batches.

        Args:
            images: clean, float32 ``(n, height, width, channels)`` in [-1, 1].
            schedule: how strong the noise is at each step t.
            batch_size: images a batch; the last one of a pass through them has what is left.
            seed: of the order, the steps and the noise.
            labels, weights: int32 ``(n, …)``, what is told; float32 ``(n,)``, how much it counts.
            shuffle: whether each pass through the images has an order of its own.
            mirror: whether to mirror half of the images (``horizontal_flip``).
            steps_per_epoch: how many batches an epoch has; None for one pass through the images.
            always_alike: whether to ask the same in every epoch, as for a measurement.
            label_dropping: the share of images whose labels are left out, but in a measurement.
        """
        super().__init__(always_alike, batch_size, seed)
        self.images, self.labels, self.weights, self.schedule = images, labels, weights, schedule
        self.shuffle, self.mirror, self.label_dropping = shuffle, mirror, label_dropping
        self.batches = math.ceil(len(images) / batch_size)
        self.steps = steps_per_epoch or self.batches

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return self.steps

    def batch(self, epoch: int, number: int) -> tuple[Any, ...]:
        """What the network is shown, what was done to the images, and their weights if any."""
        round_, place = divmod(epoch * self.steps + number, self.batches)
        order = np.arange(len(self.images))
        if self.shuffle:
            np.random.default_rng([self.seed, round_]).shuffle(order)
        chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
        labels, weights = (None if x is None else x[chosen] for x in (self.labels, self.weights))
        random = np.random.default_rng([self.seed, round_, place, 1 + self.always_alike])
        labels = without_some(labels, random, self.label_dropping * (not self.always_alike))
        return hidden(self.schedule, random, self.images[chosen], labels, weights, self.mirror)


def hidden(
    schedule: NoiseSchedule,
    random: np.random.Generator,
    x_start: np.ndarray,
    labels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    mirror: bool = False,
) -> tuple[Any, ...]:
    """Hide images under noise, each at a step t of its own (Eq. 4).

    Returns what the network is shown, ``(x_t, t)`` or ``(x_t, t, labels)``; what was done, a
    dictionary with ``x_start`` and ``noise``; and the weights, if there are any.
    """
    if mirror:
        half = random.random((len(x_start), 1, 1, 1)) < 0.5
        x_start = np.where(half, x_start[:, :, ::-1], x_start)
    t = random.integers(len(schedule), size=len(x_start), dtype="int32")
    noise = random.standard_normal(x_start.shape, dtype="float32")
    signal_rate, noise_rate = schedule.rates(t, x_start.ndim)
    x_t = signal_rate * x_start + noise_rate * noise
    shown = (x_t, t) if labels is None else (x_t, t, labels)
    made_of = {"x_start": x_start, "noise": noise}
    return (shown, made_of) if weights is None else (shown, made_of, weights)


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class DiffusionModel(TrainedOnQuestions):
    """A UNet and a noise schedule as a ``keras.Model``, trained on questions and able to draw.

    Attributes:
        diffusion_parameters: all that defines the model.
        schedule: the noise schedule with its tables.
        network: the UNet, or what was given, a functional model from ``[x_t, t]`` (and labels).
        denoise: the network as a denoise function, compiled; its ``ask`` answers as it does.
    """

    def __init__(
        self,
        parameters: DiffusionParameters | dict,
        seed: int | None = None,
        network: keras.Model | None = None,
        **options: Any,
    ) -> None:
        """Build schedule and network.

        Args:
            parameters: what defines the model; a dictionary from ``parameters.to_dict()`` works.
            seed: of the questions; None follows ``keras.utils.set_random_seed``, as weights do.
            network: another network in the place of ``build_unet(parameters.unet)``.
            **options: as for ``keras.Model``.

        Raises TypeError or ValueError for a network that is shown, or answers, other shapes.
        """
        super().__init__(parameters, seed, **options)
        parameters = self.diffusion_parameters
        self.schedule = NoiseSchedule.from_parameters(parameters.schedule)
        check_prediction(self.schedule, parameters.prediction)
        self.network_given = given(network, parameters)
        with dtype_policy(parameters.training.precision):
            self.network = network or build_unet(parameters.unet, parameters.variance == "learned")
        self.ask, labels = side_by_side(self.network), parameters.unet.labels
        reading = self.schedule, parameters.prediction, parameters.variance, labels, self.beside
        self.denoise = denoiser(CompiledNetwork(self.network), *reading)

    def call(self, shown: Any, training: bool = False) -> Any:
        """Ask the network about noisy images: ``(x_t, t)``, or ``(x_t, t, labels)``."""
        return ops.cast(self.ask(*shown, training=training), "float32")

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Mark the answers, by default with the mean squared error of the noise (Eq. 14)."""
        (x_t, t), rules = x[:2], self.diffusion_parameters
        losses = mark(y_pred, self.schedule, y["x_start"], x_t, t, y["noise"], rules)
        return mean_of_batch(losses, sample_weight)

    def compile(self, optimizer: Any = None, **options: Any) -> None:
        """Make ready for ``fit``, without arguments with the published optimizer."""
        optimizer = optimizer or make_optimizer(self.diffusion_parameters.training)
        super().compile(optimizer=optimizer, **options)

    def questions(
        self, images: Any, labels: Any = None, weights: Any = None, **options: Any
    ) -> Questions:
        """Make images, once checked, into :class:`Questions`: those that ``fit`` asks."""
        images, labels, weights = self.checked(images, labels, weights)
        told = {"labels": labels, "weights": weights, "label_dropping": self.label_dropping}
        return Questions(images, self.schedule, **{"seed": self.seed, **told, **options})

    def sample(
        self, n: int, seed: Any = None, step: Callable[..., Any] | str = ddpm_step, **options: Any
    ) -> np.ndarray:
        """Draw ``n`` images out of noise, float32 ``(n, height, width, channels)`` in [-1, 1].

        Args:
            n: how many, at least 1.
            seed: makes them repeatable; None draws new ones each time.
            step: how to step back, a function or a name of ``faster_sampling.SAMPLERS``.
            **options: ``batch_size``, those of ``faster_sampling.restarted``, the step, its spacing
                and ``told``: ``model.sample(64, step="ddim", steps=20, labels=3, restarts=3)``.
        """
        return collected(self.drawn(n, seed, step, **options), self.shape_of(n))

    def drawn(self, n: int, seed: Any = None, step: Any = ddpm_step, **options: Any) -> Any:
        """Hand out the images of ``sample`` some at a time, for more than memory has room for."""
        shape, options = self.shape_of(n), self.told(n, **options)
        step, options = named(self.schedule, step, **options)
        return in_parts(restarted, step, self.denoise, self.schedule, shape, seed=seed, **options)


def learning_rate_schedule(parameters: TrainingParameters) -> Any:
    """Build the learning rate: an even rise over the warm-up, then constant, or falling to 0.

    With ``decay_steps`` it falls along half a cosine. Returns a number, or a Keras schedule.
    """
    schedules = keras.optimizers.schedules
    rate, warmup, total = parameters.learning_rate, parameters.warmup_steps, parameters.decay_steps
    if total is not None:
        rise = {"warmup_target": rate, "warmup_steps": warmup} if warmup else {}
        return schedules.CosineDecay(0.0 if warmup else rate, total - warmup, **rise)
    return schedules.PolynomialDecay(0.0, warmup, end_learning_rate=rate) if warmup else rate


def make_optimizer(parameters: TrainingParameters) -> keras.optimizers.Optimizer:
    """Build the original's optimizer: Adam and averaged weights (appendix B), warm-up, clipping.

    The last two are in its program only (``scripts/run_cifar.py``).
    """
    rate, clip = learning_rate_schedule(parameters), parameters.gradient_clip
    momentum, parts = parameters.ema_momentum, parameters.gradient_accumulation_steps
    return AveragingAdam(rate, epsilon=1e-8, clip=clip, momentum=momentum, parts=parts)
