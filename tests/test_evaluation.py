import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import nearest_distance, precision_recall


def distance(a, b):
    return np.sqrt(np.sum((a.ravel() - b.ravel()) ** 2))


def share_in_balls(points, centres, k):
    """The definition of the paper in plain loops."""
    radii = [
        sorted(distance(c, other) for j, other in enumerate(centres) if j != i)[k - 1]
        for i, c in enumerate(centres)
    ]
    inside = [any(distance(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]
    return sum(inside) / len(points)


def whole_numbers(count, dimensions=2):
    """Points on a small grid, so that ties and duplicates are frequent and exact."""
    return hnp.arrays(np.float64, (count, dimensions), elements=st.integers(0, 6).map(float))


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(5, 12), m=st.integers(5, 12), k=st.integers(1, 4))
def test_precision_and_recall_agree_with_plain_loops(data, n, m, k):
    real, generated = data.draw(whole_numbers(n)), data.draw(whole_numbers(m))
    precision, recall = precision_recall(real, generated, k=k)
    assert precision == share_in_balls(generated, real, k)
    assert recall == share_in_balls(real, generated, k)


def test_a_case_one_can_check_by_hand():
    # Real: 0, 1, 3 with k = 1 gives balls [-1, 1], [0, 2], [1, 5]; 9 has its nearest at 3: [3, 15].
    real = np.array([[0.0], [1.0], [3.0], [9.0]])
    generated = np.array([[-2.0], [2.5], [16.0], [1.0]])
    # Generated: -2 -> [-5, 1], 2.5 -> [1, 4], 16 -> [2.5, 29.5], 1 -> [-0.5, 2.5].
    assert precision_recall(real, generated, k=1) == (0.5, 1.0)


def test_images_are_compared_pixel_by_pixel():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(20, 4, 4, 3)), rng.normal(size=(30, 4, 4, 3))
    assert precision_recall(real, generated) == (
        share_in_balls(generated, real, 3),
        share_in_balls(real, generated, 3),
    )


def test_many_images_are_compared_in_parts():
    rng = np.random.default_rng(1)
    real, generated = rng.normal(size=(2100, 2)), rng.normal(size=(1500, 2)) * 1.5
    squared = ((generated[:, np.newaxis] - real) ** 2).sum(-1)
    own = ((real[:, np.newaxis] - real) ** 2).sum(-1)
    radii = np.sort(own, axis=1)[:, 3]
    assert precision_recall(real, generated)[0] == (squared <= radii).any(1).mean()
    np.testing.assert_allclose(nearest_distance(generated, real), np.sqrt(squared.min(1)))


def test_identical_sets_are_perfect():
    images = np.random.default_rng(2).normal(size=(50, 8, 8, 1))
    assert precision_recall(images, images) == (1.0, 1.0)


def test_disjoint_sets_share_nothing():
    images = np.random.default_rng(3).normal(size=(50, 8, 8, 1))
    assert precision_recall(images, images + 100) == (0.0, 0.0)


def test_exchanging_the_sets_exchanges_precision_and_recall():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(60, 3)), rng.normal(size=(40, 3)) * 0.5
    assert precision_recall(a, b) == precision_recall(b, a)[::-1]


def test_drawing_one_real_image_again_and_again_is_precise_but_recalls_little():
    images, _ = load_images("digits")
    collapsed = np.repeat(images[:1], 200, axis=0)
    precision, recall = precision_recall(images, collapsed)
    assert precision == 1.0
    assert recall == pytest.approx(1 / 1500)


def test_noise_is_not_precise():
    images, _ = load_images("digits")
    noise = np.random.default_rng(5).uniform(-1, 1, (200, 8, 8, 1))
    assert precision_recall(images, noise)[0] == 0.0


def test_duplicates_have_balls_without_extent():
    real = np.array([[0.0], [0.0], [0.0], [0.0], [5.0]])
    generated = np.array([[0.0], [0.1], [4.0], [11.0]])
    # With k = 3 the four zeros reach nowhere, and 5 reaches to 0: [0, 10].
    assert precision_recall(real, generated)[0] == 0.75
    assert precision_recall(real[:4], np.full((4, 1), 0.1))[0] == 0.0


def test_a_memorized_set_has_distance_zero():
    images, _ = load_images("digits")
    np.testing.assert_array_equal(nearest_distance(images[100:150], images), 0.0)


def test_held_out_digits_are_no_copies():
    training, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    distances = nearest_distance(held_out, training)
    assert distances.shape == (297,)
    assert distances.min() > 0
    brute = [min(distance(image, other) for other in training) for image in held_out[:5]]
    np.testing.assert_allclose(distances[:5], brute, rtol=1e-6)


def test_nearest_distance_of_single_numbers():
    images, training = np.array([[0.0], [4.0], [9.0]]), np.array([[1.0], [6.0]])
    assert nearest_distance(images, training).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("k", "error"),
    [(0, ValueError), (-1, ValueError), (4, ValueError), (3.0, TypeError), (True, TypeError)],
)
def test_a_wrong_k_is_refused(k, error):
    small, large = np.zeros((4, 2)), np.zeros((9, 2))
    for sets in ((small, large), (large, small)):
        with pytest.raises(error, match=f"k={k}.*Use"):
            precision_recall(*sets, k=k)
    precision_recall(small, large, k=3)


@pytest.mark.parametrize("function", [precision_recall, nearest_distance])
@pytest.mark.parametrize(
    ("first", "second", "piece"),
    [
        (np.zeros((9, 8, 8, 1)), np.zeros((9, 8, 8, 3)), "they must be equal"),
        (np.zeros((9, 64)), np.zeros((9, 8, 8)), "they must be equal"),
        (np.zeros((0, 8)), np.zeros((9, 8)), "at least one image"),
        (np.zeros(8), np.zeros((9, 8)), "add an axis"),
        (np.zeros((9, 8)), np.full((9, 8), np.nan), "NaN or infinity"),
        (np.full((9, 8), np.inf), np.zeros((9, 8)), "NaN or infinity"),
    ],
)
def test_sets_that_do_not_match_are_refused(function, first, second, piece):
    with pytest.raises(ValueError, match=piece):
        function(first, second)
