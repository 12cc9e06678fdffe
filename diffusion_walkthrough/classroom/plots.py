"""Drawing: image grids, figures in one style, and pictures that can also be read aloud.

Figures are ``matplotlib.figure.Figure`` objects, never pyplot's current figure, so that a
drawing function is a pure function of its arguments. Arrays of pictures are uint8
``(height, width, 3)``.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from cycler import cycler
from IPython.display import display
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from diffusion_walkthrough.data import to_uint8

#: Colours that stay apart for colour-blind eyes and on a grey print (Okabe & Ito 2008).
BLUE, ORANGE, GREEN, PINK, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#666666",
)

#: Text in a colour of the palette needs a darker shade of it: 4.5 to 1 on white (WCAG 1.4.3).
_INK = {ORANGE: "#8F5F00", GREEN: "#00724F", PINK: "#9C3A74", SKY: BLUE}

DOTS_PER_INCH = 110

#: Text that takes no room on the page and is read aloud all the same.
_UNSEEN = (
    '<span style="position:absolute;width:1px;height:1px;overflow:hidden;'
    'clip-path:inset(50%);white-space:nowrap">Picture: {}</span>'
)

_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # Lines read their width only when they are drawn, so it goes with the colours.
    "axes.prop_cycle": cycler(linewidth=[2.0])
    * cycler(color=[BLUE, ORANGE, GREEN, PINK, SKY, GREY]),
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
}


def ink(colour: str) -> str:
    """The shade of a colour of the palette in which text can be read on white."""
    return _INK.get(colour, colour)


def new_figure(
    columns: int = 1, rows: int = 1, width: float = 7.5, height: float = 2.8, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure in the course's style, with its axes.

    Args:
        columns: how many axes side by side.
        rows: how many below each other.
        width: in inches; 7.5 fills a notebook's column.
        height: in inches.
        **options: as for ``Figure.subplots``, for example ``sharey=True``.

    Returns:
        The figure and its axes, as ``Figure.subplots`` returns them.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        return figure, figure.subplots(rows, columns, **options)


def draw_image(axes: Axes, image: Any, title: str = "", value_range: float = 1.0) -> None:
    """Draw one image of values in [-value_range, value_range] into axes, without ticks.

    Args:
        axes: where.
        image: ``(height, width)`` or ``(height, width, 1 or 3)``.
        title: short text above it.
        value_range: what counts as white; larger than 1 for noisy images.
    """
    pixels = np.asarray(image, dtype=np.float32)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3:
        pixels = np.clip((pixels / value_range + 1) / 2, 0, 1)
    axes.imshow(pixels, vmin=-value_range, vmax=value_range, interpolation="nearest", cmap="gray")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#bbbbbb")


def image_strip(
    images: Sequence[Any],
    titles: Sequence[str] = (),
    value_range: float = 1.0,
    rows: int = 1,
    signal: Sequence[float] | None = None,
    labels: Sequence[str] = (),
) -> Figure:
    """Draw a few images side by side, each under its title.

    Args:
        images: images in [-1, 1] (noisy ones may go beyond), each ``(height, width, channels)``.
        titles: one short text each, or none at all.
        value_range: what counts as white; larger than 1 for noisy images.
        rows: over how many rows to spread them.
        signal: the share √ᾱ of the clean image in each, in [0, 1], drawn as a bar below it.
        labels: a short text at the left of each row, or none at all.

    Raises:
        ValueError: if there are not as many shares as images, or one lies outside [0, 1].
    """
    if signal is not None and len(signal) != len(images):
        raise ValueError(f"{len(signal)} shares of signal for {len(images)} images.")
    columns = -(-len(images) // rows)
    width = min(7.5, 1.3 * columns)
    above, below = 0.3 if titles else 0.05, 0.0 if signal is None else 0.2
    height = rows * (width / columns + above + below)
    figure, axes = new_figure(columns, rows, width, height, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i, image in enumerate(images):
        axes.flat[i].set_axis_on()
        draw_image(axes.flat[i], image, titles[i] if titles else "", value_range)
        if signal is not None:
            draw_gauge(axes.flat[i], signal[i], with_number=width / columns >= 0.85)
    for axis, label in zip(axes[:, 0], labels, strict=False):
        axis.set_ylabel(label)
    return figure


def draw_gauge(axes: Axes, share: float, with_number: bool = True) -> None:
    """Draw a bar below axes that is empty at 0 and full at 1.

    Args:
        axes: with an image in it.
        share: in [0, 1].
        with_number: whether the number stands at the bar's right, which takes a third of the room.

    Raises:
        ValueError: if ``share`` lies outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: a bar is full at 1 and empty at 0.")
    whole = 0.64 if with_number else 1.0
    for part, colour in ((1.0, "#dddddd"), (share, BLUE)):
        bar = Rectangle((0, -0.13), whole * part, 0.07, transform=axes.transAxes, color=colour)
        bar.set(linewidth=0, clip_on=False)
        axes.add_patch(bar)
    if with_number:
        options: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "center"}
        axes.text(1, -0.1, f"{share:.2f}", fontsize=8, **options)


def tile(images: Any, columns: int = 8, scale: int = 6, gap: int = 2) -> NDArray[np.uint8]:
    """Lay images out in a grid, as one picture; much faster than drawing each.

    Args:
        images: ``(n, height, width, 1 or 3)``; values are clipped to [-1, 1].
        columns: images a row.
        scale: how many times to enlarge each pixel.
        gap: white pixels between images.

    Returns:
        uint8 ``(height of all, width of all, 3)``.
    """
    pixels = to_uint8(np.clip(np.asarray(images, dtype=np.float32), -1, 1))
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = pixels.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, image in enumerate(pixels):
        top = gap + (i // columns) * (height + gap)
        left = gap + (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def figure_to_array(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure to a uint8 picture ``(height, width, 3)``."""
    canvas = FigureCanvasAgg(figure)
    layout = figure.get_layout_engine()
    if layout and any(axes.get_aspect() != "auto" for axes in figure.axes):
        layout.execute(figure)  # what is beside axes of a fixed shape fits at the second try only
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def to_png(picture: Figure | NDArray[np.uint8]) -> bytes:
    """Encode a figure or a uint8 picture as PNG."""
    array = figure_to_array(picture) if isinstance(picture, Figure) else picture
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="png")
    return buffer.getvalue()


def show(picture: Figure | NDArray[np.uint8], alt: str) -> None:
    """Display a picture together with a sentence that says what it shows.

    The sentence is the picture's alternative text, and its plain-text form for wherever pictures
    do not load. JupyterLab does not hand alternative text on to the page, so the sentence also
    follows the picture as text that only a screen reader sees.

    Args:
        picture: a figure, or uint8 ``(height, width, 3)``.
        alt: what one sees and should notice, in a sentence or two.

    Raises:
        ValueError: if ``alt`` says too little.
    """
    if len(alt.split()) < 4:
        raise ValueError(
            f"alt = {alt!r} says too little for someone who cannot see the picture; write a "
            "sentence: what it shows and what to notice."
        )
    bundle = {"image/png": to_png(picture), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
    display({"text/html": _UNSEEN.format(html.escape(alt))}, raw=True)
