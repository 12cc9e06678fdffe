"""The moving average that chapter 05 draws, by hand."""

import numpy as np

from diffusion_walkthrough.engine.optimizer import moving_average


def test_it_is_that_of_a_constant_and_forgets_geometrically():
    np.testing.assert_allclose(moving_average(np.full(50, 3.0), 0.9), 3.0)
    step = np.concatenate([[0.0], np.ones(100)])
    expected = 1 - 0.9 ** np.arange(101)
    np.testing.assert_allclose(moving_average(step, 0.9), expected, atol=1e-12)


def test_a_momentum_of_its_own_for_each_step():
    values = np.random.default_rng(0).standard_normal(30)
    n = np.arange(30)
    plain_mean = np.cumsum(values) / (n + 1)
    np.testing.assert_allclose(moving_average(values, n / (n + 1)), plain_mean, atol=1e-12)
