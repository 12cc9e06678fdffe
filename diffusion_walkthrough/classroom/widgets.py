"""Sliders: a thin shell around a function that draws a picture."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from diffusion_walkthrough.classroom.plots import figure_to_array, to_png

#: A figure, a uint8 picture ``(height, width, 3)``, or HTML as the functions of `live` make it.
Picture = Figure | np.ndarray | str

# How widgets look and behave on the page. Names for screen readers, which ipywidgets leaves out,
# are set again whenever something changes. JupyterLab takes single keys for its own wherever the
# focus is ("m" would turn the cell into Markdown), unless what has the focus has the attribute.
# It stays away while Shift, Ctrl or Alt is held, so that Shift+Enter still runs the cell. A field
# for text keeps all keys to itself; Enter gives the focus back to the cell.
_ON_LOAD = """
const root = this.closest('.classroom'), suppress = 'data-lm-suppress-shortcuts';
const all = (selector, act) => root.querySelectorAll(selector).forEach(act);
const set = (node, name, text) => node.getAttribute(name) === text || node.setAttribute(name, text);
const name = () => {
  all('.widget-slider', slider => {
    const handle = slider.querySelector('.noUi-handle');
    const label = slider.querySelector('.widget-label');
    const readout = slider.querySelector('.widget-readout');
    if (handle && label) { set(handle, 'aria-label', label.textContent); }
    if (handle && readout) { set(handle, 'aria-valuetext', readout.textContent); }
  });
  const question = root.querySelector('.widget-html span');
  all('.widget-radio-box', box => set(box, 'role', 'radiogroup'));
  all('.widget-radio-box, .widget-text input', entry => {
    if (question) { set(entry, 'aria-label', question.textContent); }
  });
};
const keep = event => {
  event.target.toggleAttribute(
    suppress, !(event.shiftKey || event.ctrlKey || event.altKey || event.metaKey));
  if (event.type === 'keyup' && event.key === 'Enter' && event.target.type === 'text') {
    event.target.closest('.jp-Cell')?.focus();
  }
};
['focusin', 'keydown', 'keyup'].forEach(kind => root.addEventListener(kind, keep, true));
root.namer = root.namer || new MutationObserver(name);
root.namer.observe(root, {childList: true, characterData: true, subtree: true});
name();
"""
_STYLE = """
.classroom { overflow: visible; }
.classroom .widget-html-content { line-height: 1.4; white-space: normal; font-size: 14px;
  max-width: 825px; }
.classroom .widget-label { text-align: left; }
.classroom img, .classroom svg, .classroom figure { max-width: 100%; height: auto; }
.classroom :focus-visible { outline: 2px solid #0072B2; outline-offset: 2px; }
.classroom select { appearance: auto; background-image: none; color-scheme: light; }
[data-jp-theme-light="false"] .classroom select { color-scheme: dark; }
"""


class Panel(ipywidgets.VBox):
    """Widgets below each other, and an unseen one that gives them looks, keys and names.

    Every widget of the course is one: with a plain box a press of "m" would end it.
    """

    def __init__(self, parts: Sequence[ipywidgets.Widget]) -> None:
        """Stack the parts."""
        page = f'<style onload="{html.escape(_ON_LOAD)}">{_STYLE}</style>'
        dressing = ipywidgets.HTML(page, layout=ipywidgets.Layout(display="none"))
        super().__init__([*parts, dressing])
        self.add_class("classroom")


def slider(label: str, values: range | list, value: Any = None, **options: Any) -> Any:
    """Make a slider over whole numbers (a range) or over any list of values.

    Args:
        label: what it changes, shown beside it.
        values: a range, or a list of values or of ``(text, value)`` pairs.
        value: where it starts; the first value if None.
        **options: as for the widget.
    """
    common = {**_common(label), **options}
    if isinstance(values, range):
        start = values[0] if value is None else value
        return ipywidgets.IntSlider(start, min(values), max(values), abs(values.step), **common)
    first = values[0][1] if isinstance(values[0], tuple) else values[0]
    start = first if value is None else value
    return ipywidgets.SelectionSlider(options=values, value=start, **common)


def choice(label: str, values: list[Any], **options: Any) -> ipywidgets.Dropdown:
    """Make a drop-down menu over a list of values or of ``(text, value)`` pairs."""
    return ipywidgets.Dropdown(options=values, **{**_common(label), **options})


def _common(label: str) -> dict[str, Any]:
    return {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="460px", max_width="100%"),
    }


class Explorer(Panel):
    """Controls above a line of text above a picture, redrawn whenever a control moves.

    A fast hand does not make a queue: the page sends the next value of a control when the kernel
    has drawn the last one, and leaves out those in between.

    Attributes:
        controls: the widgets by name.
        caption: the line of text, read aloud by screen readers when it changes.
        picture: the picture, as HTML.
        first_picture: the first picture as PNG, if it was drawn as a figure or an array.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Picture, str]],
        controls: dict[str, Any],
        description: str,
    ) -> None:
        """Build the controls and draw the first picture; see :func:`explore`."""
        self.draw = draw
        self.controls = controls
        self.text = f"{description} (Run this cell to move it.)"
        self.caption = ipywidgets.HTML()
        self.picture = ipywidgets.HTML()
        self.first_picture: bytes | None = None
        align(list(controls.values()))
        super().__init__([*controls.values(), self.caption, self.picture])
        for control in controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change: Any = None) -> None:
        """Draw for the controls' values; say what went wrong where the reader looks.

        JupyterLab hides errors of callbacks in a log, so the caption shows them too. They are
        raised all the same: the log has the traceback, and a cell that moves a control fails.
        """
        values = {name: control.value for name, control in self.controls.items()}
        try:
            picture, caption = self.draw(**values)
            page = picture if isinstance(picture, str) else self._tag(picture, caption)
        except Exception as error:
            where = ", ".join(f"{name} = {value!r}" for name, value in values.items())
            what = f"{type(error).__name__}: {error}"
            self._say(f"Not drawn for {where}, so the picture is the one before. {what}", "alert")
            raise
        self._say(caption)
        self.picture.value = page

    def _tag(self, picture: Figure | np.ndarray, caption: str) -> str:
        """A picture as HTML, never larger than it was drawn, and never wider than the page."""
        array = figure_to_array(picture) if isinstance(picture, Figure) else picture
        self.first_picture = self.first_picture or to_png(array)
        return picture_tag(array, caption)

    def _say(self, caption: str, role: str = "status") -> None:
        self.caption.value = f'<div role="{role}">{html.escape(caption, quote=False)}</div>'

    def __repr__(self) -> str:
        """The description, so that the page's text stays the same on every machine."""
        return self.text


def picture_tag(picture: np.ndarray, alt: str) -> str:
    """A uint8 picture as HTML, never larger than it was drawn, and never wider than the page."""
    height, width = picture.shape[:2]
    return (
        f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{base64.b64encode(to_png(picture)).decode()}"/>'
    )


def explore(
    draw: Callable[..., tuple[Picture, str]],
    description: str,
    still: Figure | np.ndarray | None = None,
    **controls: Any,
) -> Explorer:
    """Show controls above the picture they change.

    Args:
        draw: a pure function called with the controls' values by name; returns a picture (HTML
            of `live` follows the hand, a figure takes 50 to 200 ms) and one line of text that
            says what it shows.
        description: what one can do here, in a sentence; stands in where no widget can be shown.
        still: a picture that stands in with it; if None, the first one, unless that is HTML.
        **controls: widgets with a ``value``, for example from :func:`slider`.

    Returns:
        The explorer, already displayed; it can be moved by ``controls[name].value = …``.
    """
    explorer = Explorer(draw, controls, description)
    png = explorer.first_picture if still is None else to_png(still)
    show_widget(explorer, explorer.text, png)
    return explorer


def show_widget(widget: ipywidgets.DOMWidget, text: str, png: bytes | None = None) -> None:
    """Display a widget; a sentence, and a picture if there is one, stand in where none can be.

    Args:
        widget: what to display.
        text: what it is and how to bring it to life.
        png: what it shows first, encoded.
    """
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    bundle: dict[str, Any] = {"application/vnd.jupyter.widget-view+json": view, "text/plain": text}
    if png is not None:
        bundle["image/png"] = png
    display(bundle, raw=True, metadata={"image/png": {"alt": text}} if png else {})


def align(controls: list[Any]) -> None:
    """Give all labels the width of the longest, so that the controls begin at the same place."""
    labelled = [control for control in controls if hasattr(control.style, "description_width")]
    longest = max((len(control.description) for control in labelled), default=0)
    for control in labelled:
        control.style.description_width = f"{0.55 * longest + 0.5:.1f}em"


class LivePicture:
    """A picture that is replaced in place, for watching something while it happens."""

    def __init__(self, draw: Callable[..., tuple[Figure | np.ndarray, str]]) -> None:
        """Prepare the picture; it appears with the first call.

        Args:
            draw: returns a picture and a sentence that says what it shows.
        """
        self.draw = draw
        self.handle: Any = None

    def __call__(self, *values: Any) -> None:
        """Draw with these values and put the result in the place of the last picture."""
        picture, alt = self.draw(*values)
        bundle = {"image/png": to_png(picture), "text/plain": alt}
        metadata = {"image/png": {"alt": alt}}
        if self.handle is None:
            self.handle = display(bundle, raw=True, metadata=metadata, display_id=True)
        else:
            self.handle.update(bundle, raw=True, metadata=metadata)
