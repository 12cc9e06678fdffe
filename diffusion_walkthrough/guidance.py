"""Guidance: a network that was told labels, and asked for more of what they say.

Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) asks the network twice, with a
label and without, and goes on in the direction in which the label has moved its answer:

    answer = untold + s (told - untold).

``s`` is the ``guidance_scale``. It is off at 1, where the answer is the told one, and 0 is the
untold one. Ho and Salimans write told + w (told - untold), which is off at 0: s = w + 1. Both are
in use, under one name.

Images that may be asked for without a label have to be trained so: now and then their labels are
left out (:func:`without_some`).

A walk can be led by more than labels: by a worse network (:func:`autoguided`), or by the part of an
image that is known (:func:`inpaint`), which a network can learn to look at, too
(:func:`inpainting_network`). What guidance draws is not p(x) p(label | x)^s, as is often said:
:class:`LabelledWorld` has both exactly, in one dimension.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from diffusion_walkthrough.backward_sampling import DenoiseFn, ddpm_step, times
from diffusion_walkthrough.checks import integer
from diffusion_walkthrough.data import NO_LABEL
from diffusion_walkthrough.engine.feeding import QuestionSet
from diffusion_walkthrough.engine.labels import (
    checked_interval,
    checked_labels,
    checked_scale,
    checked_told,
    is_symbolic,
    telling,
    unsaid,
)
from diffusion_walkthrough.engine.noise import NoiseOfPart, checked_clean, generator_of
from diffusion_walkthrough.forward_diffusion import as_float32
from diffusion_walkthrough.gaussian_mixture import GaussianMixture
from diffusion_walkthrough.noise_schedule import FloatArray, NoiseSchedule
from diffusion_walkthrough.predictions import SMALLEST, Denoiser, of_each


def without_some(
    labels: np.ndarray | None, random: np.random.Generator, share: float
) -> np.ndarray | None:
    """Leave out the labels of some images, by chance: one decision for all labels of an image.

    Args:
        labels: int32 ``(n, …)``.
        random: makes the decisions.
        share: of the images that lose theirs, from 0 to below 1.

    Returns labels of the same shape, with -1, "not said", for those that are left out; and draws
    nothing where there are none to leave out.
    """
    if labels is None or not share:
        return labels
    left_out = random.random(len(labels)) < share
    left_out = left_out.reshape(-1, *[1] * (labels.ndim - 1))
    return np.where(left_out, np.int32(NO_LABEL), labels)


def guided(told: Any, untold: Any, scale: Any) -> Any:
    """Go from one answer towards, and beyond, another: untold + s (told - untold), Eq. 6.

    Any answers of a network but a variance, or clean images that are not clipped: all of these are
    straight lines in each other at a given x_t, so that guiding one guides them all.

    Args:
        told: with the label, ``(batch, …)``.
        untold: without, same shape.
        scale: s, a number or ``(batch,)``; 1 is off. (In the paper's letters, w = s - 1.)
    """
    told, untold = as_float32(told), as_float32(untold)
    scale = as_float32(scale)
    if len(scale.shape) == 1:
        scale = ops.reshape(scale, (-1,) + (1,) * (len(told.shape) - 1))
    return untold + scale * (told - untold)


def only_between(schedule: NoiseSchedule, t: Any, scale: Any, interval: Any) -> Any:
    """The scale where σ = b/a lies in an interval, and 1, which is off, elsewhere: ``(batch,)``.

    On photographs guidance harms where there is nearly nothing but noise, as all images are pushed
    alike, and is largely unnecessary where there is hardly any (Kynkäänniemi et al. 2024, arXiv
    2404.07724). The interval, ``(batch, 2)``, is one of σ and not of step numbers, which mean
    another σ in each schedule.
    """
    a, b = (as_float32(rate) for rate in schedule.rates(ops.convert_to_tensor(t), 1))
    sigma, interval = b / ops.maximum(a, SMALLEST), as_float32(interval)
    inside = ops.logical_and(sigma >= interval[:, 0], sigma <= interval[:, 1])
    return ops.where(inside, as_float32(scale), 1.0)


def rescaled(guided: Any, told: Any, share: float = 0.7) -> Any:
    """Give guided images the spread of the told ones back, or a ``share`` of the way there.

    A scale of 7 makes pixels too black and too white, and clipping them burns them in. Here each
    image's deviation from its own mean pixel becomes that of the told one; both ``(batch, …)``.

    Source: Lin et al. 2023 (arXiv 2305.08891), Eqs. 14 to 16.
    """
    guided, told = as_float32(guided), as_float32(told)
    axes = tuple(range(1, len(guided.shape)))
    spreads = [ops.std(x, axis=axes, keepdims=True) for x in (told, guided)]
    return guided * (1 - share + share * spreads[0] / ops.maximum(spreads[1], SMALLEST))


@dataclasses.dataclass(frozen=True)
class GuidedDenoiser(Denoiser):
    """A network that is told labels as a denoise function: ``(x_t, t, labels, scale) -> x_start``.

    Without labels nothing is said (-1), and the network answers for all of them. With a ``scale``,
    ``(batch,)``, it is guided: both questions are asked in one call, of twice as many images. Of a
    learned variance the told one is taken. The clean image is clipped once it has been guided. With
    an ``interval`` beside it, ``(batch, 2)``, it is guided while σ lies in that, see
    :func:`only_between`. What the network is shown ``beside`` them comes before the labels, and is
    said both times.

    Raises ValueError for labels that the network does not know.
    """

    labels: tuple[tuple[str, int], ...] = ()  # what it is told, as in UNetParameters
    beside: int = 0  # how much it is shown besides, such as what is known of images

    def checked_told(self, n: int, *told: Any) -> list[Any]:
        """What it is told of ``n`` images beside x_t and t: as it is, labels and what guides them.

        Raises TypeError or ValueError for labels, a scale or an interval that cannot be.
        """
        beside, own = told[: self.beside], told[self.beside :]
        if len(own) > 3:
            raise ValueError(
                f"there are {len(told)} things to tell the network, but after labels, a scale and "
                "an interval it is told nothing. Leave out the last."
            )
        ways = (lambda x, n: checked_labels(x, self.labels, n), checked_scale, checked_interval)
        said = [None if x is None else way(x, n) for x, way in zip(own, ways, strict=False)]
        labels = said[0] if said and said[0] is not None else unsaid(np.zeros(n), self.labels)
        super().checked_told(n, *beside, labels)
        return [*beside, *said]

    def ask(self, x_t: Any, t: Any, *told: Any) -> Any:
        """Ask the network itself, guided if there are labels and a scale; its answer, float32."""
        x_t = as_float32(x_t)
        t = ops.convert_to_tensor(of_each(t, x_t))
        if x_t.shape[0] is not None and not any(map(is_symbolic, (x_t, *told))):
            told = tuple(self.checked_told(x_t.shape[0], *told))
        shown, told = (x_t, t, *told[: self.beside]), told[self.beside :]
        labels, scale, interval = (*told, None, None, None)[:3]
        nothing = unsaid(t, self.labels)
        labels = nothing if labels is None else ops.convert_to_tensor(labels, dtype="int32")
        if scale is None:
            return super().ask(*shown, labels)
        if interval is not None:
            scale = only_between(self.schedule, t, scale, interval)
        twice = zip((*shown, labels), (*shown, nothing), strict=True)
        asked = [ops.concatenate(both) for both in twice]
        with_them, without = ops.split(super().ask(*asked), 2)
        answer = guided(with_them, without, scale)
        if self.variance != "learned":
            return answer
        channels = x_t.shape[-1]
        return ops.concatenate([answer[..., :channels], with_them[..., channels:]], axis=-1)


def denoiser(
    network: Any,
    schedule: NoiseSchedule,
    prediction: str,
    variance: str,
    labels: tuple[tuple[str, int], ...] = (),
    beside: int = 0,
) -> Denoiser:
    """Make a network a denoise function, with a place for labels if it is told some."""
    if not labels:
        return Denoiser(network, schedule, prediction, variance)
    return GuidedDenoiser(network, schedule, prediction, variance, labels=labels, beside=beside)


def autoguided(denoise: Denoiser, worse: Denoiser, scale: float = 2.0) -> DenoiseFn:
    """Guide a network by a worse one, say an earlier checkpoint: worse + s (it - worse).

    Both have the same faults, one has more of them: what tells the two apart leads away from these,
    and not to less variety, as leaving out a label does. The clean images are guided, which is the
    same as guiding the answers, and then clipped as ``denoise`` clips.

    Source: Karras et al. 2024 (arXiv 2406.02507).
    """
    free = [dataclasses.replace(one, clip=False) for one in (denoise, worse)]

    def answered(x_t: Any, t: Any, *told: Any) -> Any:
        good, bad = (one(x_t, t, *told) for one in free)
        x_start = guided(good, bad, scale)
        return ops.clip(x_start, -1.0, 1.0) if denoise.clip else x_start

    answered.checked_told = denoise.checked_told  # type: ignore[attr-defined]
    return answered


# The world of one dimension -------------------------------------------------------------------


class LabelledWorld:
    """Numbers of several classes, each a mixture of Gaussians: guidance without a network, exact.

    It is a denoise function, ``(x_t, t, labels, scale) -> x_start``, of numbers ``(batch, …)``.

    Attributes:
        classes: what the numbers of each class are spread like.
        shares: of the numbers that each class has, which add up to 1.
        whole: what all numbers together are spread like.
    """

    def __init__(
        self, classes: Sequence[GaussianMixture], shares: Sequence[float], schedule: NoiseSchedule
    ) -> None:
        """Put the classes together; ValueError unless the shares are as many, and add up to 1."""
        if len(classes) != len(shares):
            raise ValueError(
                f"shares = {[*shares]} must be one for each of the {len(classes)} classes."
            )
        self.classes, self.shares, self.schedule = [*classes], [*shares], schedule
        parts = [
            np.multiply(share, one.weights) for share, one in zip(shares, classes, strict=True)
        ]
        means, deviations = (
            np.concatenate([getattr(one, name) for one in classes])
            for name in ("means", "standard_deviations")
        )
        self.whole = GaussianMixture(np.concatenate(parts), means, deviations)

    def __call__(self, x_t: Any, t: Any, labels: Any = None, scale: Any = None) -> Any:
        """E[x_0 | x_t], of the whole or of a class, guided if there is a scale; float32."""
        x_t = np.asarray(ops.convert_to_numpy(x_t), np.float64)
        alpha_bar = np.asarray(self.schedule.alpha_bar(np.asarray(ops.convert_to_numpy(t))))
        alpha_bar = np.broadcast_to(alpha_bar.reshape(-1, *[1] * (x_t.ndim - 1)), x_t.shape)
        untold = self.whole.expected_x_start(x_t, alpha_bar)
        if labels is None:
            return as_float32(untold)
        labels, told = np.asarray(ops.convert_to_numpy(labels)), untold.copy()
        for label, one in enumerate(self.classes):
            told[labels == label] = one.expected_x_start(x_t, alpha_bar)[labels == label]
        return as_float32(told) if scale is None else guided(told, untold, scale)

    def product_pdf(self, x: FloatArray, label: int, scale: float) -> FloatArray:
        """What guidance is often said to draw from: p(x) p(label | x)^s, made to be a density.

        ``x`` are numbers in a row that reaches everywhere, close and even; so is the result.
        """
        log_whole = self.whole.log_pdf(x)
        log_label = np.log(self.shares[label]) + self.classes[label].log_pdf(x) - log_whole
        log_product = log_whole + scale * log_label
        density = np.exp(log_product - np.max(log_product))
        return density / (np.sum(density) * (x[1] - x[0]))

    def product_denoiser(self, label: int, scale: float, reach: float = 3.0) -> DenoiseFn:
        """The denoise function with which a walk does draw from that product, by summation.

        Numbers from -``reach`` to ``reach`` are summed over. Where it differs from the guided one
        is what the saying leaves out: noise does not go into a product factor by factor.
        """
        x = np.linspace(-reach, reach, 2001)
        log_density = np.log(np.maximum(self.product_pdf(x, label, scale), 1e-300))

        def denoise(x_t: Any, t: Any) -> Any:
            x_t = np.asarray(ops.convert_to_numpy(x_t), np.float64)
            kept = np.asarray(self.schedule.alpha_bar(np.asarray(ops.convert_to_numpy(t))))
            kept = kept.reshape(-1, *[1] * x_t.ndim)
            fit = log_density - (x_t[..., None] - np.sqrt(kept) * x) ** 2 / (2 * (1 - kept))
            weights = np.exp(fit - fit.max(axis=-1, keepdims=True))
            return as_float32(np.sum(weights * x, axis=-1) / np.sum(weights, axis=-1))

        return denoise


# Inpainting -----------------------------------------------------------------------------------


def replacing(step: Callable[..., Any], images: Any, known: Any) -> Callable[..., Any]:
    """A kind of step that puts the known part of an image into its place: under noise for s.

    After a step from t to s the rest is at s, and so the known part has to be; with the noise of t
    it would be noisier than all around it.

    Args:
        step: a kind of step, whose arguments and result the new one has.
        images: clean ones, ``(batch, …)`` in [-1, 1].
        known: true where a pixel is known; broadcasts to the images.

    Raises ValueError if the images do not lie in [-1, 1], or if the two do not fit.
    """
    images = checked_clean(images)
    known = _fitting(known, images, images.shape)

    @functools.wraps(step)
    def replaced(
        denoise: Any, schedule: NoiseSchedule, x_t: Any, t: Any, s: Any, z: Any, **own: Any
    ) -> tuple[Any, Any]:
        x_s, x_start = step(denoise, schedule, x_t, t, s, z, **own)
        a, b = (as_float32(rate) for rate in schedule.rates(s, len(x_s.shape)))
        return ops.where(known, a * as_float32(images) + b * as_float32(z), x_s), x_start

    return replaced


def noised_again(schedule: NoiseSchedule, x_s: Any, s: Any, t: Any, noise: Any) -> Any:
    """Go from s up to t, q(x_t | x_s): what a step back has taken away, anew (Eq. 2)."""
    (a_s, b_s), (a_t, b_t) = (schedule.rates(place, len(x_s.shape)) for place in (s, t))
    kept = as_float32(a_t) / as_float32(a_s)
    variance = ops.square(as_float32(b_t)) - ops.square(kept * as_float32(b_s))
    return kept * as_float32(x_s) + ops.sqrt(ops.maximum(variance, 0.0)) * as_float32(noise)


def inpaint(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    images: Any,
    known: Any,
    step: Callable[..., Any] = ddpm_step,
    *,
    steps: int | Sequence[float] | None = None,
    again: int = 1,
    seed: Any = None,
    told: Sequence[Any] = (),
) -> Any:
    """Draw the unknown part of images to go with the known part; float32 ``(batch, …)``.

    The known part is put into its place after each step (:func:`replacing`). That alone lets both
    parts meet only from one step to the next, and the unknown one settles before they have agreed.
    RePaint takes each step ``again``: back to the noise of t, and down once more.

    Args:
        denoise, schedule, step: as for ``backward_sampling.walk``, and so ``steps`` and ``told``.
        images, known: as for :func:`replacing`.
        again: how often each step is taken, at least 1.
        seed: of the noise; a number, None, or a ``SeedGenerator``.

    Source: Lugmayr et al. 2022 (arXiv 2201.09865), Algorithm 1, with jumps of one step; its line 5
    as printed has ᾱ of t, not of s, and a deviation 1 - ᾱ where the variance is that.
    """
    integer("again", again, 1)
    images = checked_clean(images)
    generator, shape = generator_of(seed), images.shape
    asked = telling(denoise, checked_told(denoise, told, shape[0]))
    one_step, visited = replacing(step, images, known), [*times(schedule, steps), -1]
    draw = NoiseOfPart(generator, shape[0]).draw
    x = draw(shape)
    for stop, following in itertools.pairwise(visited):
        t, s = (np.full(shape[0], place) for place in (stop, following))
        for turn in range(again):
            if turn:
                x = noised_again(schedule, x, s, t, draw(shape))
            x, _ = one_step(asked, schedule, x, t, s, draw(shape))
            x = ops.stop_gradient(x)
    return x


# Inpainting by a network that is shown what is known --------------------------------------------


def inpainting_network(network: keras.Model) -> keras.Model:
    """Make a network that is shown the known part of images as well, out of a trained one.

    A convolution of more channels is the sum of two: of the old weights on x_t, and of new ones on
    what is known. These begin with 0, and the network with the old one's answers, exactly; trained
    on with :class:`InpaintingQuestions`, it learns to use them.

    Args:
        network: a UNet of ``unet.build_unet``, from ``[x_t, t]`` or ``[x_t, t, labels]``; it stays
            as it is.

    Returns a functional model from ``[x_t, t, known]``, and labels if there are any, to the same
    answer; ``known`` is what :func:`what_is_known` returns. ``DiffusionModel(parameters,
    network=…)`` trains it and draws with it.

    Source: Nichol et al. 2021 (GLIDE, arXiv 2112.10741), and so Stable Diffusion's for inpainting.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    (x_t, t, *labels), first = copy.inputs, copy.get_layer("first")
    rest = keras.Model([first.output, t, *labels], copy.output, name="rest")
    known = keras.Input((*x_t.shape[1:-1], x_t.shape[-1] + 1), name="known")
    new = layers.Conv2D(
        first.filters,
        first.kernel_size,
        padding="same",
        data_format="channels_last",
        use_bias=False,
        kernel_initializer="zeros",
        dtype=first.dtype_policy,
        name="first-known",
    )
    rest.autocast = False
    answer = rest([first(x_t) + new(known), t, *labels])
    whole = keras.Model([x_t, t, known, *labels], answer, name=f"{network.name}-inpainting")
    whole.autocast = False  # as in build_unet
    return whole


def what_is_known(images: Any, known: Any) -> np.ndarray:
    """Say what is known of images: their pixels, 0 where they are not known, and where they are.

    Args:
        images: clean ones, ``(batch, height, width, channels)`` in [-1, 1].
        known: true where a pixel is known, of all its channels; broadcasts to ``(batch, height,
            width, 1)``. (Stable Diffusion's masks are 1 where it is *not* known.)

    Returns float32 ``(batch, height, width, channels + 1)``, the last channel being 1 where a pixel
    is known, else 0: grey pixels are 0, too. Raises ValueError if the two do not fit.
    """
    images = np.asarray(images, np.float32)
    known = _fitting(known, images, (*images.shape[:-1], 1))
    return np.concatenate([np.where(known, images, 0), known], axis=-1, dtype=np.float32)


def _fitting(known: Any, images: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Where pixels are known, boolean of a shape; ValueError if it is not of these images."""
    known = np.asarray(ops.convert_to_numpy(known)).astype(bool)
    try:
        return np.broadcast_to(known, shape)
    except ValueError:
        raise ValueError(
            f"known has shape {known.shape} and could not be broadcast to images of shape "
            f"{images.shape}. Say it of each pixel, (height, width, 1): known[..., None]."
        ) from None


def random_known(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Leave a rectangle of each image unknown, by chance: boolean ``(n, height, width, 1)``.

    ``shape`` is that of the images. Each side of a rectangle lies at the edge of the image half of
    the time: halves are among them, and now and then a whole image, so that these can be drawn.
    """
    n, *sides, _ = shape
    unknown = np.ones((n, *sides, 1), bool)
    for axis, side in enumerate(sides, start=1):
        drawn, at_edge = random.integers(side, size=(2, n)), random.random((2, n)) < 0.5
        first, last = np.where(at_edge, [[0], [side - 1]], np.sort(drawn, axis=0))[..., np.newaxis]
        within = (np.arange(side) >= first) & (np.arange(side) <= last)  # (n, side)
        unknown &= np.expand_dims(within, (3 - axis, 3))
    return ~unknown


class InpaintingQuestions(QuestionSet):
    """Other questions, where a part of each image is known: ``fit`` trains with them.

    A batch is that of the questions given, and shows what is known of its clean images as well; it
    too depends on nothing but the seed, the epoch and its number.
    """

    def __init__(self, asked: Any, masks: Callable[..., np.ndarray] = random_known) -> None:
        """Take questions such as ``model.questions(images, labels, batch_size=128)``.

        ``masks``, called with a random generator and the shape of the images, says which of their
        pixels are known, as for :func:`what_is_known`.
        """
        super().__init__(asked.always_alike, asked.batch_size, asked.seed)
        self.asked, self.masks = asked, masks

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self.asked)

    def batch(self, epoch: int, number: int) -> tuple[Any, ...]:
        """What the network is shown, ``(x_t, t, known)`` and labels, and all else as it was."""
        (x_t, t, *labels), made_of, *weights = self.asked.batch(epoch, number)
        x_start, random = made_of["x_start"], np.random.default_rng([self.seed, epoch, number, 3])
        known = what_is_known(x_start, self.masks(random, x_start.shape))
        return (x_t, t, known, *labels), made_of, *weights
