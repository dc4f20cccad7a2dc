"""matplotlib's figures as PNG files, with whatever names others chose in them."""

from __future__ import annotations

import io
import warnings

from matplotlib.figure import Figure

from ...runtime.core.text import printable


def literal(text: str) -> str:
    """Return text of one line in which matplotlib finds no formula, and which no legend leaves out.

    It leaves out what begins with an underscore.
    """
    shown = printable(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def png_of_figure(figure: Figure, *, dpi: int) -> bytes:
    """Return a figure as the bytes of a PNG file, the same ones each time."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Its font has no Chinese, among others, and draws boxes: the names are in other files, too.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(file, dpi=dpi, format="png", metadata={"Software": None})
    return file.getvalue()
