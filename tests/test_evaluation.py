from math import prod

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import sqrtm
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from diffusion_walkthrough.data import load_images
from diffusion_walkthrough.evaluation import (
    ball_radii,
    density_coverage,
    expected_coverage,
    flatten,
    frechet_distance,
    memorization_test,
    most_suspicious,
    nearest,
    nearest_distance,
    nearest_label_accuracy,
    precision_recall,
    real_against_real,
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


# --- Density and coverage -------------------------------------------------------------------------


def balls_of_real_images(real, generated, k):
    """The definition of the paper in plain loops."""
    counts = []
    for i, centre in enumerate(real):
        others = sorted(distance(centre, other) for j, other in enumerate(real) if j != i)
        counts.append(sum(distance(point, centre) <= others[k - 1] for point in generated))
    return sum(counts) / (k * len(generated)), sum(n > 0 for n in counts) / len(real)


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(5, 12), m=st.integers(1, 12), k=st.integers(1, 4))
def test_density_and_coverage_agree_with_plain_loops(data, n, m, k):
    real, generated = data.draw(whole_numbers(n)), data.draw(whole_numbers(m))
    expected = balls_of_real_images(real, generated, k)
    assert density_coverage(real, generated, k=k) == pytest.approx(expected, abs=1e-12)


def test_density_and_coverage_by_hand():
    # Real, with k = 1: 0 -> [-1, 1], 1 -> [0, 2], 3 -> [1, 5], 9 -> [3, 15].
    real = np.array([[0.0], [1.0], [3.0], [9.0]])
    generated = np.array([[0.5], [0.5], [4.0], [99.0]])
    # 0.5 lies in two balls, twice; 4 in two; 99 in none: 6 in all. No ball is missed.
    assert density_coverage(real, generated, k=1) == (6 / 4, 1.0)
    assert density_coverage(real, generated[:2], k=1) == (2.0, 0.5)


def test_density_and_coverage_against_scikit_learn():
    rng = np.random.default_rng(12)
    real, generated = rng.normal(size=(1300, 4)), 0.8 * rng.normal(size=(1100, 4))
    radii = NearestNeighbors(n_neighbors=5).fit(real).kneighbors()[0][:, -1]  # without itself
    index = NearestNeighbors().fit(generated)
    counts = [
        len(index.radius_neighbors(row[None], radius, return_distance=False)[0])
        for row, radius in zip(real, radii, strict=True)
    ]
    expected = np.sum(counts) / (5 * 1100), np.mean(np.array(counts) > 0)
    assert density_coverage(real, generated) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "m", "k"), [(60, 60, 5), (80, 30, 3), (30, 90, 1)])
def test_of_one_distribution_density_and_coverage_are_as_expected(n, m, k):
    """1, and the formula of the paper: also in 2 dimensions, and though the balls overlap."""
    rng = np.random.default_rng(n)
    found = np.array(
        [density_coverage(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), k) for _ in range(400)]
    )
    coverage = 1 - prod((n - i) / (n + m - i) for i in range(1, k + 1))
    assert expected_coverage(n, m, k) == pytest.approx(coverage)
    error = found.std(axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - (1, coverage)) < 3.5 * error)
    assert np.all(error < 0.01)


def test_with_many_images_the_expected_coverage_is_that_of_tossed_coins():
    assert expected_coverage(10**6, 10**6, k=5) == pytest.approx(1 - 2**-5, abs=1e-5)
    assert expected_coverage(1500, 10**9) == pytest.approx(1)


def test_held_out_digits_are_dense_and_cover_as_expected():
    images, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    density, coverage = density_coverage(images, held_out)
    assert density == pytest.approx(1, abs=0.05)
    assert coverage == pytest.approx(expected_coverage(1500, 297), abs=0.02)


def test_recall_praises_garbage_and_coverage_does_not():
    """Black and white noise: a recall of 1.10 times what held-out digits reach."""
    images, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    noise = np.random.default_rng(0).choice([-1.0, 1.0], size=held_out.shape)
    precision, recall = precision_recall(images, noise)
    assert precision == 0
    assert recall / precision_recall(images, held_out)[1] == pytest.approx(1.10, abs=0.01)
    assert density_coverage(images, noise) == (0, 0)


def test_one_image_drawn_again_and_again_is_dense_but_covers_little():
    images, _ = load_images("digits")
    density, coverage = density_coverage(images, np.repeat(images[7:8], 300, axis=0))
    assert density >= 0.2
    assert coverage < 0.02


def test_only_the_real_images_must_be_more_than_k():
    real = np.random.default_rng(0).normal(size=(6, 2))
    density_coverage(real, real[:1], k=5)
    for wrong in (lambda: density_coverage(real, real, k=6), lambda: expected_coverage(6, 9, 6)):
        with pytest.raises(ValueError, match=r"k=6.*here 6\. Use a smaller k"):
            wrong()


# --- Features -------------------------------------------------------------------------------------


MEASURES = [precision_recall, density_coverage, nearest_distance, frechet_distance, most_suspicious]


def brightness(images):
    """One feature for each image: its mean."""
    return np.mean(images, axis=(1, 2, 3))[:, None]


def test_pixels_are_the_features_unless_others_are_given():
    images = np.random.default_rng(7).normal(size=(20, 4, 4, 1))
    others = np.random.default_rng(8).normal(size=(30, 4, 4, 1))
    assert flatten(images).shape == (20, 16)
    for measure in (precision_recall, density_coverage, nearest_distance, frechet_distance):
        by_pixels = measure(images, others)
        np.testing.assert_array_equal(by_pixels, measure(images, others, features=flatten))
        by_brightness = measure(images, others, features=brightness)
        np.testing.assert_allclose(by_brightness, measure(brightness(images), brightness(others)))
        assert np.any(np.not_equal(by_brightness, by_pixels))


@pytest.mark.parametrize("measure", MEASURES)
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


# --- Real images in the place of drawn ones -------------------------------------------------------


def test_the_floor_of_numbers_that_are_spread_like_a_bell_is_known():
    """The mean is off by σ² (1/n + 1/m) on average, the spread by about half as much."""
    numbers = np.random.default_rng(0).normal(size=(20_000, 1)) * 3
    floor = real_against_real(frechet_distance, numbers, 100, 400, repeats=900)
    expected = 1.5 * 9 * (1 / 100 + 1 / 400)
    assert floor.shape == (900,)
    assert floor.mean() == pytest.approx(expected, abs=4 * floor.std() / np.sqrt(900))


def test_the_floor_of_the_frechet_distance_falls_like_one_over_n():
    images = np.concatenate([load_images("digits", split=split)[0] for split in ("train", "test")])
    counts = [100, 200, 400, 800]
    floors = [real_against_real(frechet_distance, images, n, n, repeats=4).mean() for n in counts]
    slope = np.polyfit(np.log(counts), np.log(floors), 1)[0]
    assert slope == pytest.approx(-1, abs=0.2)


def test_each_repeat_parts_the_real_images_anew_and_no_image_meets_itself():
    seen = []

    def mark(real, drawn, scale):
        seen.append((real, drawn))
        return len(real) * scale, len(drawn) * scale

    rows = np.arange(20.0)[:, None]
    assert real_against_real(mark, rows, 6, repeats=3, scale=2).tolist() == [[28, 12]] * 3
    assert all(sorted(np.concatenate(both).ravel()) == list(range(20)) for both in seen)
    assert len({tuple(drawn.ravel()) for _, drawn in seen}) == 3
    again = real_against_real(mark, rows, 6, 4, repeats=1, seed=1, scale=1)
    assert again.tolist() == [[4, 6]]
    assert not np.array_equal(seen[-1][1], seen[0][1])
    real_against_real(mark, rows, 6, 4, repeats=1, seed=1, scale=1)
    assert all(map(np.array_equal, seen[-1], seen[-2]))


@pytest.mark.parametrize(("count", "others"), [(0, None), (5, None), (3, 3), (2, 0)])
def test_more_real_images_than_there_are_are_refused(count, others):
    with pytest.raises(ValueError, match=f"count={count} and others=.*at most 5.*Ask for fewer"):
        real_against_real(frechet_distance, np.zeros((5, 2)), count, others)


# --- Copies ---------------------------------------------------------------------------------------


def test_copies_are_found_and_half_of_them_too():
    training, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    fresh, known = held_out[:148], held_out[148:]
    share, p_value = memorization_test(training[:148], known, training)
    assert (share, p_value < 1e-40) == (1.0, True)
    half = np.concatenate([fresh[:74], training[:74]])
    share, p_value = memorization_test(half, known, training)
    assert share == pytest.approx(0.75, abs=0.05)
    assert p_value < 1e-8
    share, p_value = memorization_test(fresh, known, training)
    assert share == pytest.approx(0.5, abs=0.06)
    assert p_value > 0.05


def test_images_that_are_farther_than_held_out_ones_are_no_copies():
    training, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    noise = np.random.default_rng(0).choice([-1.0, 1.0], size=held_out.shape)
    share, p_value = memorization_test(noise, held_out, training)
    assert (share, p_value > 0.999) == (0.0, True)


def test_the_share_is_the_area_under_the_curve():
    rng = np.random.default_rng(3)
    training = rng.integers(0, 9, (40, 2))
    drawn, held_out = rng.integers(0, 9, (30, 2)), rng.integers(0, 12, (50, 2))
    distances = [nearest_distance(images, training) for images in (drawn, held_out)]
    is_drawn = np.repeat([1, 0], [30, 50])
    expected = roc_auc_score(is_drawn, -np.concatenate(distances))  # ties count one half
    assert memorization_test(drawn, held_out, training)[0] == pytest.approx(expected)


def test_the_p_value_of_fresh_images_is_spread_evenly():
    """As it should be of any test: 5 % of fresh sets are suspected at 0.05."""
    rng = np.random.default_rng(4)
    training = rng.normal(size=(200, 2))
    p_values = [
        memorization_test(rng.normal(size=(60, 2)), rng.normal(size=(80, 2)), training)[1]
        for _ in range(600)
    ]
    for share in (0.05, 0.25, 0.5, 0.75):
        error = np.sqrt(share * (1 - share) / 600)
        assert np.mean(np.array(p_values) < share) == pytest.approx(share, abs=3.5 * error)


def test_faded_images_are_suspected_though_they_copy_nothing():
    """Why a small p-value proves little: faded by a fifth, held-out digits lie nearer."""
    training, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    faded = 0.8 * held_out + 0.2 * training.mean(axis=0)
    assert memorization_test(faded, held_out, training)[0] > 0.51


def test_a_few_copies_are_found_by_the_pairs_and_not_by_the_test():
    training, _ = load_images("digits")
    held_out, _ = load_images("digits", split="test")
    copies = [31, 42, 53, 64, 75]
    spoiled = training[copies] + 0.05 * np.random.default_rng(0).normal(size=(5, 8, 8, 1))
    drawn = np.concatenate([held_out[:148], spoiled])
    assert memorization_test(drawn, held_out[148:], training)[1] > 0.05
    places, of_training, ratios = most_suspicious(drawn, training, count=5)
    assert dict(zip(places - 148, of_training, strict=True)) == dict(enumerate(copies))
    assert ratios.tolist() == sorted(ratios)
    assert ratios[-1] < 0.4 < most_suspicious(held_out, training)[2][0]


def test_suspicion_is_the_nearest_distance_over_the_second():
    training = np.array([[0.0], [1.0], [4.0], [4.0]])
    drawn = np.array([[0.4], [0.1], [1.0], [4.0], [4.5]])
    places, of_training, ratios = most_suspicious(drawn, training, count=9)
    assert places.tolist() == [2, 3, 1, 0, 4]  # both copies first, also that of twins
    assert of_training[[0, 2, 3]].tolist() == [1, 0, 0]
    np.testing.assert_allclose(ratios, [0, 0, 1 / 9, 2 / 3, 1])
    with pytest.raises(ValueError, match="k=1"):
        most_suspicious(drawn, training[:1])


# --- Labels ---------------------------------------------------------------------------------------


def test_nearest_labels_against_scikit_learn():
    known, known_labels = load_images("digits")
    held_out, labels = load_images("digits", split="test")
    noise = np.random.default_rng(0).standard_normal(held_out.shape)
    noisy = 0.6 * held_out + 0.8 * noise
    classifier = KNeighborsClassifier(1).fit(flatten(0.6 * known), known_labels)
    found = nearest_label_accuracy(noisy, labels, 0.6 * known, known_labels)
    assert found == pytest.approx(classifier.score(flatten(noisy), labels), abs=1e-9)


def test_labels_with_an_axis_of_one_are_compared_one_by_one():
    images, labels = np.eye(4), np.array([0, 1, 2, 2])
    pairs = [(a, b) for a in (labels, labels[:, None]) for b in (labels, labels[:, None])]
    assert [nearest_label_accuracy(images, a, images, b) for a, b in pairs] == [1.0] * 4


@pytest.mark.parametrize("labels", [[0], [[0, 1]] * 4, [0] * 5, 0])
def test_there_is_one_label_for_each_image(labels):
    images = np.eye(4)
    with pytest.raises(
        ValueError, match=r"^labels have shape .*must be \(4,\), one for each image"
    ):
        nearest_label_accuracy(images, labels, images, [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"known_labels have shape .* must be \(4,\)"):
        nearest_label_accuracy(images, [0, 1, 2, 3], images, labels)


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
        with pytest.raises(error, match=f"k={k}: .*(Use|Write|Give)"):
            precision_recall(*sets, k=k)
    precision_recall(small, large, k=3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"count": 1.0}, "count=1.0"),
        ({"count": True}, "count=True"),
        ({"count": 1, "others": "2"}, "others='2'"),
        ({"count": 1, "repeats": 0}, "repeats=0"),
        ({"count": 1, "seed": -1}, "seed=-1"),
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused_by_their_names(options, named):
    with pytest.raises((TypeError, ValueError), match=f"^{named}: .*must be a whole number"):
        real_against_real(frechet_distance, np.zeros((9, 2)), **options)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_suspicious_pairs_are_counted_in_whole_numbers(count):
    with pytest.raises((TypeError, ValueError), match=f"count={count}: "):
        most_suspicious(np.zeros((3, 2)), np.ones((3, 2)), count)


@pytest.mark.parametrize("function", MEASURES)
@pytest.mark.parametrize(
    ("first", "second", "piece"),
    [
        (np.zeros((9, 8, 8, 1)), np.zeros((9, 8, 8, 3)), "they must be equal"),
        (np.zeros((9, 64)), np.zeros((9, 8, 8)), "they must be equal"),
        (np.zeros((0, 8)), np.zeros((9, 8)), "at least one image"),
        (np.zeros(8), np.zeros((9, 8)), "add an axis"),
        (np.zeros((9, 8)), np.full((9, 8), np.nan), "NaN or infinity"),
        (np.full((9, 8), np.inf), np.zeros((9, 8)), "NaN or infinity"),
        (np.zeros((9, 8)), np.zeros((9, 8), "complex64"), "of type complex64: must be numbers"),
        (np.full((9, 8), "a"), np.zeros((9, 8)), "of type <U1: must be numbers"),
    ],
)
def test_sets_that_do_not_match_are_refused(function, first, second, piece):
    with pytest.raises(ValueError, match=piece):
        function(first, second)
