import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from diffusion_walkthrough.classroom import plots

RNG = np.random.default_rng(0)


def pixel_by_hand(value):
    """A value in [-1, 1] as a pixel, rounded half to even as NumPy and IEEE do."""
    value = float(np.float32(min(max(value, -1.0), 1.0)))
    return round(float(np.float32(value + np.float32(1)) * np.float32(127.5)))


def tile_by_hand(images, columns, scale, gap):
    """Every pixel of the picture placed on its own."""
    n, height, width, channels = images.shape
    rows = (n + columns - 1) // columns
    tall, wide = height * scale, width * scale
    shape = (gap + rows * (tall + gap), gap + columns * (wide + gap), 3)
    picture = np.full(shape, 255)
    for i in range(n):
        top, left = gap + i // columns * (tall + gap), gap + i % columns * (wide + gap)
        for y in range(tall):
            for x in range(wide):
                for c in range(3):
                    value = images[i, y // scale, x // scale, c if channels == 3 else 0]
                    picture[top + y, left + x, c] = pixel_by_hand(value)
    return picture


@pytest.mark.parametrize(
    ("shape", "columns", "scale", "gap"),
    [
        ((5, 3, 4, 1), 2, 3, 2),
        ((5, 3, 4, 3), 3, 2, 1),
        ((4, 2, 2, 1), 4, 1, 0),
        ((2, 2, 3, 3), 8, 2, 2),
        ((1, 1, 1, 1), 1, 1, 1),
    ],
)
def test_tile_places_every_pixel_where_a_naive_loop_does(shape, columns, scale, gap):
    images = RNG.uniform(-1.5, 1.5, shape)
    picture = plots.tile(images, columns=columns, scale=scale, gap=gap)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, tile_by_hand(images, columns, scale, gap))


def test_tile_clips_what_lies_outside_and_refuses_what_has_no_colour():
    picture = plots.tile(np.array([-7.0, -1.0, 1.0, 7.0]).reshape(4, 1, 1, 1), 4, 1, 0)
    assert picture[0, :, 0].tolist() == [0, 0, 255, 255]
    with pytest.raises(ValueError, match="NaN"):
        plots.tile(np.full((1, 2, 2, 1), np.nan))


def test_tile_leaves_its_images_alone():
    images = RNG.uniform(-2, 2, (3, 4, 4, 1))
    before = images.copy()
    plots.tile(images)
    np.testing.assert_array_equal(images, before)


def decoded(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 1, 3), (60, 200, 3), (4, 6)])
def test_png_gives_the_same_pixels_back(shape):
    picture = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(decoded(plots.to_png(picture)), picture)
    np.testing.assert_array_equal(decoded(plots.to_png(picture[::-1])), picture[::-1])


def test_png_of_a_figure_is_the_rendered_figure():
    # Two figures: constrained layout moves a figure a little when it is rendered again.
    figures = [plots.new_figure(width=3, height=1) for _ in range(2)]
    for _, axes in figures:
        axes.plot([0, 1], [0, 1])
    first, second = (figure for figure, _ in figures)
    np.testing.assert_array_equal(decoded(plots.to_png(first)), plots.figure_to_array(second))


def test_figure_renders_to_pixels_of_its_size():
    figure, axes = plots.new_figure(width=3, height=2)
    axes.set_facecolor((1, 0, 0))
    picture = plots.figure_to_array(figure)
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * plots.DOTS_PER_INCH, 3 * plots.DOTS_PER_INCH, 3)
    assert picture[0, 0].tolist() == [255, 255, 255]  # paper
    assert (picture == [255, 0, 0]).all(axis=-1).mean() > 0.5  # the axes
    assert picture.flags.owndata  # not the figure's own memory


def test_a_picture_shows_what_was_added_after_it_was_first_rendered():
    figure, axes = plots.new_figure()
    before = plots.figure_to_array(figure)
    axes.plot([0, 1], [0, 1])
    assert (plots.figure_to_array(figure) != before).any()


def test_new_figure_leaves_matplotlib_as_it_was():
    before = dict(mpl.rcParams)
    figure, axes = plots.new_figure(3, 2)
    assert dict(mpl.rcParams) == before
    assert isinstance(figure, Figure)
    assert axes.shape == (2, 3)
    # pyplot, which keeps figures alive and shows them a second time, does not know this one.
    plt = pytest.importorskip("matplotlib.pyplot")
    assert plt.get_fignums() == []


def test_style_reaches_what_is_drawn_after_the_figure_was_made():
    figure, axes = plots.new_figure()
    lines = [axes.plot([0, 1], [0, i])[0] for i in range(7)]
    assert [line.get_linewidth() for line in lines] == [2.0] * 7
    colours = [line.get_color() for line in lines]
    assert len(set(colours)) == 6
    assert colours[:2] == [plots.BLUE, plots.ORANGE]
    assert axes.plot([0, 1], [0, 1], linewidth=0.5)[0].get_linewidth() == 0.5
    assert not axes.spines["top"].get_visible()
    assert axes.get_axisbelow()
    figure.canvas.draw()
    assert axes.xaxis.get_major_ticks()[0].gridline.get_color() == "#e6e6e6"


def test_colours_stay_apart_for_colour_blind_eyes_and_on_grey_paper():
    names = (plots.BLUE, plots.ORANGE, plots.GREEN, plots.PINK, plots.SKY)
    light = np.array([to_rgb(name) for name in names])
    light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    # Machado, Oliveira & Fernandes 2009: how eyes without the cones for green see light.
    deuteranopia = np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    )
    seen = np.clip(light @ deuteranopia.T, 0, 1) ** (1 / 2.2)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distances[np.triu_indices(5, 1)].min() > 0.15
    grey = (light @ [0.2126, 0.7152, 0.0722]) ** (1 / 2.2)
    assert abs(grey[0] - grey[1]) > 0.2  # the two that nearly every figure uses


def shown_images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_strip_shows_grey_images_on_a_fixed_scale():
    images = [np.full((2, 2, 1), value) for value in (-1.5, 0.0, 1.5)]
    figure = plots.image_strip(images, ["dark", "middle", "light"], value_range=1.5)
    assert [axes.get_title() for axes in figure.axes] == ["dark", "middle", "light"]
    shown = [image.to_rgba(image.get_array(), bytes=True)[0, 0] for image in shown_images(figure)]
    assert [int(pixel[0]) for pixel in shown] == [0, 128, 255]
    assert all(pixel[0] == pixel[1] == pixel[2] for pixel in shown)


def test_strip_shows_colour_images_in_their_colours():
    image = np.array([[[1.0, -1.0, -1.0], [-1.0, 1.0, 0.0]]])
    figure = plots.image_strip([image, 2 * image])
    first, noisy = (np.asarray(shown.get_array()) for shown in shown_images(figure))
    np.testing.assert_allclose(first, [[[1, 0, 0], [0, 1, 0.5]]])
    np.testing.assert_array_equal(noisy, first)  # clipped, not wrapped
    wide = shown_images(plots.image_strip([image], value_range=2.0))[0]
    np.testing.assert_allclose(wide.get_array(), [[[0.75, 0.25, 0.25], [0.25, 0.75, 0.5]]])
    picture = plots.figure_to_array(figure)
    assert (picture == [255, 0, 0]).all(axis=-1).any()


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (5, 1), (5, 2), (6, 3)])
def test_strip_has_every_image_once_and_leaves_the_rest_empty(count, rows):
    images = [np.full((2, 2, 1), i / 10) for i in range(count)]
    figure = plots.image_strip(images, rows=rows)
    shown = shown_images(figure)
    assert [float(image.get_array()[0, 0]) for image in shown] == pytest.approx(
        [i / 10 for i in range(count)]
    )
    empty = [axes for axes in figure.axes if not axes.images]
    assert not any(axes.axison for axes in empty)
    assert figure.get_figwidth() <= 7.5


def bars(axes):
    return [(patch.get_x(), patch.get_width(), patch.get_facecolor()) for patch in axes.patches]


def test_strip_shows_how_much_signal_is_left_as_a_bar_below_each_image():
    images = [np.zeros((2, 2, 1))] * 3
    figure = plots.image_strip(images, ["a", "b", "c"], signal=[1.0, 0.25, 0.0])
    shares = []
    for axes in figure.axes:
        (_, whole, paper), (_, part, ink) = bars(axes)
        shares.append(part / whole)
        assert ink == (*to_rgb(plots.BLUE), 1.0)
        assert paper != ink
    assert shares == pytest.approx([1.0, 0.25, 0.0])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["1.00", "0.25", "0.00"]
    blue = (plots.figure_to_array(figure) == [0, 114, 178]).all(axis=-1)
    thirds = [part.sum() for part in np.array_split(blue, 3, axis=1)]
    assert thirds[1] == pytest.approx(thirds[0] / 4, rel=0.15)
    assert thirds[2] == 0


def test_narrow_images_have_the_bar_without_the_number():
    figure = plots.image_strip([np.zeros((2, 2, 1))] * 12, signal=np.linspace(1, 0, 12))
    assert all(not axes.texts for axes in figure.axes)
    assert bars(figure.axes[0])[0][1] == 1.0


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_bars_do_not_cover_what_is_drawn_below_them(rows):
    images = [np.full((2, 2, 1), -1.0)] * 6
    figure = plots.image_strip(images, ["title"] * 6, rows=rows, signal=[1.0] * 6)
    figure.canvas.draw()
    height = figure.bbox.height
    boxes = [(axes.get_window_extent(), axes) for axes in figure.axes]
    for box, axes in boxes:
        bar = axes.patches[0].get_window_extent()
        assert 0 <= bar.y0 < bar.y1 < box.y0
        for other, below in boxes:
            if other.y1 < box.y0 and other.x0 == pytest.approx(box.x0, abs=1):
                assert below.title.get_window_extent().y1 <= bar.y0 + 1
        assert bar.y1 < height


@pytest.mark.parametrize("signal", [[0.5], [0.5, 1.1], [-0.1, 0.5], [0.5, float("nan")]])
def test_a_share_that_is_none_is_refused(signal):
    with pytest.raises(ValueError, match=r"shares of signal|full at 1"):
        plots.image_strip([np.zeros((2, 2, 1))] * 2, signal=signal)


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(plots, "display", lambda *args, **options: calls.append((args, options)))
    return calls


@pytest.mark.parametrize("make", [lambda: plots.new_figure()[0], lambda: np.zeros((2, 3, 3), "u1")])
def test_show_says_in_words_what_the_picture_shows(displayed, make):
    alt = "A grey square, a < b, and nothing else."
    plots.show(make(), alt)
    ((bundle,), options), ((unseen,), _) = displayed
    assert "A grey square, a &lt; b, and nothing else." in unseen["text/html"]
    assert bundle == {"image/png": plots.to_png(make()), "text/plain": alt}
    assert options == {"raw": True, "metadata": {"image/png": {"alt": alt}}}


@pytest.mark.parametrize("alt", ["", "figure", "a noisy digit", "   a \n digit   noisy "])
def test_show_refuses_words_that_say_too_little(displayed, alt):
    with pytest.raises(ValueError, match="says too little") as error:
        plots.show(np.zeros((2, 2, 3), np.uint8), alt)
    assert repr(alt) in str(error.value)
    assert "what it shows" in str(error.value)
    assert displayed == []
