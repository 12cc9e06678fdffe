import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from diffusion_walkthrough.classroom import live, plots

RNG = np.random.default_rng(0)


def tree(page):
    """The page as elements; an unclosed or unescaped one is an error here, as XML is strict."""
    return ET.fromstring(f"<page>{page}</page>")


def decoded(page):
    source = tree(page).find(".//img").get("src")
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image)


# Images.


@pytest.mark.parametrize(("value", "level"), [(-9, 0), (-2, 0), (-1, 64), (0, 128), (2, 255)])
def test_grey_levels_are_those_of_the_value_range(value, level):
    for shape in ((3, 4), (3, 4, 1)):
        picture = decoded(live.pixels(np.full(shape, value), "a", value_range=2.0))
        assert picture.shape == (3, 4)
        assert (picture == level).all()


def test_pixels_stand_where_they_stood_and_have_their_colours():
    image = RNG.uniform(-1, 1, (5, 7, 3)).astype(np.float32)
    expected = np.rint((image + 1) * 127.5)
    np.testing.assert_array_equal(decoded(live.pixels(image, "a")), expected)
    grey = image[..., 0]
    np.testing.assert_array_equal(decoded(live.pixels(grey, "a")), expected[..., 0])


def test_an_image_keeps_its_shape_at_its_size_and_is_described():
    page = live.pixels(np.zeros((4, 8)), 'a < "b" & c', size=96)
    image = tree(page).find(".//img")
    assert (image.get("width"), image.get("height")) == ("96", "48")
    assert image.get("alt") == 'a < "b" & c'
    assert tree(page).find(".//figcaption").text == 'a < "b" & c'
    assert "pixelated" in image.get("style")
    assert "pixelated" not in live.pixels(np.zeros((4, 200)), "made smaller", size=96)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 4), (1, 4, 4, 1)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(height, width, 1 or 3\)"):
        live.pixels(np.zeros(shape), "a")


def test_nan_has_no_colour_and_no_length():
    with pytest.raises(ValueError, match="NaN"):
        live.pixels(np.full((2, 2), np.nan), "a")
    with pytest.raises(ValueError, match="NaN"):
        live.gauge(float("nan"), "a")


# Layout.


def test_parts_keep_their_order_in_rows_and_stacks():
    for lay in (live.row, live.stack):
        page = lay(live.sign("+"), live.pixels(np.zeros((2, 2)), "one"), live.sign("="))
        assert "".join(tree(page).itertext()) == "+one="
        assert lay() in ("", live.row())


def test_text_is_text_and_not_html():
    for page in (live.sign("<b> & c"), live.gauge(1, "<b> & c")):
        assert "".join(tree(page).itertext()) == "<b> & c"


@pytest.mark.parametrize(
    ("share", "width"), [(0, 0), (0.25, 50), (1, 200), (7, 200), (-1, 0), (np.float32(0.5), 100)]
)
def test_a_gauge_is_as_long_as_its_share(share, width):
    whole, part = tree(live.gauge(share, "signal", width=200)).findall(".//rect")
    assert float(whole.get("width")) == 200
    assert float(part.get("width")) == width
    # Its caption stands beside it and would be read twice.
    assert tree(live.gauge(share, "signal")).find(".//svg").get("aria-hidden") == "true"


# Curves.


def points_of(page):
    """Each curve as its pieces, each a list of (across, down); they are written in tenths."""
    curves = tree(page).findall(".//svg/svg")
    return [
        [
            [
                tuple(int(number) / 10 for number in point.split(","))
                for point in piece.get("points").split()
            ]
            for piece in curve.findall("polyline")
        ]
        for curve in curves
    ]


def words_of(page):
    return [text.text for text in tree(page).findall(".//text")]


def label_of(page, words):
    (found,) = (text for text in tree(page).findall(".//text") if text.text == words)
    return found


def test_a_curve_goes_from_edge_to_edge_and_up_is_more():
    page = live.curves([0, 1, 2], {"a": [0.0, 1.0, 0.5]}, "a curve")
    (((x0, y0), (x1, y1), (x2, y2)),) = points_of(page)[0:1][0]
    assert x0 < x1 < x2 < 330
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 < y2 < y0
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert words_of(page) == ["0", "2", "0", "1"]  # a single curve needs no name


def test_points_lie_where_the_axes_say():
    page = live.curves([0, 10], {"a": [0.0, 0.0]}, "a", {"dot": (5, 0.25)}, limits=(0, 1))
    (((left, floor), (right, _)),) = points_of(page)[0]
    dot = tree(page).find(".//circle")
    top = float(re.search(r"M\d+ (\d+)V", page)[1])
    assert float(dot.get("cx")) == pytest.approx((left + right) / 2, abs=0.1)
    assert float(dot.get("cy")) == pytest.approx(floor + 0.25 * (top - floor), abs=0.1)
    assert "dot" in words_of(page)


def test_each_curve_is_named_at_its_end_and_names_do_not_overlap():
    names = ["linear", "cosine", "<b>", "another", "fifth", "sixth"]
    lines = {name: [0.0, 1.0 + 0.001 * i] for i, name in enumerate(names)}
    page = live.curves([0, 1], lines, "several", size=(400, 150))
    downs = sorted(float(label_of(page, name).get("y")) for name in names)
    assert np.diff(downs).min() >= 12
    assert min(downs) > 0
    assert max(downs) < 150
    for name in names:
        assert float(label_of(page, name).get("x")) + 6.2 * len(name) < 401
    assert len(points_of(page)) == 6
    colours = [curve.get("stroke") for curve in tree(page).findall(".//svg/svg")]
    assert len(set(colours)) == 6
    assert colours[0] == plots.BLUE
    order = sorted(names, key=lambda name: float(label_of(page, name).get("y")))
    assert order == names[::-1]


def test_a_curve_breaks_off_where_it_is_not_finite():
    line = [1.0, np.nan, 2.0, 3.0, np.inf, -np.inf, 4.0, np.nan]
    page = live.curves(np.arange(8), {"a": line, "b": np.arange(8)}, "a")
    pieces = points_of(page)[0]
    assert [len(piece) for piece in pieces] == [1, 2, 1]
    assert "nan" not in page
    assert "inf" not in page
    assert words_of(page)[2:4] == ["0", "7"]


def test_what_lies_beyond_the_limits_is_cut_off_and_not_bent():
    page = live.curves([0, 1, 2], {"a": [0.0, 5.0, 10.0]}, "a", {"out": (2, 10)}, limits=(0, 1))
    (((_, y0), (_, y1), (_, y2)),) = points_of(page)[0]
    assert y0 - y1 == pytest.approx(y1 - y2)  # still straight
    box = tree(page).find(".//svg/svg")
    assert y2 < float(box.get("y"))  # outside of the part of the chart that shows
    assert tree(page).find(".//circle").get("fill") == "none"
    inside = live.curves([0, 1, 2], {"a": [0.0, 5.0, 10.0]}, "a", {"in": (2, 10)})
    assert tree(inside).find(".//circle").get("fill") == "currentColor"


def test_names_of_points_stay_on_the_chart():
    marks = {"at the very right": (1, 1.0), "at the left": (0, 0.0)}
    page = live.curves([0, 1], {"a": [0, 1]}, "a", marks)
    right, left = (label_of(page, name) for name in marks)
    assert right.get("text-anchor") == "end"
    assert left.get("text-anchor") == "start"
    assert float(right.get("y")) >= 11
    assert (
        len(tree(live.curves([0], {"a": [0]}, "a", {"?": (0, np.nan)})).findall(".//circle")) == 0
    )


@pytest.mark.parametrize(
    ("x", "line", "numbers"),
    [([3], [2.0], ["3", "3", "1.5", "2.5"]), ([0, 1], [2.0, 2.0], ["0", "1", "1.5", "2.5"]),
     ([0, 1], [np.nan, np.nan], ["0", "1", "0", "1"]), ([1, 0], [-0.0, 1], ["1", "0", "0", "1"])],
)  # fmt: skip
def test_curves_without_extent_are_drawn_all_the_same(x, line, numbers):
    page = live.curves(x, {"a": line}, "a")
    assert words_of(page) == numbers
    assert "nan" not in page


def test_long_numbers_have_room_at_the_left():
    page = live.curves([0, 1], {"a": [-0.0123456, 0.02]}, "a")
    low = label_of(page, "-0.0123")
    assert low.get("text-anchor") == "end"
    assert float(low.get("x")) >= 6 * len("-0.0123")


def test_the_ends_of_axes_are_as_exact_as_can_be_seen():
    page = live.curves([0, 999], {"a": [9.719e-05, 0.99995]}, "a")
    assert words_of(page) == ["0", "999", "0", "1"]
    page = live.curves([1000, 1001], {"a": [9.719e-06, 1234567]}, "a")
    assert words_of(page) == ["1000", "1001", "0", "1.23e+06"]


@pytest.mark.parametrize(
    ("x", "lines", "limits"),
    [([0, 1], {}, None), ([0, 1], {str(i): [0, 1] for i in range(7)}, None),
     ([0, 1], {"a": [0, 1, 2]}, None), ([], {"a": []}, None), ([0, 1], {"a": [0, 1]}, (1, 1)),
     ([0, 1], {"a": [0, 1]}, (0, np.nan))],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(x, lines, limits):
    with pytest.raises(ValueError, match=r"curves|shape|limits"):
        live.curves(x, lines, "a", limits=limits)


def test_a_chart_is_described_and_takes_the_colour_of_the_page():
    chart = tree(live.curves([0, 1], {"a": [0, 1]}, "loss < 1")).find(".//svg")
    told = "loss < 1. Across: 0 to 1. a: from 0 to 1, highest 1 at 1"
    assert chart.get("aria-label") == told
    assert chart.get("role") == "img"
    assert chart.get("fill") == "currentColor"
    assert all(text.get("fill") is None for text in chart.iter("text"))
