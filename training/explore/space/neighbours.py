"""motorvae explore neighbours: the images that are nearest to one image in latent space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..options import ModelOptions
from ..results import Result
from ..sheets import Row, png_of, sheet_of
from ..subject import Subject, open_subject
from .collection import Collection, collection_of_file, collection_of_subject
from .distances import UNIT, nearest, units_of
from .options import NeighboursOptions
from .originals import thumbnails_of_pictures

_COLUMNS = 6


def neighbours(options: NeighboursOptions, step: Callable[[str], object]) -> Result:
    """Encode an image and find the nearest of others, by the distance that `units_of` explains."""
    with _opened(options) as subject:
        name, picture = subject.picture(options.image)
        mu = subject.encode(picture[None]).mu
        collection = _among(options, subject, step)
        query = thumbnails_of_pictures(picture[None], subject.spec.color).images[0]
        model = subject.name
    units = units_of(collection.mu, collection.log_var)
    points = collection.mu / units
    rows, distances = nearest(mu[0] / units, points, options.count)
    # What is usual between two images of these says whether a distance is a short one.
    middle = float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))
    found = [
        {"name": collection.names[row], "row": int(row), "distance": float(distance)}
        for row, distance in zip(rows, distances, strict=True)
    ]
    numbers = {
        "image": name,
        "among": collection.source,
        "unit": UNIT,
        "median_distance_from_the_middle": middle,
        "neighbours": found,
    }
    lines = [
        *collection.remarks,
        f"nearest to {name} among {collection.source}; in {UNIT}, of which images are "
        f"{middle:.4g} from the middle (median):",
        *(
            f"{number:4d}  {one['distance']:10.4g}  {one['name']}"
            for number, one in enumerate(found, 1)
        ),
    ]
    arrays = {
        "names": np.array([collection.names[row] for row in rows]),
        "rows": rows,
        "distances": distances,
    }
    pictures = {}
    if collection.thumbnails.found[rows].any():
        title = f"{model}: nearest to {name}"
        sheet = sheet_of(_rows(query, name, collection, rows, distances), "bgr", title=title)
        pictures["neighbours.png"] = png_of(sheet)
    return Result("neighbours", numbers, arrays, lines, pictures)


def _opened(options: NeighboursOptions) -> Subject:
    """Open the model; with a file of latents, `--images` says where the images of that lie."""
    images = options.images if options.latents is None else None
    return open_subject(
        ModelOptions(
            output=options.output,
            model=options.model,
            images=images,
            max_picture=options.max_picture,
        )
    )


def _among(
    options: NeighboursOptions, subject: Subject, step: Callable[[str], object]
) -> Collection:
    if options.latents is None:
        return collection_of_subject(subject, step)
    return collection_of_file(
        options.latents,
        options.images,
        subject=subject,
        max_picture=options.max_picture,
        step=step,
    )


def _rows(
    query: npt.NDArray[np.uint8],
    name: str,
    collection: Collection,
    rows: npt.NDArray[np.int64],
    distances: npt.NDArray[np.float64],
) -> list[Row]:
    """Return the query, and below it the nearest, a few in each row of the sheet."""
    found = [Row([_planes(query)], [name], label="image")]
    for start in range(0, len(rows), _COLUMNS):
        some = rows[start : start + _COLUMNS]
        captions = [
            f"{distance:.4g}\n{collection.names[row]}"
            for row, distance in zip(some, distances[start:], strict=False)
        ]
        shown = [
            _planes(collection.thumbnails.images[row]) if collection.thumbnails.found[row] else None
            for row in some
        ]
        found.append(Row(shown, captions, label="nearest" if start == 0 else ""))
    return found


def _planes(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(image.transpose(2, 0, 1))
