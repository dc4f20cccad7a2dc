"""Any data set, split by content: decoded once into a mapped array, or read from shards."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ..runtime.core.atomic_files import replaced_file
from ..runtime.core.documents import json_from_file, opened_regular
from ..runtime.core.errors import (
    DataError,
    ImageError,
    OutputError,
    SourceError,
    writing_output,
)
from ..runtime.core.frame import Gap
from ..runtime.core.spec import Color, ModelSpec
from ..runtime.core.text import printable
from ..runtime.pixels.convert import batch_of, input_from_pixels
from ..runtime.pixels.files.image_files import counted_remarks, picture_from_file
from ..runtime.pixels.picture import MAX_PICTURE
from ..runtime.pixels.reference import reference_picture
from ..runtime.sources.base import CaptureRequest, FrameSource, fitted_from_item
from ..runtime.sources.open import open_source
from ..runtime.sources.spec import SYNTHETIC_SIZE, SourceSpec
from ..runtime.sources.synthetic.vehicles import vehicle_picture
from .shards.images import ShardImages
from .shards.index import SET_NAME, index_in, nothing_to_split
from .shards.listing import names_shards, shards_named
from .shards.prepare import in_threads, prepare_shards

IMAGES_NAME = "images.u8"
INDEX_NAME = "index.json"
_MOST_INDEX = 1 << 30  # names of millions of files
_CHUNK = 256
_MEAN_IMAGES = 1024
_BLOCK_FRAMES, _SHORT_FRAMES = 60, 8
_SPARE_BYTES = 1 << 30
"""Room left for resume files, weights and pictures beside the images."""

_FEW = 32
_SHARDS_READERS = 3

# a folder is images, however they were named
Kind = Literal["folder", "video", "vehicles", "shards"]
Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Item = tuple[str, "Pixels | str"]
"""The name of an image and its fitted picture, or why there is none."""


@dataclass(frozen=True)
class DataSet:
    """Images ready for training, read from a run's cache or from shards."""

    # (N, H, W) or (N, 3, H, W) uint8, mapped from disk or decoded as they are asked for
    images: Pixels | ShardImages
    names: Sequence[str]  # what the user would call each image
    train: Rows  # rows to train on
    held_out: Rows  # rows that are never trained on, in the order of their content hash
    skipped: int  # number of files or frames that could not be decoded
    color: Color = "grey"  # of the images

    def batch(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return these images as (N, C, H, W) float32 in [0, 1], through the runtime's scaling."""
        return input_from_pixels(self.images[rows])

    def each(self, rows: Rows) -> Iterator[Pixels]:
        """Yield these images, of which a few are read at a time."""
        for start in range(0, len(rows), _FEW):
            yield from self.images[rows[start : start + _FEW]]

    def share(self, whole: Rows, begin: int, size: int) -> npt.NDArray[np.float32]:
        """Return so many images of a batch from one of them on, as `batch` does."""
        return input_from_pixels(self.share_of_pixels(whole, begin, size))

    def share_of_pixels(self, whole: Rows, begin: int, size: int) -> Pixels:
        """Return the same as (N, C, H, W) uint8."""
        rows = whole[begin : begin + size]
        if isinstance(self.images, ShardImages):
            return batch_of(self.images.taken(rows, whole, begin))
        return batch_of(self.images[rows])

    @contextlib.contextmanager
    def epoch(self, seed: int, epoch: int) -> Iterator[Callable[[int, int], Rows]]:
        """Give the training rows of an epoch by a position and a number, as (seed, epoch) decide.

        Of shards the order is that of `shards.order`, else any.
        """
        if isinstance(self.images, ShardImages):
            with self.images.epoch(seed, epoch) as rows:
                yield rows
            return
        order = np.random.default_rng((seed, epoch)).permutation(self.train)
        yield lambda begin, size: order[begin : begin + size]

    @property
    def validated(self) -> Rows:
        """Held-out rows in the order they are validated in: of shards, that of their reading."""
        return np.sort(self.held_out) if isinstance(self.images, ShardImages) else self.held_out

    @property
    def readers(self) -> int:
        """How many batches are best assembled at a time."""
        return _SHARDS_READERS if isinstance(self.images, ShardImages) else 1

    @property
    def replaced(self) -> int:
        """How often another image took the place of one that cannot be read any more."""
        return self.images.replaced if isinstance(self.images, ShardImages) else 0

    def mean_level(self) -> npt.NDArray[np.float32]:
        """Return the mean level of each plane over training images, (C,) in [0, 1].

        They are at most 1024, evenly drawn: their mean is that of all to a thousandth or two.
        """
        drawn = self.train[:: -(-len(self.train) // _MEAN_IMAGES)]
        sums = [
            self.batch(drawn[i : i + _CHUNK]).mean((2, 3)).sum(0, dtype=np.float64)
            for i in range(0, len(drawn), _CHUNK)
        ]
        return np.asarray(sum(sums) / len(drawn), np.float32)


@dataclass(frozen=True)
class DataRequest:
    """Which images are read, and how they are split; `TrainOptions` says what each field is."""

    data: str
    output: Path  # where they go in the end
    held_out: float = 0.1
    vehicles_count: int = 8000
    seed: int = 0
    workers: int = 0
    track: int | None = None
    max_picture: float = MAX_PICTURE
    option: str = "--data"  # what the command calls `data`


def kind_of_data(data: str, option: str = "--data") -> Kind:
    """Return what an option names; SourceError where nothing of that name exists."""
    if data == "vehicles":
        return "vehicles"
    if names_shards(data):
        shards_named(data, option)
        return "shards"
    if Path(data).is_dir():
        return "folder"
    if Path(data).is_file() or glob.has_magic(data):
        return "folder" if SourceSpec.local(data).kind == "images" else "video"
    raise SourceError(
        f"{option}={data} does not exist: give a folder or pattern of images, tar shards, a video "
        "file, or vehicles"
    )


def prepare_data(
    request: DataRequest,
    spec: ModelSpec,
    cache: Path,
    *,
    progress: Callable[[int, int | None], None],
    warn: Callable[[str], None],
) -> None:
    """Decode every image once, to the pixels that the runtime is held to, and split by content.

    Of shards an index is kept, and of all others the pixels.

    `data_from_cache` reads what is written. `progress` is called with the number of images done
    and the number expected, `warn` with one line for each file or frame that was skipped.

    Raises:
        SourceError: The data cannot be opened.
        DataError: Nothing decodes, or all images are the same.
        OutputError: The disk is full or cannot be written.
    """
    kind = kind_of_data(request.data, request.option)
    if kind == "shards":
        prepare_shards(
            shards_named(request.data, request.option),
            spec,
            cache,
            held_out=request.held_out,
            max_picture=request.max_picture,
            workers=request.workers,
            named=f"{request.option}={request.data}",
            progress=progress,
            warn=warn,
        )
        return
    expected, items, remarks = _items(kind, request, spec)
    names: list[str] = []
    digests: list[str] = []
    skipped = 0
    free = shutil.disk_usage(cache.parent).free
    if free < (needed := (expected or 0) * math.prod(spec.picture_shape) + _SPARE_BYTES):
        raise OutputError(
            f"{request.output} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            "make room or choose another --output"
        )
    with writing_output(cache):
        cache.mkdir(exist_ok=True)
    with replaced_file(cache / IMAGES_NAME) as path, path.open("wb") as file:
        for name, pixels in items:
            if isinstance(pixels, str):
                warn(f"skipped {name}: {pixels}")
                skipped += 1
            else:
                content = pixels.tobytes()
                file.write(content)
                names.append(name)
                digests.append(hashlib.sha256(content).hexdigest())
            progress(len(names) + skipped, expected)
    for line in remarks():
        warn(line)
    if not names:
        raise DataError(
            f"nothing in {request.option}={request.data} could be decoded ({skipped} skipped): "
            "give images or a video that open in a viewer"
        )
    if kind == "video":
        digests = digests_by_block(digests)
    train, held_out = split_by_content(digests, request.held_out)
    split = {"train": train, "held_out": held_out}
    index = {
        "shape": spec.picture_shape,
        "color": spec.color,
        "names": names,
        **split,
        "skipped": skipped,
    }
    with replaced_file(cache / INDEX_NAME) as path:
        path.write_text(json.dumps(index), encoding="utf-8")


def data_from_cache(
    cache: Path, *, workers: int = 0, warn: Callable[[str], None] = lambda _: None
) -> DataSet:
    """Open what `prepare_data` wrote; DataError where it is gone or cut short.

    Shards are decoded by so many threads, 0 for one a core, and `warn` gets a line for each that
    cannot be read any more.
    """
    if (cache / SET_NAME).exists():
        index = index_in(cache)
        known = index.set
        read = ShardImages(index, workers=workers, warn=warn)
        return DataSet(
            read, index.names, index.train, index.held_out, known.skipped, known.spec.color
        )
    again = "start a new run"
    most = _MOST_INDEX
    try:
        index = json_from_file(cache / INDEX_NAME, error=DataError, again=again, most_bytes=most)
        # Earlier versions had squares of luma.
        one = index["shape"] if "shape" in index else 2 * [index["image_size"]]
        shape = (len(index["names"]), *map(int, one))
        path = cache / IMAGES_NAME
        with opened_regular(path, most_bytes=None, error=DataError, again=again) as file:
            images = np.memmap(file, np.uint8, mode="r", shape=shape)
        train, held_out = (np.array(index[name], np.int64) for name in ("train", "held_out"))
        rows = np.concatenate([train, held_out])
        images[rows, :1, :1]  # an IndexError where there is no such row
        color: Color = {name: name for name in get_args(Color)}[index.get("color", "grey")]
        skipped = int(index["skipped"])
        return DataSet(images, index["names"], train, held_out, skipped, color)
    except DataError:
        raise
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise DataError(f"cannot read the prepared images in {cache}: {again}") from error


def split_by_content(digests: Sequence[str], fraction: float) -> tuple[list[int], list[int]]:
    """Split rows by the hash of their content, so that equal images stay on one side.

    An image's side depends on nothing but its pixels, however many others there are; only
    where a side would be empty does the nearest image move over. `digests` are SHA-256 in
    hexadecimal, `fraction` is held out. Rows to train on come in order, held-out rows by digest.
    Fewer than two images that differ are a DataError.
    """
    distinct = sorted(set(digests))
    if len(distinct) < 2:
        raise nothing_to_split(len(digests))
    limit = f"{int(fraction * 16**12):012x}"
    count = sum(digest[:12] < limit for digest in distinct)
    first_trained = distinct[min(max(count, 1), len(distinct) - 1)]
    train = [row for row, digest in enumerate(digests) if digest >= first_trained]
    held_out = [row for row, digest in enumerate(digests) if digest < first_trained]
    return train, sorted(held_out, key=lambda row: (digests[row], row))


def digests_by_block(digests: Sequence[str]) -> list[str]:
    """Give all frames of a stretch of video the digest of its first frame.

    Neighbouring frames are nearly equal: one of them in training would make the other no longer
    held out. What is held out shall come from many stretches, since the frames of one are nearly
    one image: a stretch is a hundredth of the video, at most 60 frames, and at least 8 where that
    leaves 20 stretches.
    """
    frames = len(digests)
    length = max(1, min(_BLOCK_FRAMES, frames // 100), min(_SHORT_FRAMES, frames // 20))
    return [digests[row - row % length] for row in range(frames)]


def _items(
    kind: Kind, request: DataRequest, spec: ModelSpec
) -> tuple[int | None, Iterator[Item], Callable[[], list[str]]]:
    """Return how many images to expect, the images in order, and what to know of them then."""
    if kind == "video":
        # As a stream takes the same file: what a decoder makes of its colours differs by levels.
        source = open_source(
            SourceSpec.local(request.data), CaptureRequest(spec=spec, track=request.track)
        )
        return source.expected, _video_items(source, spec), lambda: source.remarks
    said: list[tuple[str, str]] = []
    listed: list[str] = []
    if kind == "vehicles":
        count = request.vehicles_count

        def decode(row: int) -> Item:
            return f"vehicle-{row:06d}", vehicle_for(spec, request.seed, row)
    else:
        try:
            named = SourceSpec.local(request.data)
        except SourceError as error:
            if error.__cause__ is None:  # it could be read, and there is no image in it
                raise DataError(str(error)) from error
            raise
        paths, count = named.paths, len(named.paths)
        limit = CaptureRequest(spec=spec, max_picture=request.max_picture).picture_limit
        listed += [f"{named.name}: {named.remark}"] if named.remark else []

        def decode(row: int) -> Item:
            name = printable(paths[row].relative_to(named.location).as_posix())
            try:
                picture = picture_from_file(paths[row], limit, spec.color)
                said.extend((name, remark) for remark in picture.remarks)
                return name, reference_picture(picture.pixels, spec)
            except ImageError as error:
                return name, printable(str(error))

    workers = request.workers or os.cpu_count() or 1
    items = (item for _, item in in_threads(decode, range(count), workers))
    return count, items, lambda: listed + counted_remarks(said)


def vehicle_for(spec: ModelSpec, seed: int, row: int) -> Pixels:
    """Draw a vehicle, a square, and fit it as any picture, and as the synthetic camera's are."""
    # A box in pixels is another part of another size.
    side = SYNTHETIC_SIZE if spec.has_box_in_pixels else max(spec.height, spec.width)
    return reference_picture(vehicle_picture(seed, row, side, spec.color), spec)


def _video_items(source: FrameSource, spec: ModelSpec) -> Iterator[Item]:
    with source:
        while (frame := source.read()) is not None:
            name = f"frame-{frame.index:06d}"
            pixels = fitted_from_item(frame, spec)
            yield name, pixels.reason if isinstance(pixels, Gap) else pixels.copy()
