"""Known factors of images: those of the built-in vehicles, or a CSV of labels."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from ....runtime.core.documents import bytes_of_file
from ....runtime.core.errors import DataError
from ....runtime.core.text import printable
from ....runtime.sources.synthetic.bodies import BODIES
from ....runtime.sources.synthetic.vehicles import RANGES, factors_from_seed

LARGEST = 1e100
"""A variance sums squares, which float64 has up to 1e308."""
LEAST_IMAGES = 40
"""With fewer images of a factor, ten in its held-out part, no score says anything."""
LEAST_OF_CLASS = 8
"""Images of a class with fewer are left out: two in the held-out part, six to learn from."""
MOST_BYTES = 256 << 20
_CONTINUOUS = tuple(next(iter(RANGES.values())))
_UNKNOWN = {"", "na", "nan", "null", "none"}


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of N images.

    Attributes:
        name: What it is called.
        values: (N,) float64. Of a categorical factor a class is its number; NaN where unknown.
        classes: What those numbers stand for; empty where the factor is continuous.
    """

    name: str
    values: npt.NDArray[np.float64]
    classes: tuple[str, ...] = ()

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Which images have a value, (N,)."""
        return np.isfinite(self.values)

    def of_rows(self, rows: npt.NDArray[np.int64]) -> Factor:
        """Return the factor of some images."""
        return replace(self, values=self.values[rows])


@dataclass(frozen=True, slots=True)
class Labels:
    """What a table says of images: of each name, its cell in each column."""

    source: str
    columns: tuple[str, ...]
    cells: Mapping[str, tuple[str, ...]]

    def matched(self, names: Sequence[str]) -> Matched:
        """Return the rows of these images, by their relative path or else by their file name.

        A file name counts only where one row, and one image, has it.
        """
        ends = Counter(PurePosixPath(name).name for name in self.cells)
        by_end = {
            PurePosixPath(name).name: cells
            for name, cells in self.cells.items()
            if ends[PurePosixPath(name).name] == 1
        }
        own_ends = Counter(PurePosixPath(name).name for name in names)
        found: list[tuple[str, ...] | None] = []
        for name in names:
            cells, end = self.cells.get(name), PurePosixPath(name).name
            found.append(by_end.get(end) if cells is None and own_ends[end] == 1 else cells)
        return Matched(self, tuple(found))


@dataclass(frozen=True, slots=True)
class Matched:
    """The rows of a table that belong to N images."""

    labels: Labels
    cells: tuple[tuple[str, ...] | None, ...]

    @property
    def count(self) -> int:
        """How many images the table names."""
        return sum(one is not None for one in self.cells)

    def remark(self) -> str | None:
        """Return how many images and rows have no counterpart, or None where all have."""
        images, rows = len(self.cells) - self.count, len(self.labels.cells) - self.count
        if not images and not rows:
            return None
        return f"{self.labels.source}: {images} images have no row, {rows} rows no image"

    def factor(self, column: str) -> Factor:
        """Return a column of numbers as a continuous factor, and any other as a categorical one.

        A cell that is empty, or says NA or NaN, is not known. DataError for an unknown column, and
        where no image has a row.
        """
        if column not in self.labels.columns:
            raise DataError(
                f"{self.labels.source} has no column {printable(column)!r}: take one of "
                f"{', '.join(map(printable, self.labels.columns))}"
            )
        if not self.count:
            first = printable(next(iter(self.labels.cells), ""))
            raise DataError(
                f"no row of {self.labels.source} names an image: its first column is to hold file "
                f"names or relative paths, and begins with {first!r}"
            )
        place = self.labels.columns.index(column)
        texts = ["" if one is None else one[place].strip() for one in self.cells]
        known = [text for text in texts if text.lower() not in _UNKNOWN]
        numbers = {text: _number(text) for text in dict.fromkeys(known)}
        if not any(map(math.isnan, numbers.values())):
            values = [numbers.get(text, math.nan) for text in texts]
            return Factor(column, np.array(values, np.float64))
        classes = tuple(sorted(numbers))
        codes = {text: float(code) for code, text in enumerate(classes)}
        values = [codes.get(text, math.nan) for text in texts]
        return Factor(column, np.array(values, np.float64), classes)

    def factors(self) -> list[Factor]:
        """Return every column."""
        return [self.factor(column) for column in self.labels.columns]


def labels_from_csv(path: Path) -> Labels:
    """Read a table whose first row names its columns, and whose first column the images.

    Names are file names, or paths relative to the folder that was encoded. A DataError where it is
    no such table: not UTF-8, a row of another length, a name or a column twice.
    """
    again = "give a CSV file with a header, whose first column names the images"
    data = bytes_of_file(path, most_bytes=MOST_BYTES, error=DataError, again=again)
    try:
        text = data.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as CSV in UTF-8 ({error}): {again}") from error
    lines = [(number, row) for number, row in enumerate(rows, 1) if row]
    if len(lines) < 2 or len(lines[0][1]) < 2:
        semicolons = len(lines) > 1 and ";" in lines[0][1][0]
        why = "separates its columns by ';' and not by ','" if semicolons else "has no labels"
        raise DataError(f"{path} {why}: {again}")
    columns = tuple(name.strip() for name in lines[0][1][1:])
    if len(set(columns)) < len(columns):
        twice = next(name for name, count in Counter(columns).items() if count > 1)
        raise DataError(f"{path} has the column {printable(twice)!r} twice: {again}")
    cells: dict[str, tuple[str, ...]] = {}
    for number, (first, *rest) in lines[1:]:
        if len(rest) != len(columns):
            raise DataError(
                f"{path}: row {number} has {len(rest) + 1} cells, and the header "
                f"{len(columns) + 1}: {again}"
            )
        # Names are as motorvae-encode writes them.
        name = printable(PurePosixPath(first.strip()).as_posix())
        if name in cells:
            raise DataError(f"{path} names {name!r} twice: give each image one row")
        cells[name] = tuple(rest)
    return Labels(str(path), columns, cells)


def vehicle_factors(seed: int, rows: Sequence[int]) -> list[Factor]:
    """Return the true factors of built-in vehicles; `body` and `heading` are categorical."""
    drawn = [factors_from_seed(seed, row) for row in rows]
    bodies = np.array([BODIES.index(one.body) for one in drawn], np.float64)
    headings = np.array([one.heading > 0 for one in drawn], np.float64)
    return [
        Factor("body", bodies, BODIES),
        Factor("heading", headings, ("left", "right")),
        *(
            Factor(name, np.array([getattr(one, name) for one in drawn], np.float64))
            for name in _CONTINUOUS
        ),
    ]


def measurable(factor: Factor) -> tuple[Factor, str | None]:
    """Return a factor without classes that are too rare, and why it cannot be measured, or None."""
    found = factor
    if factor.classes:
        known = factor.values[factor.known].astype(np.int64)
        counts = np.bincount(known, minlength=len(factor.classes))
        kept = [code for code, count in enumerate(counts) if count >= LEAST_OF_CLASS]
        number = dict.fromkeys(range(len(counts)), math.nan) | {
            code: float(place) for place, code in enumerate(kept)
        }
        values = [number[int(one)] if math.isfinite(one) else math.nan for one in factor.values]
        classes = tuple(factor.classes[code] for code in kept)
        found = Factor(factor.name, np.array(values, np.float64), classes)
        if len(kept) < 2:
            return found, f"fewer than two of its classes have {LEAST_OF_CLASS} images"
    count = int(found.known.sum())
    if count < LEAST_IMAGES:
        return found, f"{count} images have a value, and it takes {LEAST_IMAGES}"
    if np.nanmax(np.abs(found.values)) > LARGEST:  # an inf among them, too
        return found, f"it has numbers beyond {LARGEST:g}, whose squares are no numbers"
    if np.ptp(found.values[found.known]) == 0:
        return found, "it is the same in every image"
    return found, None


def _number(text: str) -> float:
    """Return the number that a cell holds, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan
