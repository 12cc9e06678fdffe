import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import sqrtm
from sklearn.neighbors import KNeighborsClassifier

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import (
    ball_radii,
    flatten,
    frechet_distance,
    nearest,
    nearest_distance,
    nearest_label_accuracy,
    precision_recall,
)


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
    assert nearest(images, training)[0].tolist() == [0, 1, 1]


def test_the_places_of_the_nearest_are_those_in_the_whole_set():
    rng = np.random.default_rng(6)
    images, training = rng.normal(size=(2100, 2)), rng.normal(size=(50, 2))
    places, distances = nearest(images, training)
    np.testing.assert_allclose(np.linalg.norm(images - training[places], axis=1), distances)
    np.testing.assert_array_equal(distances, nearest_distance(images, training))


def test_balls_reach_to_the_kth_other():
    rows = np.array([[0.0], [1.0], [3.0], [9.0]])
    assert ball_radii(rows, 1).tolist() == [1, 1, 2, 6]
    assert ball_radii(rows, 3).tolist() == [9, 8, 6, 9]


# --- Features -------------------------------------------------------------------------------------


def brightness(images):
    """One feature for each image: its mean."""
    return np.mean(images, axis=(1, 2, 3))[:, None]


def test_pixels_are_the_features_unless_others_are_given():
    images = np.random.default_rng(7).normal(size=(20, 4, 4, 1))
    others = np.random.default_rng(8).normal(size=(30, 4, 4, 1))
    assert flatten(images).shape == (20, 16)
    for measure in (precision_recall, nearest_distance, frechet_distance):
        by_pixels = measure(images, others)
        np.testing.assert_array_equal(by_pixels, measure(images, others, features=flatten))
        by_brightness = measure(images, others, features=brightness)
        np.testing.assert_allclose(by_brightness, measure(brightness(images), brightness(others)))
        assert np.any(np.not_equal(by_brightness, by_pixels))


@pytest.mark.parametrize("measure", [precision_recall, nearest_distance, frechet_distance])
@pytest.mark.parametrize(
    ("features", "shape"),
    [
        (lambda x: np.mean(x, axis=(1, 2, 3)), r"\(9,\)"),  # a number, not a row
        (lambda x: x, r"\(9, 4, 4, 1\)"),
        (lambda x: np.zeros((1, 5)), r"\(1, 5\)"),  # of the whole set, not of each image
        (lambda x: np.full((len(x), 5), np.nan), r"\(9, 5\)"),
    ],
)
def test_features_that_are_not_one_row_for_each_image_are_refused(measure, features, shape):
    images = np.zeros((9, 4, 4, 1))
    message = rf"features of \w+, 9 images, have shape {shape}.*one row of finite numbers"
    with pytest.raises(ValueError, match=message):
        measure(images, images, features=features)


# --- Two clouds as Gaussians ----------------------------------------------------------------------


def cloud(mean, covariance, n=12):
    """Points whose mean and covariance are exactly these."""
    points = np.random.default_rng(n).normal(size=(n, len(mean)))
    white = np.linalg.qr(points - points.mean(axis=0))[0] * np.sqrt(n - 1)
    return white @ np.linalg.cholesky(covariance).T + mean


def test_the_distance_of_two_bells_in_one_dimension_is_known_in_closed_form():
    """(μ_1 - μ_2)² + (σ_1 - σ_2)², for numbers."""
    one, other = cloud([0.3], np.array([[4.0]])), cloud([-0.7], np.array([[0.25]]), n=9)
    assert frechet_distance(one, other) == pytest.approx(1.0**2 + 1.5**2)


def test_independent_features_add_up():
    one, other = cloud([0, 1, 2], np.diag([1.0, 4, 9])), cloud([1, 1, 0], np.diag([4.0, 4, 1]))
    assert frechet_distance(one, other) == pytest.approx((1 + 0 + 4) + (1 + 0 + 4))


def test_turned_and_stretched_clouds_against_the_formula_with_a_matrix_root():
    rng = np.random.default_rng(9)
    one = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    other = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5))
    cov_1, cov_2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    expected = np.sum((one.mean(0) - other.mean(0)) ** 2)
    expected += np.trace(cov_1 + cov_2 - 2 * np.real(sqrtm(cov_1 @ cov_2)))
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-6)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert frechet_distance(one @ turn, other @ turn) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(2 * one, 2 * other) == pytest.approx(4 * expected, rel=1e-6)


def test_the_same_images_in_another_order_have_no_distance():
    """Also where a covariance has no inverse: fewer images than pixels, and some always black."""
    images = load_images("digits")[0][:50]
    assert 0 <= frechet_distance(images, images[::-1]) < 1e-9


def test_digits_are_nearer_to_other_digits_than_to_brighter_ones_or_to_noise():
    images, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    brighter = np.clip(held_out + 0.2, -1, 1)
    noise = np.random.default_rng(10).uniform(-1, 1, held_out.shape)
    distances = [frechet_distance(images, others) for others in (held_out, brighter, noise)]
    assert distances == sorted(distances)
    assert distances[1] > 2 * distances[0]


def test_a_covariance_needs_two_images():
    one, many = np.zeros((1, 8, 8, 1)), np.zeros((5, 8, 8, 1))
    with pytest.raises(ValueError, match=r"real has 1 image.*at least 2.*Draw more"):
        frechet_distance(one, many)
    with pytest.raises(ValueError, match=r"drawn has 1 image"):
        frechet_distance(many, one)


# --- Labels ---------------------------------------------------------------------------------------


def test_nearest_labels_against_scikit_learn():
    known, known_labels = load_images("digits")
    held_out, labels = load_images("digits", split="test")
    noise = np.random.default_rng(0).standard_normal(held_out.shape)
    noisy = 0.6 * held_out + 0.8 * noise
    classifier = KNeighborsClassifier(1).fit(flatten(0.6 * known), known_labels)
    found = nearest_label_accuracy(noisy, labels, 0.6 * known, known_labels)
    assert found == pytest.approx(classifier.score(flatten(noisy), labels), abs=1e-9)


def test_digits_are_recognized_without_noise_and_lost_in_it():
    known, known_labels = load_images("digits")
    held_out, labels = load_images("digits", split="test")
    noise = np.random.default_rng(0).standard_normal(held_out.shape)
    accuracy = []
    for alpha_bar in (1.0, 0.3, 1e-8):
        noisy = np.sqrt(alpha_bar) * held_out + np.sqrt(1 - alpha_bar) * noise
        shrunk = np.sqrt(alpha_bar) * known
        accuracy.append(nearest_label_accuracy(noisy, labels, shrunk, known_labels))
    assert accuracy[0] > 0.95
    assert accuracy[0] > accuracy[1] > accuracy[2]
    assert accuracy[2] < 0.2


# --- What is refused ------------------------------------------------------------------------------


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


@pytest.mark.parametrize("function", [precision_recall, nearest_distance, frechet_distance])
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
