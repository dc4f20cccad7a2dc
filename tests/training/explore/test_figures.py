"""Names of others in figures: no formula, no warning, and none left out."""

from __future__ import annotations

import io
import warnings

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from motorvae.training.explore.figures import literal, png_of_figure

NAMES = ("_x", "__", "$a$", r"$\frac$", r"\$", "汉字", "\x07", "\u202eabc", "\udcff", "a\nb", "%s")


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name_is_drawn_without_a_warning(name: str) -> None:
    figure = Figure(figsize=(3, 3), layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.subplots()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (line,) = plot.plot([0, 1], [0, 1], label=literal(name))
        plot.set_title(literal(name))
        legend = figure.legend(handles=[line], loc="upper left")
        content = png_of_figure(figure, dpi=50)
    assert len(legend.get_texts()) == 1
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (150, 150)
    assert png_of_figure(figure, dpi=50) == content
