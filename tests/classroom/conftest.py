"""What the tests of pictures share."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg


@pytest.fixture(autouse=True)
def nothing_is_cut_off(monkeypatch):
    """Each figure that is drawn in a test holds all of its letters."""
    draw = FigureCanvasAgg.draw

    def draw_and_look(canvas):
        draw(canvas)
        figure = canvas.figure
        inches = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        beyond = max(-inches.x0, -inches.y0, inches.x1 - width, inches.y1 - height)
        assert beyond * figure.dpi < 1, f"{beyond * figure.dpi:.1f} pixels are beyond the edge"

    monkeypatch.setattr(FigureCanvasAgg, "draw", draw_and_look)
