"""motorvae explore map: the latent space in two dimensions, as a picture and as a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ....runtime.core.errors import ConfigError, DataError
from ....runtime.core.text import printable
from ..factors.labels import Factor, labels_from_csv
from ..factors.vehicles import factors_of_vehicles, seed_of_vehicles
from ..results import Result
from ..subject import open_subject
from .collection import Collection, collection_of_file, collection_of_subject
from .colouring import coloured
from .distances import UNIT, units_of
from .options import LATENTS_SUFFIX, MapOptions
from .page import page_of
from .picture import picture_of
from .projection import TITLES, default_method, projected


class _Shown(NamedTuple):
    collection: Collection
    vehicles_seed: int | None  # where they are built-in vehicles


def latent_map(options: MapOptions, step: Callable[[str], object]) -> Result:
    """Project latents to the plane, coloured by a column, with thumbnails."""
    shown = _collected(options, step)
    collection, method = shown.collection, options.method or default_method()
    factor, remarks = _factor(options, shown)
    units = units_of(collection.mu, collection.log_var)
    step(f"{TITLES[method]} of {collection.source}")
    projection = projected(collection.mu / units, method, seed=options.seed)
    colouring = coloured(factor, len(collection))
    coordinates = projection.coordinates
    title = f"{TITLES[method]} of {collection.source}"
    summary = f"distances in {UNIT}"
    if projection.explained is not None:
        summary = f"{projection.explained:.0%} of the variance, {summary}"
    step("drawing")
    page = page_of(collection, coordinates, colouring, title=title, summary=summary)
    picture = picture_of(
        coordinates,
        collection.thumbnails,
        colouring,
        title=title,
        axes_names=(f"{TITLES[method]} 1", f"{TITLES[method]} 2"),
    )
    content = page.encode()
    numbers = {
        "images": len(collection),
        "source": collection.source,
        "method": method,
        "unit": UNIT,
        "explained_variance": projection.explained,
        "without_picture": collection.thumbnails.missing,
        "page_bytes": len(content),
        "points": [
            {"name": name, "x": x, "y": y, **({"label": text} if factor is not None else {})}
            for name, (x, y), text in zip(
                collection.names, coordinates.tolist(), colouring.texts, strict=True
            )
        ],
    }
    lines = [
        *collection.remarks,
        *remarks,
        f"{title}: {summary}",
        f"the page has {len(content) / 1e6:.1f} MB: open it in a browser",
    ]
    arrays = {"names": np.array(collection.names), "coordinates": coordinates}
    if factor is not None:
        arrays["labels"] = np.array(colouring.texts)
    files = {"map.html": content, "map.png": picture}
    return Result("map", numbers, arrays, lines, files)


def _collected(options: MapOptions, step: Callable[[str], object]) -> _Shown:
    if options.model is not None and options.model.suffix == LATENTS_SUFFIX:
        collection = collection_of_file(
            options.model, options.images, max_picture=options.max_picture, step=step
        )
        return _Shown(collection, None)
    with open_subject(options) as subject:
        return _Shown(collection_of_subject(subject, step), seed_of_vehicles(subject, options))


def _factor(options: MapOptions, shown: _Shown) -> tuple[Factor | None, list[str]]:
    """Return what colours the points, and what to know of it."""
    names = shown.collection.names
    if options.color_by is None:
        return None, []
    if options.labels is not None:
        matched = labels_from_csv(options.labels).matched(names)
        factor, remark = matched.factor(options.color_by), matched.remark()
        remarks = [remark] if remark else []
        if infinite := int(np.isinf(factor.values).sum()):
            remarks.append(
                f"{factor.name}: infinite numbers ({infinite}) are grey, as unknown ones"
            )
        elif not factor.known.any():
            remarks.append(f"{factor.name}: it is empty for all of these images, which are grey")
        return factor, remarks
    if shown.vehicles_seed is None:
        raise ConfigError(
            f"--color-by={options.color_by}: name the CSV file that has this column with --labels"
        )
    found = {one.name: one for one in factors_of_vehicles(names, shown.vehicles_seed)}
    if options.color_by not in found:
        raise DataError(
            f"vehicles have no factor {printable(options.color_by)!r}: take {', '.join(found)}, or "
            "a CSV file with --labels"
        )
    return found[options.color_by], []
