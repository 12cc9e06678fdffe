"""Sliders: a thin shell around a function that draws a picture."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np
from IPython.display import display
from matplotlib.figure import Figure

from diffusion_walkthrough.classroom.plots import to_png

Picture = Figure | np.ndarray


def slider(label: str, values: range | list, value: Any = None, **options: Any) -> Any:
    """Make a slider over whole numbers (a range) or over any list of values.

    Args:
        label: what it changes, shown beside it.
        values: a range, or a list of values or of ``(text, value)`` pairs.
        value: where it starts; the first value if None.
        **options: as for the widget.
    """
    common = {
        "description": label,
        "style": {"description_width": "initial"},
        "layout": ipywidgets.Layout(width="420px"),
        **options,
    }
    if isinstance(values, range):
        start = values[0] if value is None else value
        return ipywidgets.IntSlider(start, min(values), max(values), abs(values.step), **common)
    first = values[0][1] if isinstance(values[0], tuple) else values[0]
    start = first if value is None else value
    return ipywidgets.SelectionSlider(options=values, value=start, **common)


def choice(label: str, values: list[Any], **options: Any) -> ipywidgets.Dropdown:
    """Make a drop-down menu over a list of values or of ``(text, value)`` pairs."""
    style = {"description_width": "initial"}
    return ipywidgets.Dropdown(options=values, description=label, style=style, **options)


class Explorer(ipywidgets.VBox):
    """Controls above a line of text above a picture, redrawn whenever a control moves.

    Attributes:
        controls: the widgets by name.
        caption: the line of text, read aloud by screen readers when it changes.
        picture: the image widget.
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
        self.text = description
        self.caption = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png")
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
            encoded = to_png(picture)
        except Exception as error:
            where = ", ".join(f"{name} = {value!r}" for name, value in values.items())
            what = f"{type(error).__name__}: {error}"
            self._say(f"Not drawn for {where}, so the picture is the one before. {what}", "alert")
            raise
        self._say(caption)
        self.picture.value = encoded

    def _say(self, caption: str, role: str = "status") -> None:
        self.caption.value = f'<div role="{role}">{html.escape(caption, quote=False)}</div>'

    def __repr__(self) -> str:
        """The description, so that the page's text stays the same on every machine."""
        return self.text


def explore(
    draw: Callable[..., tuple[Picture, str]], description: str, **controls: Any
) -> Explorer:
    """Show controls above the picture they change.

    Args:
        draw: a pure function called with the controls' values by name; returns a figure or a
            uint8 picture and one line of text that says what it shows.
        description: what one can do here, in a sentence; stands in where no widget can be shown.
        **controls: widgets with a ``value``, for example from :func:`slider`.

    Returns:
        The explorer, already displayed; it can be moved by ``controls[name].value = …``.
    """
    explorer = Explorer(draw, controls, description)
    view = {"version_major": 2, "version_minor": 0, "model_id": explorer.model_id}
    bundle = {"application/vnd.jupyter.widget-view+json": view, "text/plain": description}
    display(bundle, raw=True)
    return explorer


class LivePicture:
    """A picture that is replaced in place, for watching something while it happens."""

    def __init__(self, draw: Callable[..., tuple[Picture, str]]) -> None:
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
