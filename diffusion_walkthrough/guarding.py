"""A guard over training: it stops at the first number that is not one, and says where it arose.

A NaN (not a number) or an infinity never goes away by itself, and images in a wrong range train to
nothing, quietly. Each step therefore notes, in a few numbers on the device, what it was asked and
what came of it (:class:`StepNotes`). :class:`TrainingGuard`, a callback, reads them after the
first step, about once a second, and at the end of each epoch; that costs next to nothing, and
nothing is lost by reading late: the first bad step stays noted, and the optimizer
(:class:`~diffusion_walkthrough.training.AveragingAdam`) changes no weight in a step whose gradients
are not finite.
"""

from __future__ import annotations

import math
import time
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.data import RANGE_TOLERANCE, check_image_range
from diffusion_walkthrough.precision import bare_optimizer
from diffusion_walkthrough.replicas import values_of_replicas

#: Steps in a row that loss scaling may skip: each halves the scale, which begins at 2^15.
SKIPS_IN_A_ROW = 16


class StepNotes(keras.metrics.Metric):
    """What an epoch's steps saw, and the first of them that went wrong; it adds nothing to logs.

    A Keras metric, because these are what every backend carries through its training step.

    Attributes:
        notes: float32 ``(8,)``: how many steps; the largest -pixel and pixel so far; of the first
            bad step its number from 1 (0: none), its largest -pixel and pixel, the sum of the
            network's answer, and the loss.
    """

    def __init__(self, name: str = "step_notes") -> None:
        """Begin with no step."""
        super().__init__(name=name, dtype="float32")
        self.notes = self.add_variable((8,), initializer="zeros", name="notes")
        self.reset_state()

    def reset_state(self) -> None:
        """Forget everything: an epoch begins."""
        self.notes.assign(np.array([0, -np.inf, -np.inf, 0, 0, 0, 0, 0], dtype="float32"))

    def update_state(self, images: Any, answer: Any, loss: Any) -> None:
        """Note one step: the images ``(batch, …)``, the network's answer, and the loss."""
        images, answer = ops.cast(images, "float32"), ops.cast(answer, "float32")
        loss = ops.cast(ops.mean(loss), "float32")
        # A maximum may pass over NaN, a sum does not.
        is_whole = ops.isfinite(ops.sum(images))
        span = ops.where(is_whole, ops.stack([ops.max(-images), ops.max(images)]), np.nan)
        in_range = ops.max(span) <= 1 + RANGE_TOLERANCE
        is_good = ops.logical_and(ops.logical_and(is_whole, in_range), ops.isfinite(loss))
        before = ops.convert_to_tensor(self.notes)
        steps = before[0] + 1
        fault = ops.concatenate([steps[None], span, ops.stack([ops.sum(answer), loss])])
        fault = ops.where(ops.logical_or(is_good, before[3] > 0), before[3:], fault)
        ranges = ops.maximum(before[1:3], span)
        self.notes.assign(ops.concatenate([steps[None], ranges, fault]))

    def result(self) -> dict[str, Any]:
        """Nothing: the notes are for :class:`TrainingGuard`."""
        return {}

    def read(self) -> list[np.ndarray]:
        """The notes of each replica of the model: with ``tf.distribute`` each keeps its own."""
        return values_of_replicas(self.notes)


class TrainingGuard(keras.callbacks.Callback):
    """Stop training at the first bad step, and say which tensor, which step and what to try.

    ``DiffusionModel.fit`` puts one before your callbacks; pass your own to choose ``every``.
    Steps that loss scaling skips under ``mixed_float16`` are no fault, unless too many come in a
    row. The guard writes no file, and weights stay as they were before the bad step with the
    optimizer of ``make_optimizer``; any other optimizer may have spoiled them: load the last
    checkpoint then.
    """

    def __init__(self, every: float = 1.0) -> None:
        """Plan when to look.

        Args:
            every: seconds between two looks; 0 looks after every step.

        Raises:
            ValueError: if ``every`` is negative.
        """
        super().__init__()
        if not every >= 0:
            raise ValueError(f"every = {every} seconds must be at least 0. Use for example 1.")
        self.every = every
        self._next_look = -math.inf

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Forget the faults of an earlier run, and look at the first step."""
        self._epoch = epoch
        self._next_look = -math.inf
        optimizer = bare_optimizer(self.model.optimizer)
        self._steps_before = int(ops.convert_to_numpy(optimizer.iterations))
        if (fault := getattr(optimizer, "first_fault", None)) is not None:
            fault.assign(np.zeros(2, dtype="float32"))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look, if it is time to."""
        if time.monotonic() >= self._next_look:
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()  # there the variables are elsewhere during an epoch
            self.look()
            self._next_look = time.monotonic() + self.every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look before anything is saved."""
        self._look_at_the_epoch()

    def on_test_begin(self, logs: Any = None) -> None:
        """Look before validation, with which the notes of the epoch end."""
        self._look_at_the_epoch()

    def _look_at_the_epoch(self) -> None:
        """Look, now that the range of all images is known: [0, 1] is as wrong as [0, 255]."""
        self.look()
        notes = np.array(self.model.step_notes.read())
        low, high = -notes[:, 1].max(), notes[:, 2].max()
        if np.isfinite([low, high]).all():
            check_image_range(np.array([low, high]))

    def look(self) -> None:
        """Raise if a step has gone wrong since the epoch began.

        Raises:
            ValueError: if images were not in [-1, 1].
            FloatingPointError: if anything else was NaN or infinite.
        """
        faults = [notes[3:] for notes in self.model.step_notes.read() if notes[3] > 0]
        if faults:
            self._explain(*min(faults, key=lambda fault: fault[0]))
        optimizer = self.model.optimizer
        fault = getattr(optimizer, "first_fault", None)  # none behind loss scaling, which skips
        if fault is not None and (values := ops.convert_to_numpy(fault))[0] > 0:
            self._explain_gradient(int(values[0]), int(values[1]))
        scale = getattr(optimizer, "dynamic_scale", None)
        if scale is not None:
            self._check_scale(optimizer.initial_scale, float(ops.convert_to_numpy(scale)))

    def _where(self, step: float) -> str:
        return f"at step {int(step)} of epoch {self._epoch + 1}"

    def _explain(self, step: float, low: float, high: float, answer: float, loss: float) -> None:
        where = self._where(step)
        if not max(low, high) <= 1 + RANGE_TOLERANCE:
            try:
                check_image_range(np.array([-low, high]))
            except ValueError as error:
                raise ValueError(f"Training stopped {where}, at the images. {error}") from None
        if weight := _first_bad_weight(self.model):
            raise FloatingPointError(
                f"Training stopped {where}: the weight {weight} is NaN or infinite, and so is "
                "everything after it. Load the last checkpoint, and go on from it with a lower "
                "learning_rate, more warmup_steps or a smaller gradient_clip."
            )
        if not math.isfinite(answer):
            raise FloatingPointError(
                f"Training stopped {where}: the images and the weights are finite numbers, the "
                f"network's answer is not (loss {loss}). {self._remedy()}"
            )
        raise FloatingPointError(
            f"Training stopped {where}: the network's answer is finite, the loss is {loss}. The "
            "answer is too large to be squared, or a sample_weight is NaN: look at the answer of "
            "model.denoise, and try a lower learning_rate or more warmup_steps."
        )

    def _explain_gradient(self, step: int, which: int) -> None:
        weight = self.model.optimizer._trainable_variables[which]
        raise FloatingPointError(
            f"Training stopped {self._where(step - self._steps_before)}: the loss is finite, the "
            f"gradient of the weight {weight.path} is not. No weight was changed by that step. "
            f"{self._remedy()}"
        )

    def _check_scale(self, initial_scale: float, scale: float) -> None:
        if scale >= initial_scale / 2**SKIPS_IN_A_ROW * 2:
            return
        raise FloatingPointError(
            f"Training stopped in epoch {self._epoch + 1}: the gradients have been NaN or infinite "
            f"in step after step, and loss scaling, which skips such steps, has gone down from "
            f"{initial_scale:g} to {scale:g}. {self._remedy()}"
        )

    def _remedy(self) -> str:
        if self.model.network.compute_dtype == "float16":
            return (
                "float16 ends at 65,504: try TrainingParameters(precision='mixed_bfloat16'), "
                "which ends where float32 does, or a lower learning_rate."
            )
        return "Try a lower learning_rate, more warmup_steps or a smaller gradient_clip."


def _first_bad_weight(model: keras.Model) -> str | None:
    """The path of the first weight that is not all finite numbers."""
    for weight in model.weights:
        if not np.isfinite(ops.convert_to_numpy(weight)).all():
            return weight.path
    return None
