import base64
import html
import io
import re

import ipywidgets
import numpy as np
import pytest
import traitlets
from PIL import Image

from diffusion_walkthrough.classroom import plots, widgets


class Drawing:
    """A drawing function that remembers what it was asked for, and fails where told to."""

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def __call__(self, **values):
        self.calls.append(values)
        if values["t"] == self.fails_at:
            raise ValueError(f"t = {values['t']} is <not> drawn & that is that")
        picture = np.full((2, 2, 3), values["t"], np.uint8)
        return picture, f"the picture at t = {values['t']}"


@pytest.fixture
def displayed(monkeypatch):
    calls = []
    monkeypatch.setattr(widgets, "display", lambda *args, **options: calls.append((args, options)))
    return calls


def explorer_of(draw, **more):
    controls = {"t": widgets.slider("t", range(100), 7), **more}
    return widgets.Explorer(draw, controls, "A slider for t.")


def words(caption):
    return re.sub("<[^>]*>", "", caption.value)


def image_of(explorer):
    """The picture's size on the page, its text, and its PNG."""
    pattern = r'<img alt="(.*)" width="(\d+)" height="(\d+)" src="data:image/png;base64,(.*)"/>'
    alt, width, height, png = re.fullmatch(pattern, explorer.picture.value).groups()
    return int(width), int(height), html.unescape(alt), base64.b64decode(png)


def png_of(t):
    return plots.to_png(np.full((2, 2, 3), t, np.uint8))


def test_first_picture_is_drawn_for_the_controls_initial_values():
    draw = Drawing()
    explorer = explorer_of(draw, name=widgets.choice("schedule", ["linear", "cosine"]))
    assert draw.calls == [{"t": 7, "name": "linear"}]
    assert image_of(explorer) == (2, 2, "the picture at t = 7", png_of(7))
    assert words(explorer.caption) == "the picture at t = 7"


def test_moving_a_control_draws_with_the_values_of_all():
    draw = Drawing()
    explorer = explorer_of(draw, name=widgets.choice("schedule", ["linear", "cosine"]))
    before = explorer.picture.value
    explorer.controls["t"].value = 50
    assert draw.calls[1:] == [{"t": 50, "name": "linear"}]
    assert explorer.picture.value != before
    assert words(explorer.caption) == "the picture at t = 50"
    explorer.controls["name"].value = "cosine"
    assert draw.calls[2:] == [{"t": 50, "name": "cosine"}]
    explorer.controls["t"].value = 7
    assert explorer.picture.value == before


def test_a_value_that_stays_is_not_drawn_again():
    draw = Drawing()
    explorer_of(draw).controls["t"].value = 7
    assert len(draw.calls) == 1


def test_a_message_from_the_browser_moves_the_picture():
    draw = Drawing()
    explorer = explorer_of(draw)
    explorer.controls["t"].set_state({"value": 42})
    assert draw.calls[-1] == {"t": 42}
    assert words(explorer.caption) == "the picture at t = 42"


def test_caption_is_announced_when_it_changes():
    explorer = explorer_of(Drawing())
    explorer.controls["t"].value = 3
    assert explorer.caption.value == '<div role="status">the picture at t = 3</div>'


def test_caption_is_text_and_not_html():
    explorer = explorer_of(lambda t: (np.zeros((1, 1, 3), np.uint8), f"{t} < 10 & <b>bold</b>"))
    assert "7 &lt; 10 &amp; &lt;b&gt;bold&lt;/b&gt;" in explorer.caption.value


def test_a_figure_is_shown_at_the_size_it_was_drawn():
    def draw(t):
        figure, axes = plots.new_figure(width=2, height=1)
        axes.axvline(t)
        return figure, f'"{t}" < 100'

    explorer = explorer_of(draw)
    width, height, alt, before = image_of(explorer)
    assert (width, height, alt) == (220, 110, '"7" < 100')
    explorer.controls["t"].value = 90
    assert before.startswith(b"\x89PNG")
    assert image_of(explorer)[-1].startswith(b"\x89PNG")
    assert image_of(explorer)[-1] != before


def test_html_is_shown_as_it_is():
    explorer = explorer_of(lambda t: (f"<b>{t}</b>", "bold"))
    assert explorer.picture.value == "<b>7</b>"
    explorer.controls["t"].value = 8
    assert explorer.picture.value == "<b>8</b>"
    assert explorer.first_picture is None


def test_the_first_picture_is_kept_for_the_page_without_widgets():
    explorer = explorer_of(Drawing())
    explorer.controls["t"].value = 8
    assert explorer.first_picture == png_of(7)


# A drawing function that fails.


def test_a_failing_drawing_says_so_in_the_caption_and_is_raised():
    explorer = explorer_of(Drawing(fails_at=50), name=widgets.choice("schedule", ["linear"]))
    before = explorer.picture.value
    with pytest.raises(ValueError, match="t = 50"):
        explorer.controls["t"].value = 50
    said = explorer.caption.value
    assert said.startswith('<div role="alert">')
    assert "t = 50, name = 'linear'" in said
    assert "ValueError: t = 50 is &lt;not&gt; drawn &amp; that is that" in said
    assert "the picture is the one before" in said
    assert explorer.picture.value == before


def test_a_failure_in_the_browser_does_not_end_the_explorer():
    explorer = explorer_of(Drawing(fails_at=50))
    with pytest.raises(ValueError, match="t = 50"):
        explorer.controls["t"].set_state({"value": 50})
    explorer.controls["t"].set_state({"value": 51})
    assert explorer.caption.value == '<div role="status">the picture at t = 51</div>'
    assert image_of(explorer)[-1] == png_of(51)


def test_a_picture_that_cannot_be_encoded_counts_as_a_failure():
    explorer = explorer_of(lambda t: (np.zeros((2, 2, 3), np.uint8 if t < 50 else float), f"{t}"))
    with pytest.raises(TypeError):
        explorer.controls["t"].value = 50
    assert "TypeError" in explorer.caption.value


def test_a_failing_first_drawing_is_raised_in_the_cell_that_made_it():
    with pytest.raises(ValueError, match="t = 7"):
        explorer_of(Drawing(fails_at=7))


# What stands on the page.


def test_repr_is_the_description_and_has_no_address():
    explorer = explorer_of(Drawing())
    assert repr(explorer) == "A slider for t. (Run this cell to move it.)"
    explorer.controls["t"].value = 9
    assert repr(explorer) == "A slider for t. (Run this cell to move it.)"


SENTENCE = "A slider for t from 0 to 9. (Run this cell to move it.)"


def test_explore_displays_the_widget_and_what_stands_in_where_there_is_none(displayed):
    control = widgets.slider("t", range(10), 2)
    explorer = widgets.explore(Drawing(), "A slider for t from 0 to 9.", t=control)
    (((bundle,), options),) = displayed
    assert options == {"raw": True, "metadata": {"image/png": {"alt": SENTENCE}}}
    assert bundle["text/plain"] == SENTENCE
    assert bundle["image/png"] == png_of(2)
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.model_id
    assert explorer.children[:3] == (control, explorer.caption, explorer.picture)


def test_an_explorer_of_html_leaves_its_sentence_alone(displayed):
    control = widgets.slider("t", range(10), 2)
    widgets.explore(lambda t: (f"{t}", f"{t}"), "A slider for t from 0 to 9.", t=control)
    (((bundle,), options),) = displayed
    assert options == {"raw": True, "metadata": {}}
    assert bundle["text/plain"] == SENTENCE
    assert len(bundle) == 2


def test_a_picture_of_its_own_stands_in_for_an_explorer_of_html(displayed):
    control = widgets.slider("t", range(10), 2)
    still = np.full((2, 3, 3), 7, np.uint8)
    widgets.explore(lambda t: (f"{t}", f"{t}"), "A slider for t from 0 to 9.", still, t=control)
    (((bundle,), options),) = displayed
    assert options["metadata"] == {"image/png": {"alt": SENTENCE}}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bundle["image/png"]))), still)


def test_every_widget_of_the_course_carries_its_looks_keys_and_names():
    """What they do in a browser, tests/browser shows."""
    *parts, dressing = explorer_of(Drawing()).children
    assert len(parts) == 3
    assert dressing.layout.display == "none"
    attribute, style = re.fullmatch(
        r'<style onload="([^"]*)">([^<]*)</style>', dressing.value, re.DOTALL
    ).groups()
    assert "data-lm-suppress-shortcuts" in html.unescape(attribute)
    assert "max-width: 100%" in style
    assert "classroom" in widgets.Panel([])._dom_classes


def test_controls_begin_at_the_same_place():
    controls = {
        "t": widgets.slider("t", range(10)),
        "kind": widgets.choice("a long name", ["linear", "cosine"]),
        "button": ipywidgets.ToggleButton(description="on", value=False),
    }
    widgets.Explorer(lambda **values: ("", ""), controls, "Three controls.")
    width = controls["t"].style.description_width
    assert re.fullmatch(r"\d+\.\dem", width)
    assert controls["kind"].style.description_width == width
    assert controls["kind"].layout.width == controls["t"].layout.width
    assert float(width[:-2]) >= 0.5 * len("a long name")


# Controls.


def test_slider_over_a_range_ends_at_its_last_value():
    control = widgets.slider("t", range(0, 1000, 50), 150)
    assert isinstance(control, ipywidgets.IntSlider)
    assert (control.min, control.max, control.step, control.value) == (0, 950, 50, 150)
    assert control.description == "t"
    assert widgets.slider("t", range(3, 9)).value == 3


def test_slider_over_a_falling_range_starts_at_its_first_value():
    control = widgets.slider("t", range(9, -1, -1))
    assert (control.min, control.max, control.step, control.value) == (0, 9, 1, 9)


@pytest.mark.parametrize(
    ("values", "first", "last"),
    [([10, 100, 1000], 10, 1000), ([("none", 0.0), ("a lot", 0.5)], 0.0, 0.5)],
)
def test_slider_over_a_list_takes_its_values_and_no_other(values, first, last):
    control = widgets.slider("T", values)
    assert control.value == first
    control.value = last
    assert control.value == last
    assert widgets.slider("T", values, last).value == last
    with pytest.raises(traitlets.TraitError):
        control.value = 11
    with pytest.raises(traitlets.TraitError):
        widgets.slider("T", values, 11)


def test_a_value_beyond_the_end_of_a_slider_never_reaches_the_drawing():
    """ipywidgets moves whole numbers to the nearest end and refuses what is none."""
    draw = Drawing()
    explorer = explorer_of(draw)
    explorer.controls["t"].value = 5000
    assert explorer.controls["t"].value == 99
    explorer.controls["t"].value = -3
    assert [call["t"] for call in draw.calls] == [7, 99, 0]
    with pytest.raises(traitlets.TraitError):
        explorer.controls["t"].value = "many"
    assert len(draw.calls) == 3


def test_choice_takes_its_values_and_no_other():
    control = widgets.choice("schedule", ["linear", "cosine"], value="cosine")
    assert (control.value, control.description) == ("cosine", "schedule")
    with pytest.raises(traitlets.TraitError):
        control.value = "quadratic"
