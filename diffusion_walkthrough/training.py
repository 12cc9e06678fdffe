"""Training: the diffusion model as a Keras model.

A :class:`DiffusionModel` is a ``keras.Model``: ``compile``, ``fit(images)``, ``evaluate``, every
callback, and ``save`` work as for any other. What is special about diffusion stands in two short
methods: :meth:`DiffusionModel.call` asks the network one question about each image, and
:meth:`DiffusionModel.compute_loss` marks the answers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from diffusion_walkthrough.backward_sampling import DenoiseFn, p_sample_loop
from diffusion_walkthrough.data import check_image_range
from diffusion_walkthrough.forward_diffusion import q_sample
from diffusion_walkthrough.loss import mean_per_image
from diffusion_walkthrough.noise_schedule import NoiseSchedule
from diffusion_walkthrough.parameters import DiffusionParameters, TrainingParameters
from diffusion_walkthrough.unet import build_unet


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


def make_optimizer(parameters: TrainingParameters) -> keras.optimizers.Optimizer:
    """Build the optimizer of the paper: Adam with warm-up, clipping and averaged weights.

    After each ``fit``, Keras puts the exponential moving average of the weights in their place.

    Args:
        parameters: learning rate, warm-up, decay, clipping and averaging.

    Source: Ho et al. 2020, appendix B.
    """
    return keras.optimizers.Adam(
        learning_rate_schedule(parameters),
        epsilon=1e-8,
        global_clipnorm=parameters.gradient_clip,
        use_ema=parameters.ema_momentum is not None,
        ema_momentum=parameters.ema_momentum or 0.0,
    )


def compile_denoiser(network: keras.Model) -> DenoiseFn:
    """Turn a network into a fast denoise function that is traced once for all batch sizes.

    What only one backend can do stands here: ``tf.function`` without XLA (on a CPU its
    convolutions are faster than XLA's), ``jax.jit`` with the weights passed in, or PyTorch
    without gradients.

    Args:
        network: functional model from ``[x_t, t]`` to the predicted noise.

    Returns:
        Callable ``(x_t, t) -> predicted noise``, float32, whatever the precision inside.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _compile_for_tensorflow(network)
    if backend == "jax":
        return _compile_for_jax(network)

    def denoise(x_t: Any, t: Any) -> Any:
        import torch

        with torch.no_grad():
            return ops.cast(network([x_t, t], training=False), "float32")

    return denoise


def _compile_for_tensorflow(network: keras.Model) -> DenoiseFn:
    import tensorflow as tf

    image = tf.TensorSpec((None, *network.input_shape[0][1:]), tf.float32)
    step = tf.TensorSpec((None,), tf.int32)

    @tf.function(input_signature=[image, step], jit_compile=False)
    def denoise(x_t: Any, t: Any) -> Any:
        return tf.cast(network([x_t, t], training=False), tf.float32)

    return denoise


def _compile_for_jax(network: keras.Model) -> DenoiseFn:
    import jax

    @jax.jit
    def apply(trainable: Any, non_trainable: Any, x_t: Any, t: Any) -> Any:
        result, _ = network.stateless_call(trainable, non_trainable, [x_t, t], training=False)
        return result.astype("float32")

    def denoise(x_t: Any, t: Any) -> Any:
        trainable = [variable.value for variable in network.trainable_variables]
        non_trainable = [variable.value for variable in network.non_trainable_variables]
        return apply(trainable, non_trainable, x_t, t)

    return denoise


def mirror_half(images: Any, seed: Any) -> Any:
    """Mirror each image left to right with a chance of one half.

    Args:
        images: ``(batch, height, width, channels)``.
        seed: a number, or a ``keras.random.SeedGenerator``.
    """
    chance = keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=seed)
    return ops.where(chance < 0.5, ops.flip(images, axis=2), images)


def takes_variance(sampler: Callable[..., Any]) -> bool:
    """Whether a sampler can be told ``variance`` and has not been told it in advance."""
    if "variance" in getattr(sampler, "keywords", {}):  # those of functools.partial
        return False
    parameters = inspect.signature(sampler).parameters.values()
    return any(p.name == "variance" or p.kind is p.VAR_KEYWORD for p in parameters)


@keras.saving.register_keras_serializable("diffusion_walkthrough")
class DiffusionModel(keras.Model):
    """A UNet and a noise schedule, trained to guess noise and able to draw images.

    Attributes:
        diffusion_parameters: all that defines the model (``parameters`` alone is a method of
            every PyTorch module, and would be hidden).
        schedule: the noise schedule with its tables.
        network: the UNet, a functional model from ``[x_t, t]`` to the predicted noise.
    """

    def __init__(
        self, parameters: DiffusionParameters | dict, seed: int | None = None, **kwargs: Any
    ) -> None:
        """Build schedule and network.

        Args:
            parameters: what defines the model; a dictionary from ``parameters.to_dict()`` works.
            seed: makes the draws of t and of the noise in training repeatable. The initial
                weights follow ``keras.utils.set_random_seed``.
            **kwargs: as for ``keras.Model``.
        """
        super().__init__(**kwargs)
        self.autocast = False  # or Keras rounds the images to 16 bits before call sees them
        if isinstance(parameters, dict):
            parameters = DiffusionParameters.from_dict(parameters)
        self.diffusion_parameters = parameters
        self.schedule = NoiseSchedule.from_parameters(parameters.schedule)
        self.network = build_unet(parameters.unet)
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Evaluation draws from a generator of its own, wound back each time: the same images give
        # the same loss, and looking at held-out images does not change the training.
        self.evaluation_generator = keras.random.SeedGenerator(seed)
        self._evaluation_start = ops.convert_to_numpy(self.evaluation_generator.state.value)
        self._denoiser: list[DenoiseFn] = []  # filled at the first use
        self.build((None, *parameters.unet.image_shape))

    def build(self, input_shape: Any = None) -> None:
        """Nothing is left to build: the network has its weights from the start."""
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Hide each image under noise of a random strength and ask what the noise was.

        Args:
            images: clean images in [-1, 1], ``(batch, height, width, channels)``.
            training: whether dropout is active, and ``horizontal_flip`` if the parameters ask for
                it.

        Returns:
            The noise that was added and the network's guess, same shape as ``images``.
        """
        seed = self.seed_generator if training else self.evaluation_generator
        images = ops.cast(images, "float32")
        if training and self.diffusion_parameters.training.horizontal_flip:
            images = mirror_half(images, seed)
        noise = keras.random.normal(ops.shape(images), seed=seed)
        t = keras.random.randint(ops.shape(images)[:1], 0, len(self.schedule), seed=seed)
        x_t = q_sample(self.schedule, images, t, noise)
        guess = self.network([x_t, t], training=training)
        return noise, ops.cast(guess, "float32")

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Mark the guess: the mean squared error of the noise (Eq. 14). One number."""
        noise, guess = y_pred
        losses = mean_per_image(ops.square(noise - guess))
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        return ops.mean(losses)

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
                    f"{name} = {options[name]!r} cannot be chosen: a DiffusionModel marks the "
                    f"guessed noise itself (Eq. 14). Leave {name} out, or override compute_loss."
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
            batch_size: images per step; None takes the parameters' number.
            epochs: None plans the whole run of ``decay_steps`` steps, or 1 epoch if the
                parameters name no such number.
            **options: as for ``keras.Model.fit``.

        Returns:
            Keras's history, with the loss of each epoch.

        Raises:
            ValueError: if the images have another shape than the network's, or do not lie in
                [-1, 1]; or if the run is to be planned from a data set of unknown length.
        """
        if _is_array(x):
            self._check_images(x)
            if batch_size is None:
                batch_size = self.diffusion_parameters.training.batch_size
        if epochs is None:
            epochs = self._planned_epochs(x, batch_size, options)
        return super().fit(x, y, batch_size=batch_size, epochs=epochs, **options)

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
        return math.ceil(total / max(steps, 1))

    def get_compile_config(self) -> dict[str, Any] | None:
        """What Keras needs to compile a loaded model again."""
        if not self.compiled:
            return None
        return {"optimizer": keras.optimizers.serialize(self.optimizer)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile a loaded model with the saved one's optimizer, ready to go on training."""
        self.compile(keras.optimizers.deserialize(config["optimizer"]))
        self.optimizer.build(self.trainable_variables)

    def denoise(self, x_t: Any, t: Any) -> Any:
        """Guess the noise in ``x_t`` at step ``t``: the denoise function that samplers take.

        Args:
            x_t: noisy images, float32 ``(batch, height, width, channels)``.
            t: int32 ``(batch,)`` in 0 … T-1.

        Returns:
            The guessed noise, float32, same shape as ``x_t``.
        """
        if not self._denoiser:
            self._denoiser.append(compile_denoiser(self.network))
        return self._denoiser[0](x_t, t)

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
                with the model's ``variance`` if it takes one.
            **options: passed on to the sampler, ``progress=True`` for instance.

        Returns:
            float32 ``(n, height, width, channels)`` in [-1, 1].

        Raises:
            ValueError: if ``n`` is not a whole number of at least 1.
        """
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ValueError(
                f"n = {n!r} images cannot be drawn; ask for a whole number of at least 1."
            )
        if takes_variance(sampler):
            options.setdefault("variance", self.diffusion_parameters.variance)
        shape = (n, *self.diffusion_parameters.unet.image_shape)
        images = sampler(self.denoise, self.schedule, shape, seed=seed, **options)
        return ops.convert_to_numpy(images)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to build the model again."""
        return {"parameters": self.diffusion_parameters.to_dict(), "name": self.name}


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray) or ops.is_tensor(x)


def _number_of_batches(data_set: Any) -> int:
    try:
        return len(data_set)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            f"epochs = None plans the whole run, but a {type(data_set).__name__} does not say how "
            "many batches it has. Pass epochs=…, or steps_per_epoch=… ."
        ) from error


class SampleHistory(keras.callbacks.Callback):
    """Draw a few images from the same noise every now and then, to watch the model learn.

    They are drawn with the weights of that moment; an average (``ema_momentum``) takes their place
    only after ``fit``.

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

    def on_train_begin(self, logs: Any = None) -> None:
        """Draw before any training."""
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
