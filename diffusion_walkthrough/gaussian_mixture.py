"""The world of one dimension in which everything about diffusion is known exactly.

Its data are numbers, distributed as a mixture of a few Gaussians. Adding noise to a Gaussian gives
a Gaussian, so the density of the noisy data, the best guess of the noise, the score and the
posterior all have a closed form here, for every noise level; each can be drawn as a curve.

Noise levels are written as the DDPM paper's ᾱ_t (``alpha_bar``), the share of the variance that is
still signal, from 0 (only noise) to 1 (no noise): x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε (Eq. 4). Values and
``alpha_bar`` may be numbers, or arrays of any shapes that broadcast together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp, ndtr

FloatArray = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of one-dimensional Gaussians: p(x) = Σ_k weight_k N(x; mean_k, deviation_k²).

    The three sequences have one entry for each Gaussian and become read-only float64 arrays.
    Weights are above 0 and sum to 1, standard deviations are above 0.

    Raises ValueError naming the parameter, its value, the rule and the remedy.
    """

    weights: FloatArray | Sequence[float]
    means: FloatArray | Sequence[float]
    standard_deviations: FloatArray | Sequence[float]

    def __post_init__(self) -> None:
        sizes = []
        for field in dataclasses.fields(self):
            array = np.array(getattr(self, field.name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, field.name, array)
            sizes.append(array.size)
            if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
                raise ValueError(
                    f"{field.name}={array}: must be a list of finite numbers, one for each "
                    "Gaussian. Write for example [0.4, 0.6]."
                )
        if len(set(sizes)) != 1:
            raise ValueError(
                f"weights, means and standard_deviations have lengths {sizes}, but must be equally "
                "long. Give one of each for every Gaussian."
            )
        if np.min(self.weights) <= 0 or abs(np.sum(self.weights) - 1) > 1e-9:
            raise ValueError(
                f"weights={self.weights}: must be above 0 and sum to 1, but the sum is "
                f"{np.sum(self.weights):.6g}. Divide them by their sum."
            )
        if np.min(self.standard_deviations) <= 0:
            raise ValueError(
                f"standard_deviations={self.standard_deviations}: must all be above 0. "
                "Use a small one, such as 0.01, for a sharp peak."
            )

    @property
    def mean(self) -> float:
        """The mean of the mixture, Σ_k weight_k mean_k."""
        return float(np.dot(self.weights, self.means))

    @property
    def variance(self) -> float:
        """The variance of the mixture: E[x²] - E[x]², written without cancellation."""
        from_centre = np.asarray(self.means) - self.mean
        return float(np.dot(self.weights, np.square(self.standard_deviations) + from_centre**2))

    def log_pdf(self, x: ArrayLike) -> FloatArray:
        """The logarithm of the density at ``x``, accurate far out in the tails."""
        return np.asarray(logsumexp(self._log_joint(x), axis=-1))

    def pdf(self, x: ArrayLike) -> FloatArray:
        """The density at ``x``."""
        return np.exp(self.log_pdf(x))

    def cdf(self, x: ArrayLike) -> FloatArray:
        """The probability of values up to ``x``."""
        standardized = (_column(x) - self.means) / self.standard_deviations
        return np.asarray(np.sum(self.weights * ndtr(standardized), axis=-1))

    def sample(self, n: int, rng: np.random.Generator | int) -> FloatArray:
        """Draw ``n`` values, shape (n,), with a NumPy generator or a seed for one."""
        rng = np.random.default_rng(rng)
        component = rng.choice(np.size(self.weights), size=n, p=self.weights)
        means, deviations = np.asarray(self.means), np.asarray(self.standard_deviations)
        return means[component] + deviations[component] * rng.standard_normal(n)

    def score(self, x: ArrayLike) -> FloatArray:
        """The slope of the log density, d log p(x) / dx, at ``x``.

        Of a :meth:`noised` mixture it is -E[ε | x_t] / √(1 - ᾱ): whoever guesses the noise knows
        the score (Vincent 2011, doi 10.1162/NECO_a_00142).
        """
        slopes = (self.means - _column(x)) / np.square(self.standard_deviations)
        return np.asarray(np.sum(np.exp(log_softmax(self._log_joint(x), axis=-1)) * slopes, -1))

    def noised(self, alpha_bar: float) -> GaussianMixture:
        """The distribution q(x_t) of the noisy data (Eq. 4), for one ``alpha_bar``."""
        alpha_bar = float(_checked_alpha_bar(alpha_bar))
        deviations = np.sqrt(alpha_bar * np.square(self.standard_deviations) + 1 - alpha_bar)
        means = np.sqrt(alpha_bar) * np.asarray(self.means)
        return GaussianMixture(self.weights, means, deviations)

    def expected_x_start(self, x_t: ArrayLike, alpha_bar: ArrayLike) -> FloatArray:
        """The best guess of the clean value, E[x_0 | x_t]."""
        weights, means, _ = self._posterior(x_t, alpha_bar)
        return np.asarray(np.sum(weights * means, axis=-1))

    def expected_noise(self, x_t: ArrayLike, alpha_bar: ArrayLike) -> FloatArray:
        """The best guess of the noise, E[ε | x_t]: what a perfect network would answer (Eq. 14)."""
        x_t, alpha_bar = _column(x_t), _column(_checked_alpha_bar(alpha_bar))
        signal_variance = alpha_bar * np.square(self.standard_deviations)
        surprise = (x_t - np.sqrt(alpha_bar) * self.means) / (signal_variance + 1 - alpha_bar)
        weights = self._posterior(x_t[..., 0], alpha_bar[..., 0])[0]
        return np.asarray(np.sum(weights * np.sqrt(1 - alpha_bar) * surprise, axis=-1))

    def x_start_variance(self, x_t: ArrayLike, alpha_bar: ArrayLike) -> FloatArray:
        """What the noisy value leaves open about the clean one, Var(x_0 | x_t)."""
        weights, means, deviations = self._posterior(x_t, alpha_bar)
        from_guess = means - np.sum(weights * means, axis=-1, keepdims=True)
        return np.asarray(np.sum(weights * (deviations**2 + from_guess**2), axis=-1))

    def not_knowable(self, alpha_bar: ArrayLike) -> FloatArray:
        """The share of the variance of x_0 that even the best guess leaves open, on average.

        E[Var(x_0 | x_t)] / Var(x_0), by summation on a fine grid of x_t: from 0 (the noisy value
        tells all) to 1 (it tells nothing), with the shape of ``alpha_bar``.
        """
        shares = []
        for share in np.ravel(alpha_bar):
            noised = self.noised(share)
            x_t = _grid(noised)
            density = noised.pdf(x_t)
            left_open = np.sum(density * self.x_start_variance(x_t, share)) / np.sum(density)
            shares.append(left_open / self.variance)
        return np.reshape(shares, np.shape(alpha_bar))

    def share_misplaced(self, other: GaussianMixture) -> float:
        """The share of this mixture that does not lie under another, from 0 to 1.

        Half of the area between the two densities, by summation on a fine grid.
        """
        x = _grid(self, other)
        return float(np.sum(np.abs(self.pdf(x) - other.pdf(x))) * (x[1] - x[0]) / 2)

    def posterior_pdf(self, x_start: ArrayLike, x_t: ArrayLike, alpha_bar: ArrayLike) -> FloatArray:
        """The density p(x_0 | x_t) of the clean value once the noisy one is known.

        Raises ValueError for an ``alpha_bar`` of 1: without noise it is a spike, not a density.
        """
        if np.any(np.asarray(alpha_bar) == 1):
            raise ValueError(
                "alpha_bar=1: without noise p(x_0 | x_t) is a spike at x_t. Use a value below 1."
            )
        weights, means, deviations = self._posterior(x_t, alpha_bar)
        density = _normal_log_pdf(_column(x_start), means, deviations)
        return np.asarray(np.sum(weights * np.exp(density), axis=-1))

    def _log_joint(self, x: ArrayLike) -> FloatArray:
        """log(weight_k N(x; mean_k, deviation_k²)), shape (..., number of Gaussians)."""
        log_density = _normal_log_pdf(_column(x), self.means, self.standard_deviations)
        return np.asarray(np.log(self.weights) + log_density)

    def _posterior(
        self, x_t: ArrayLike, alpha_bar: ArrayLike
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Weights, means and deviations of p(x_0 | x_t), which is a mixture of Gaussians again.

        Bayes's rule in each Gaussian: it has noisy variance ᾱ s² + 1 - ᾱ, and the share ᾱ s² of
        that is signal.
        """
        x_t, alpha_bar = _column(x_t), _column(_checked_alpha_bar(alpha_bar))
        variances = np.square(self.standard_deviations)
        noisy_variances = alpha_bar * variances + 1 - alpha_bar
        noisy_means = np.sqrt(alpha_bar) * self.means
        joint = np.log(self.weights) + _normal_log_pdf(x_t, noisy_means, np.sqrt(noisy_variances))
        gain = np.sqrt(alpha_bar) * variances / noisy_variances
        means = self.means + gain * (x_t - noisy_means)
        deviations = np.sqrt(variances * (1 - alpha_bar) / noisy_variances)
        return np.exp(log_softmax(joint, axis=-1)), means, deviations


def _column(x: ArrayLike) -> FloatArray:
    """``x`` with one axis more at the end, along which the Gaussians lie."""
    return np.asarray(x, dtype=np.float64)[..., np.newaxis]


def _checked_alpha_bar(alpha_bar: ArrayLike) -> FloatArray:
    array = np.asarray(alpha_bar, dtype=np.float64)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(
            f"alpha_bar={array}: must lie from 0 (only noise) to 1 (no noise). "
            "Take it from a schedule's alphas_cumprod."
        )
    return array


def _normal_log_pdf(x: ArrayLike, mean: ArrayLike, deviation: ArrayLike) -> FloatArray:
    standardized = np.subtract(x, mean) / deviation
    return np.asarray(-0.5 * (standardized**2 + np.log(2 * np.pi)) - np.log(deviation))


def _grid(*mixtures: GaussianMixture) -> FloatArray:
    """Places that lie close together and reach eight deviations beyond every Gaussian."""
    means = np.concatenate([mixture.means for mixture in mixtures])
    reach = 8 * np.concatenate([mixture.standard_deviations for mixture in mixtures])
    return np.linspace(np.min(means - reach), np.max(means + reach), 16_001)


STANDARD_NORMAL = GaussianMixture(weights=(1.0,), means=(0.0,), standard_deviations=(1.0,))
"""The bell that drawing starts from."""

ONE_DIMENSIONAL_WORLD = GaussianMixture(
    weights=(0.5, 0.2, 0.3), means=(-0.6, 0.05, 0.65), standard_deviations=(0.12, 0.06, 0.09)
)
"""The mixture of the course: three peaks of different height and width within [-1, 1]."""
