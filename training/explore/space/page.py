"""The map as one HTML page that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from ....runtime.core.text import printable, printable_values
from .collection import Collection
from .colouring import Colouring
from .originals import SIDE, Thumbnails

_TEMPLATE, _SCRIPT = (Path(__file__).with_name(name) for name in ("map.html.j2", "map.js"))
_MANY, _SMALL_SIDE = 1500, 64
"""Of more images thumbnails are smaller: 5,000 photographs are then in 8 MB of page."""
_QUALITY = 80


def page_of(
    collection: Collection,
    coordinates: npt.NDArray[np.float64],
    colouring: Colouring,
    *,
    title: str,
    summary: str,
) -> str:
    """Return the page: points (N, 2) on a canvas, their pictures on pointing, names, a legend.

    All is in the page, the thumbnails as one JPEG. Names, labels and titles are text, never HTML,
    with what would hide or turn around a part of it spelt out, and the page's policy (CSP) lets no
    script but its own run.
    """
    count = len(collection)
    side = SIDE if count <= _MANY else _SMALL_SIDE
    columns = max(1, math.ceil(math.sqrt(count)))
    legend: dict[str, Any] | None = None
    if colouring.title:
        legend = {"title": colouring.title, "classes": colouring.classes, "ends": colouring.ends}
    data = {
        "names": printable_values(collection.names),
        "points": [[_short(x), _short(y)] for x, y in coordinates.tolist()],
        "values": colouring.values,
        "labels": printable_values(colouring.texts),
        "palette": colouring.palette,
        "legend": printable_values(legend),
        "found": [int(one) for one in collection.thumbnails.found],
        "side": side,
        "columns": columns,
        "sprite": _sprite(collection.thumbnails, side, columns),
    }
    script = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    templates = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return templates.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=printable(title),
        summary=printable(summary),
        count=count,
        side=side,
        data=data,
        script=Markup(script),  # noqa: S704  # ours, and its hash is in the page's policy
        script_hash=f"sha256-{digest}",
    )


def _short(value: float) -> float:
    """Return a coordinate with the digits that a screen can show."""
    return float(f"{value:.6g}")


def _sprite(thumbnails: Thumbnails, side: int, columns: int) -> str:
    """Return all thumbnails as one JPEG in an address; "" where there is none."""
    if not thumbnails.found.any():
        return ""
    lines = math.ceil(len(thumbnails.images) / columns)
    sheet = np.full((lines * side, columns * side, 3), 255, np.uint8)
    for row, image in enumerate(thumbnails.images):
        top, left = row // columns * side, row % columns * side
        small = (
            image if side == SIDE else cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        )
        sheet[top : top + side, left : left + side] = small
    file = io.BytesIO()
    grey = (sheet == sheet[:, :, :1]).all()
    shown = Image.fromarray(sheet[:, :, 0] if grey else np.ascontiguousarray(sheet[:, :, ::-1]))
    # Without subsampling: the colours of one thumbnail would run into the next.
    shown.save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
