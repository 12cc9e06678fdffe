"""The pictures of chapter 00 show what they say."""

import numpy as np

from diffusion_walkthrough.classroom.figures import start_here


def test_a_row_is_a_sum_that_comes_out_on_one_grey_scale():
    digit, noise, guess, implied = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1))
    rows = [
        start_here.Recipe(t, a, b, a * digit + b * noise, guess, implied)
        for t, a, b in ((3, 0.8, 0.6), (7, 0.28, 0.96))
    ]
    figure = start_here.recipes(digit, noise, rows)
    for row, axes in zip(rows, np.reshape(figure.axes, (2, 5)), strict=True):
        shown = [axis.images[0] for axis in axes]
        first, second, total = (np.asarray(image.get_array()) for image in shown[:3])
        np.testing.assert_allclose(first + second, total, atol=1e-6)
        np.testing.assert_allclose(total, row.noisy[..., 0])
        np.testing.assert_allclose(shown[3].get_array(), row.sigma * guess[..., 0])
        np.testing.assert_allclose(shown[4].get_array(), implied[..., 0])
        assert len({image.get_clim() for image in shown}) == 1
    assert figure.axes[0].get_title() == "0.80 × digit"
    assert figure.axes[7].get_title() == "= noisy, t = 7"
