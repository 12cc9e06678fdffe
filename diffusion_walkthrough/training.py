"""Training: the diffusion model as a Keras model.

A :class:`DiffusionModel` is a ``keras.Model``: ``compile``, ``fit(images)``, ``evaluate``, every
callback, and ``save`` work as for any other. What is special about diffusion stands in two short
methods: :meth:`DiffusionModel.call` asks the network one question about each image, and
:meth:`DiffusionModel.compute_loss` marks the answers.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.backward_sampling import p_sample_loop
from diffusion_walkthrough.compiled import CompiledNetwork
from diffusion_walkthrough.data import check_image_range
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.fused import adam_step, scaled, squared_norm
from diffusion_walkthrough.guarding import StepNotes, TrainingGuard
from diffusion_walkthrough.loss import training_losses
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, TrainingParameters
from diffusion_walkthrough.precision import bare_optimizer, dtype_policy, warn_of_another_policy
from diffusion_walkthrough.replicas import (
    ReplicaSeedGenerator,
    replica_count,
    share_order_of_images,
    sum_over_replicas,
    worker_count,
)
from diffusion_walkthrough.resuming import ResumeTraining as ResumeTraining
from diffusion_walkthrough.side_by_side import SideBySide, keep_operations_on_one_core
from diffusion_walkthrough.unet import build_unet

keep_operations_on_one_core()


def learning_rate_schedule(parameters: TrainingParameters) -> Any:
    """Build the learning rate: an even rise over the warm-up, then constant, or falling to 0.

    Args:
        parameters: ``learning_rate``, ``warmup_steps``, and ``decay_steps``, the length of the
            whole run if the rate is to fall along half a cosine, or None.

    Returns:
        A number, or a Keras schedule from step to learning rate.
    """
    schedules = keras.optimizers.schedules
    rate, warmup, total = (
        parameters.learning_rate,
        parameters.warmup_steps,
        parameters.decay_steps,
    )
    if total is not None:
        rise = {"warmup_target": rate, "warmup_steps": warmup} if warmup else {}
        return schedules.CosineDecay(0.0 if warmup else rate, total - warmup, **rise)
    if warmup:
        return schedules.PolynomialDecay(0.0, warmup, end_learning_rate=rate)
    return rate


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class AveragingAdam(keras.optimizers.Adam):
    """Adam whose average of the weights is right for short runs too, and that can be watched.

    The averaged weights, average = momentum · average + (1 - momentum) · weights, start from those
    of the first step. A momentum of 0.9999 would keep nine tenths of that start for 1,000 steps; so
    it begins low and rises with the number n of steps, min(``ema_momentum``, (1 + n) / (10 + n)),
    and the average covers about the last ninth of the run until the full momentum is reached
    (the rule of TensorFlow's ``ExponentialMovingAverage``).

    A step whose gradients are not all finite changes no weight. On several devices the gradients
    are added up before they are clipped, so that the clip is that of the whole batch.

    Attributes:
        gradient_norms: the sum of the global norms of the gradients, before clipping, and over how
            many steps; float32 ``(2,)``. :class:`TrainingLogs` reads it and sets it back.
        first_fault: the first step whose gradients were not finite, counted from 1 (0: none), and
            which of them was the first that was not; float32 ``(2,)``.
    """

    @property
    def ema_momentum(self) -> Any:
        """The momentum of the present step."""
        step = ops.cast(self.iterations, "float32")
        momentum = ops.minimum(self._full_momentum, (1.0 + step) / (10.0 + step))
        if not self.gradient_accumulation_steps:
            return momentum
        # Keras averages after each part of a step; only the last one has changed the weights.
        is_last_part = (self._iterations + 1) % self.gradient_accumulation_steps == 0
        return ops.where(is_last_part, momentum, 1.0)

    @ema_momentum.setter
    def ema_momentum(self, value: float) -> None:
        self._full_momentum = value

    def build(self, variables: Any) -> None:
        """Make the variables that the optimizer keeps for each weight, and the tally of norms."""
        if not self.built:
            super().build(variables)
            tally = {"shape": (2,), "dtype": "float32", "aggregation": "only_first_replica"}
            self.gradient_norms = self.add_variable(name="gradient_norms", **tally)
            self.first_fault = self.add_variable(name="first_fault", **tally)

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Change the weights by one step; on several devices, by that of the whole batch."""
        super().apply(sum_over_replicas(list(grads)), trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        # What Keras does on TensorFlow after it has clipped; here it is done already.
        return grads_and_vars

    def _clip_gradients(self, grads: Any) -> Any:
        # Where Keras clips: with gradient accumulation, after the accumulated mean is taken.
        squares = [squared_norm(g) for g in grads if g is not None]
        norm = ops.sqrt(ops.sum(ops.stack(squares)))
        self._is_finite = ops.isfinite(norm)
        tally = ops.stack([norm, ops.ones_like(norm)])
        self.gradient_norms.assign_add(ops.where(self._is_finite, tally, 0.0))
        self._note_fault(ops.stack(squares))
        scale = ops.where(self._is_finite, 1.0, 0.0)
        if self.global_clipnorm is not None:
            scale = scale * self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
            scale = ops.where(self._is_finite, scale, 0.0)
        else:
            grads = super()._clip_gradients(grads)
        return [g if g is None else scaled(g, scale) for g in grads]

    def _note_fault(self, squares: Any) -> None:
        """Remember the step if it is the first whose gradients are not finite."""
        step = ops.cast(self.iterations + 1, "float32")
        which = ops.cast(ops.argmin(ops.cast(ops.isfinite(squares), "int32")), "float32")
        before = ops.convert_to_tensor(self.first_fault)
        known = ops.logical_or(self._is_finite, before[0] > 0)
        self.first_fault.assign(ops.where(known, before, ops.stack([step, which])))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one weight: the step of Keras's Adam, on TensorFlow in one operation."""
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        at = self._get_variable_index(variable)
        moments = self._momentums[at], self._velocities[at]
        rates = self.beta_1, self.beta_2, self.epsilon
        adam_step(variable, *moments, gradient, learning_rate, self.iterations + 1, *rates)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, rate: Any) -> None:
        # Without gradients Adam would still move on with its momentum: a rate of 0 stops it.
        rate = ops.where(self._is_finite, ops.convert_to_tensor(rate), 0.0)
        super()._backend_update_step(grads, trainable_variables, rate)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to build the optimizer again."""
        return {**super().get_config(), "ema_momentum": self._full_momentum}


def make_optimizer(parameters: TrainingParameters) -> keras.optimizers.Optimizer:
    """Build the optimizer of the paper: Adam with warm-up, clipping and averaged weights.

    After each ``fit``, Keras puts the exponential moving average of the weights in their place.

    Args:
        parameters: learning rate, warm-up, decay, clipping, averaging, and in how many parts a
            step goes through its batch.

    Source: Ho et al. 2020, appendix B.
    """
    parts = parameters.gradient_accumulation_steps
    return AveragingAdam(
        learning_rate_schedule(parameters),
        epsilon=1e-8,
        global_clipnorm=parameters.gradient_clip,
        use_ema=parameters.ema_momentum is not None,
        ema_momentum=parameters.ema_momentum or 0.0,
        gradient_accumulation_steps=parts if parts > 1 else None,
    )


def mirror_half(images: Any, seed: Any) -> Any:
    """Mirror each image left to right with a chance of one half.

    Args:
        images: ``(batch, height, width, channels)``.
        seed: a number, or a ``keras.random.SeedGenerator``.
    """
    chance = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=seed)
    return ops.where(chance < 0.5, ops.flip(images, axis=2), images)


def accepted_options(sampler: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Pick the options that a sampler can be told and has not been told in advance."""
    told = getattr(sampler, "keywords", {})  # those of functools.partial
    parameters = inspect.signature(sampler).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return {
        name: value
        for name, value in options.items()
        if name not in told and (takes_all or name in parameters)
    }


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class DiffusionModel(keras.Model):
    """A UNet and a noise schedule, trained to guess noise and able to draw images.

    What the network predicts, how the variance of a step back is found and how the answers are
    marked is said by the parameters' ``prediction``, ``variance`` and ``loss``.

    Attributes:
        diffusion_parameters: all that defines the model (``parameters`` alone is a method of
            every PyTorch module, and would be hidden).
        schedule: the noise schedule with its tables.
        network: the UNet, a functional model from ``[x_t, t]`` to its prediction.
        ask: asks the network, on a CPU each core about its share of a batch.
    """

    def __init__(
        self, parameters: DiffusionParameters | dict, seed: int | None = None, **kwargs: Any
    ) -> None:
        """Build schedule and network.

        The network computes in the parameters' ``precision``, whatever Keras's global policy is;
        if that policy was set to another one, a warning says so.

        Args:
            parameters: what defines the model; a dictionary from ``parameters.to_dict()`` works.
            seed: makes the draws of t and of the noise in training repeatable. The initial
                weights follow ``keras.utils.set_random_seed``.
            **kwargs: as for ``keras.Model``.
        """
        if isinstance(parameters, dict):
            parameters = DiffusionParameters.from_dict(parameters)
        precision = parameters.training.precision
        warn_of_another_policy(precision)
        super().__init__(dtype=precision, **kwargs)  # in float16, Keras scales the loss
        self.autocast = False  # or Keras rounds the images to 16 bits before call sees them
        self.diffusion_parameters = parameters
        self._seed = seed
        self.schedule = NoiseSchedule.from_parameters(parameters.schedule)
        with dtype_policy(precision):
            self.network = build_unet(parameters.unet, parameters.variance == "learned")
        self.seed_generator = ReplicaSeedGenerator(seed)
        # Evaluation draws from a generator of its own, wound back each time: the same images give
        # the same loss, and looking at held-out images does not change the training.
        self.evaluation_generator = ReplicaSeedGenerator(seed)
        self._evaluation_start = ops.convert_to_numpy(self.evaluation_generator.state.value)
        self.ask = SideBySide(self._ask)
        self._denoiser: list[CompiledNetwork] = []  # in a list, so that Keras saves nothing of it
        self.step_notes = StepNotes()
        self.build((None, *parameters.unet.image_shape))

    def build(self, input_shape: Any = None) -> None:
        """Nothing is left to build: the network has its weights from the start."""
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> tuple[Any, ...]:
        """Hide each image under noise of a random strength and ask the network about it.

        Args:
            images: clean images in [-1, 1], ``(batch, height, width, channels)``.
            training: whether dropout is active, and ``horizontal_flip`` if the parameters ask for
                it.

        Returns:
            All that is needed to mark the answer: the answer itself, the clean images, the noisy
            ones, the steps ``(batch,)``, and the noise.
        """
        seed = self.seed_generator if training else self.evaluation_generator
        images = ops.cast(images, "float32")
        if training and self.diffusion_parameters.training.horizontal_flip:
            images = mirror_half(images, seed)
        noise = keras.random.normal(ops.shape(images), seed=seed)
        t = keras.random.randint(ops.shape(images)[:1], 0, len(self.schedule), seed=seed)
        x_t = q_sample(self.schedule, images, t, noise)
        answer = self.ask(x_t, t, training=bool(training))
        return ops.cast(answer, "float32"), images, x_t, t, noise

    def _ask(self, x_t: Any, t: Any, training: bool) -> Any:
        return self.network([x_t, t], training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Mark the answers, by default with the mean squared error of the noise (Eq. 14).

        One number, the mean over the images; ``sample_weight`` weighs them.
        """
        answer, images, x_t, t, noise = y_pred
        asked = (answer, self.schedule, images, x_t, t, noise)
        losses = training_losses(*asked, **self.marking_options)
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        return ops.mean(losses)

    def _compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        # Keras asks here for the loss of a step, and this asks compute_loss, which can be
        # overridden. On several devices each has its share of the loss, and the shares add up.
        loss = super()._compute_loss(x, y, y_pred, sample_weight, training)
        if training:
            self.step_notes.update_state(x, keras.tree.flatten(y_pred)[0], loss)
        return loss / replica_count()

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # On several devices, Keras would read a batch to build the model with; what is built needs
        # none, and Keras's way of reading fails for batches that are tuples, as ResumeTraining's.
        super()._maybe_symbolic_build()

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """The logs of a step, as Keras makes them.

        With several workers each as an array of one number: Keras takes their mean over the
        workers along an axis, which a plain number does not have.
        """
        logs = super().compute_metrics(x, y, y_pred, sample_weight)
        if worker_count() == 1:
            return logs
        return {name: ops.reshape(value, (1,)) for name, value in logs.items()}

    @property
    def marking_options(self) -> dict[str, Any]:
        """How answers are marked: the options of :func:`loss.training_losses`."""
        parameters = self.diffusion_parameters
        rules = {"loss": parameters.loss, "levels": parameters.pixel_levels}
        return {**self.backward_options, **rules}

    @property
    def backward_options(self) -> dict[str, str]:
        """What a sampler must know: ``prediction`` and ``variance``, for ``**options``."""
        parameters = self.diffusion_parameters
        return {"prediction": parameters.prediction, "variance": parameters.variance}

    def compile(self, optimizer: Any = None, **options: Any) -> None:
        """Make ready for ``fit``; without arguments, with the published optimizer.

        Args:
            optimizer: any Keras optimizer; None builds :func:`make_optimizer`.
            **options: as for ``keras.Model.compile``. ``jit_compile`` is off on TensorFlow
                unless asked for: on a CPU, XLA's convolutions are the slower ones.

        Raises:
            ValueError: for a loss or a metric of one's own, which would never be asked.
        """
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if options.get(name) is not None:
                raise ValueError(
                    f"{name} = {options[name]!r} cannot be chosen: a DiffusionModel marks its "
                    f"network's answers itself. Leave {name} out; DiffusionParameters(loss='kl') "
                    "trains on the variational bound, and compute_loss can be overridden."
                )
        if optimizer is None:
            optimizer = make_optimizer(self.diffusion_parameters.training)
        if keras.backend.backend() == "tensorflow":
            options.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **options)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        **options: Any,
    ) -> keras.callbacks.History:
        """Train on images, as ``keras.Model.fit`` does, with the parameters' own defaults.

        Args:
            x: clean images, float32 ``(n, height, width, channels)`` in [-1, 1]; or anything
                else that Keras trains on and that yields such batches.
            y: not used: the images are their own answer.
            batch_size: images per step, all its parts together; None takes the parameters' number.
            epochs: None plans the whole run of ``decay_steps`` steps, or 1 epoch without them.
            **options: as for ``keras.Model.fit``. Our own callbacks, :class:`TrainingGuard` (it
                raises), :class:`TrainingLogs` and perhaps :class:`AveragedWeights`, precede yours.

        A ``fit`` that is interrupted leaves the weights of its last step in the model (on JAX,
        where Keras ends every run alike, the averaged ones if it was in the middle of an epoch),
        one that ends leaves the averaged ones. Weights set by hand after that start a new average.
        With :class:`ResumeTraining` among the callbacks, a run whose process was killed goes on.

        Returns:
            Keras's history: of each epoch the loss, the learning rate at its end, and the mean
            global norm of the gradients before clipping.

        Raises:
            ValueError: if the images have another shape than the network's, or do not lie in
                [-1, 1]; or if the run is to be planned from a data set of unknown length.
        """
        if _is_array(x):
            self._check_images(x)
            batch_size = self._images_per_part(batch_size)
        if epochs is None:
            epochs = self._planned_epochs(x, batch_size, options)
        if y is not None:
            options["y"] = y
        with self._prepared(x, batch_size, options) as (x, options):
            x, options = _from_memory(x, batch_size, options)
            return super().fit(x, epochs=epochs, **options)

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, **options: Any
    ) -> Any:
        """Measure the loss on images, as ``keras.Model.evaluate`` does, without dropout.

        The same images in batches of the same size are asked about the same noise each time, so
        that two losses can be compared; with ``seed=None``, the same within one model.
        """
        if _is_array(x):
            self._check_images(x)
        self.evaluation_generator.state.assign(self._evaluation_start)
        return super().evaluate(x, y, batch_size=batch_size, **options)

    def _check_images(self, images: Any) -> None:
        expected = self.diffusion_parameters.unet.image_shape
        shape = tuple(images.shape)
        if shape[1:] != expected:
            raise ValueError(
                f"images have shape {shape}; this model needs (n, {expected[0]}, "
                f"{expected[1]}, {expected[2]}). load_images(…, image_size={expected[0]}) resizes, "
                "or build a model with other UNetParameters."
            )
        check_image_range(
            images if isinstance(images, np.ndarray) else ops.convert_to_numpy(images)
        )

    @property
    def _parts(self) -> int:
        """In how many parts the optimizer's step goes through its batch."""
        optimizer = bare_optimizer(self.optimizer) if self.compiled else None
        return getattr(optimizer, "gradient_accumulation_steps", None) or 1

    def _images_per_part(self, batch_size: int | None) -> int:
        """How many images the network sees at once, of the ``batch_size`` of a step."""
        if batch_size is None:
            batch_size = self.diffusion_parameters.training.batch_size
        if batch_size % self._parts:
            raise ValueError(
                f"batch_size = {batch_size} cannot be divided into the {self._parts} parts that "
                "gradient_accumulation_steps asks for. Use a multiple of it."
            )
        return batch_size // self._parts

    def _with_own_callbacks(self, callbacks: Any) -> Any:
        """Put this module's callbacks before the caller's, which then see what ours have done."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks
        others = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        own = []
        swapping = (AveragedWeights, keras.callbacks.SwapEMAWeights)
        averaged = self.compiled and getattr(bare_optimizer(self.optimizer), "use_ema", False)
        if averaged and not any(isinstance(callback, swapping) for callback in others):
            own.append(AveragedWeights())
        # What is to be resumed from is saved before the averages take the weights' place; ours also
        # saves the logs, and restores the tally, of TrainingLogs.
        backups = [c for c in others if isinstance(c, keras.callbacks.BackupAndRestore)]
        backups += [TrainingLogs(), *(c for c in others if isinstance(c, ResumeTraining))]
        guards = [c for c in others if isinstance(c, TrainingGuard)] or [TrainingGuard()]
        others = [c for c in others if c not in guards]
        return [*guards, *backups, *own, *(c for c in others if c is not None and c not in backups)]

    @contextlib.contextmanager
    def _prepared(
        self, x: Any, batch_size: int | None, options: dict[str, Any]
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Add the callbacks, look for a checkpoint, and tidy up after an interruption."""
        share_order_of_images(self)
        self._build_optimizer()
        options["callbacks"] = callbacks = self._with_own_callbacks(options.get("callbacks"))
        callbacks = getattr(callbacks, "callbacks", callbacks)  # those in a CallbackList, or ours
        with contextlib.ExitStack() as stack:
            for callback in callbacks:
                if isinstance(callback, ResumeTraining):
                    x, options = callback.prepare(self, x, batch_size, options)
                    stack.enter_context(callback.in_the_middle_of_an_epoch())
            try:
                yield x, options
            except BaseException:
                for callback in callbacks:
                    if isinstance(callback, AveragedWeights):
                        callback.show_own()
                raise

    def _build_optimizer(self) -> None:
        """Make the optimizer's variables; TensorFlow writes a step that makes them down twice."""
        is_ready = not self.compiled or self.optimizer.built
        if is_ready or keras.backend.backend() != "tensorflow":
            return
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)

    def _planned_epochs(self, x: Any, batch_size: int | None, options: dict[str, Any]) -> int:
        """How many epochs make up ``decay_steps`` steps, with the options that ``fit`` got."""
        total = self.diffusion_parameters.training.decay_steps
        if total is None:
            return 1
        steps = options.get("steps_per_epoch")
        if steps is None and _is_array(x):
            images = math.floor(len(x) * (1 - options.get("validation_split", 0.0)))
            steps = math.ceil(images / (batch_size or 1))
        if steps is None:
            steps = _number_of_batches(x)
        return math.ceil(total * self._parts / max(steps, 1))

    def get_compile_config(self) -> dict[str, Any] | None:
        """What Keras needs to compile a loaded model again."""
        if not self.compiled:
            return None
        return {"optimizer": keras.optimizers.serialize(self.optimizer)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded model with the saved one's optimizer, ready to go on training."""
        # The saved optimizer scales the loss, or was told not to.
        self.compile(keras.optimizers.deserialize(config["optimizer"]), auto_scale_loss=False)
        self.optimizer.build(self.trainable_variables)

    @property
    def denoise(self) -> CompiledNetwork:
        """The network, compiled: the denoise function that samplers take.

        ``denoise(x_t, t)`` takes noisy images, float32 ``(batch, height, width, channels)``, and
        steps, int32 ``(batch,)`` in 0 … T-1. It returns the guessed noise, or what else
        ``prediction`` says, float32, same shape as ``x_t``; with a learned variance twice the
        channels.
        """
        if not self._denoiser:
            self._denoiser.append(CompiledNetwork(self.network))
        return self._denoiser[0]

    def sample(
        self,
        n: int,
        seed: int | None = None,
        sampler: Callable[..., Any] = p_sample_loop,
        **options: Any,
    ) -> np.ndarray:
        """Draw images out of noise.

        Args:
            n: how many, at least 1.
            seed: makes them repeatable; None draws new ones each time.
            sampler: how to walk back, called as ``sampler(denoise, schedule, shape, seed=…)``, and
                with those of the model's ``backward_options`` that it takes.
            **options: passed on to the sampler, ``progress=True`` for instance.

        Returns:
            float32 ``(n, height, width, channels)`` in [-1, 1] (but see :func:`p_sample_loop` for
            a predicted ``"x_prev"``).

        Raises:
            ValueError: if ``n`` is not a whole number of at least 1.
        """
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(
                f"n = {n!r} images cannot be drawn; ask for a whole number of at least 1."
            )
        options = {**accepted_options(sampler, self.backward_options), **options}
        shape = (n, *self.diffusion_parameters.unet.image_shape)
        images = sampler(self.denoise, self.schedule, shape, seed=seed, **options)
        return ops.convert_to_numpy(images)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to build the model again."""
        parameters = self.diffusion_parameters.to_dict()
        return {"parameters": parameters, "seed": self._seed, "name": self.name}


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or ops.is_tensor(x)


#: What ``fit`` may be told for images to come out of memory in our own way.
_PLAIN_OPTIONS = {"callbacks", "verbose", "shuffle", "initial_epoch", "validation_data"}


def _from_memory(images: Any, batch_size: int | None, options: dict[str, Any]) -> tuple[Any, dict]:
    """Hand arrays to TensorFlow without waiting, and in another order in each epoch.

    Keras's own way ends each epoch by waiting for a thread that tunes the input: with a dozen
    short steps an epoch, up to a fifth of the time. And after ``keras.utils.set_random_seed`` it
    repeats the order of the first epoch in all others.

    Returns:
        What to train on, and the options of ``keras.Model.fit`` that go with it.
    """
    is_array = isinstance(images, np.ndarray) and len(images) > 0
    is_plain = bool(batch_size) and options.keys() <= _PLAIN_OPTIONS
    if keras.backend.backend() != "tensorflow" or not (is_array and is_plain):
        return images, {**options, "batch_size": batch_size}
    import tensorflow as tf

    places = tf.data.Dataset.range(len(images))
    if options.get("shuffle", True):
        places = places.shuffle(len(images))  # anew in each epoch
    held = tf.constant(images)
    data = places.batch(batch_size).map(lambda at: tf.gather(held, at))
    untuned = tf.data.Options()
    untuned.autotune.enabled = False
    options = {**options, "shuffle": False, "validation_batch_size": batch_size}
    return data.with_options(untuned), options


def _number_of_batches(data_set: Any) -> int:
    try:
        return len(data_set)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"epochs = None plans the whole run, but a {type(data_set).__name__} does not say how "
            "many batches it has. Pass epochs=…, or steps_per_epoch=… ."
        ) from error


class TrainingLogs(keras.callbacks.Callback):
    """Add the learning rate and the norm of the gradients to the logs of each epoch.

    They stand in the history, and in what later callbacks see, TensorBoard for instance:
    ``learning_rate`` is the one reached at the epoch's end; ``gradient_norm`` is the mean, over the
    epoch's steps, of the global norm before clipping (with an optimizer that tallies it, such as
    :class:`AveragingAdam`).
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin a new tally."""
        tally = getattr(bare_optimizer(self.model.optimizer), "gradient_norms", None)
        if tally is not None:  # it is made with the first step
            tally.assign(np.zeros(2, dtype="float32"))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Read both."""
        if logs is None:
            return
        optimizer = bare_optimizer(self.model.optimizer)
        logs["learning_rate"] = float(ops.convert_to_numpy(optimizer.learning_rate))
        tally = getattr(optimizer, "gradient_norms", None)
        if tally is not None:
            total, steps = ops.convert_to_numpy(tally)
            logs["gradient_norm"] = float(total / max(steps, 1.0))


class AveragedWeights(keras.callbacks.Callback):
    """Let validation, and callbacks at the end of an epoch, see the averaged weights.

    Training goes on with its own weights. Keras's ``SwapEMAWeights`` is meant for the same, but in
    a run that stops early it leaves the weights of the last step in the model, and its way of
    swapping rounds them on TensorFlow. A ``ModelCheckpoint`` saves the averages too: right to draw
    with; to go on with an interrupted run, use ``BackupAndRestore``.
    """

    def __init__(self) -> None:
        """Begin with the training's own weights in the model."""
        super().__init__()
        self._own_weights: list[Any] | None = None

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Each weight that is trained, with its average; none before the first step."""
        optimizer = bare_optimizer(self.model.optimizer)
        if not optimizer.built:
            return []
        averages = optimizer._model_variables_moving_average
        return list(zip(optimizer._trainable_variables, averages, strict=True))

    def show_average(self) -> None:
        """Put the averages into the model, and remember the training's own weights."""
        if self._own_weights is None:
            pairs = self._pairs()
            self._own_weights = [ops.convert_to_numpy(weight) for weight, _ in pairs]
            for weight, average in pairs:
                weight.assign(ops.convert_to_numpy(average))

    def show_own(self) -> None:
        """Put the training's own weights back."""
        if self._own_weights is not None:
            for (weight, _), value in zip(self._pairs(), self._own_weights, strict=True):
                weight.assign(value)
            self._own_weights = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Start a new average where the weights were set by hand since the last ``fit`` ended.

        Either way, by way of NumPy: on JAX an average that Keras has put into the model shares its
        buffer with the weight, and the first step would give it away twice.
        """
        has_ended = getattr(self.model, "_fit_has_ended", False)
        for weight, average in self._pairs():
            average.assign(ops.convert_to_numpy(weight if has_ended else average))
        self.model._fit_has_ended = False

    def on_train_end(self, logs: Any = None) -> None:
        """Remember that the averages are in the model now."""
        self.model._fit_has_ended = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Go back to the training's own weights."""
        self.show_own()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show the averages to the callbacks that follow."""
        self.show_average()

    def on_test_begin(self, logs: Any = None) -> None:
        """Show the averages to the validation."""
        self.show_average()

    def on_test_end(self, logs: Any = None) -> None:
        """Go back to the training's own weights."""
        self.show_own()


class SampleHistory(keras.callbacks.Callback):
    """Draw a few images from the same noise every now and then, to watch the model learn.

    They are drawn with the averaged weights if the parameters ask for an average
    (``ema_momentum``), else with the weights of that moment.

    Attributes:
        images: for each number of finished epochs, the images drawn then, float32
            ``(n, height, width, channels)``. 0 is before any training.
    """

    def __init__(
        self,
        every: int,
        n: int = 16,
        seed: int = 0,
        show: Callable[[int, np.ndarray], None] | None = None,
    ) -> None:
        """Plan when to draw.

        Args:
            every: after how many epochs each time, at least 1.
            n: how many images.
            seed: of the noise; the same each time, so that only the model changes.
            show: called with the number of finished epochs and the images, for a live view.

        Raises:
            ValueError: if ``every`` is less than 1.
        """
        super().__init__()
        if every < 1:
            raise ValueError(f"every = {every} epochs must be at least 1.")
        self.every, self.n, self.seed, self.show = every, n, seed, show
        self.images: dict[int, np.ndarray] = {}

    def _draw(self, epochs: int) -> None:
        self.images[epochs] = self.model.sample(self.n, seed=self.seed)
        if self.show:
            self.show(epochs, self.images[epochs])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Draw before any training; not where an interrupted one goes on."""
        if epoch == 0:
            self._draw(0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Draw after every so many epochs, and after the last."""
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            self._draw(epoch + 1)


class RunProgress(keras.callbacks.Callback):
    """One progress bar for a whole run, where Keras's own would print a line each epoch."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the bar."""
        self.bar = keras.utils.Progbar(self.params["epochs"], unit_name="epoch")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Move the bar on and show the epoch's loss."""
        latest = {name: float(value) for name, value in (logs or {}).items()}
        self.bar.stateful_metrics.update(latest)
        self.bar.update(epoch + 1, list(latest.items()))
