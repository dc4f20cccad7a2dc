"""The images of an import: prepared as streams prepare them, and split by content."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from ...runtime.core.spec import ModelSpec
from ...training.dataset import DataRequest, DataSet, data_from_cache, kind_of_data, prepare_data
from ..steps import steps_shown
from .options import ImportOptions


def check_images(options: ImportOptions) -> None:
    """Raise a SourceError where `--images` names nothing that is there."""
    kind_of_data(str(options.images), "--images")


@contextlib.contextmanager
def prepared_images(
    options: ImportOptions, spec: ModelSpec, output: Path, console: Console
) -> Iterator[tuple[DataSet, Path]]:
    """Give the images as the model takes them, and a folder for what else is made of them.

    Both are gone afterwards; `output` is what a full disk is told about. A DataError is raised
    where nothing decodes or all images are the same.
    """
    request = DataRequest(
        data=str(options.images),
        output=output,
        held_out=options.held_out,
        workers=options.workers,
        max_picture=options.max_picture,
        option="--images",
    )
    with tempfile.TemporaryDirectory(prefix="motorvae-import-") as name:
        folder = Path(name)
        with steps_shown(console, "preparing images") as show:
            prepare_data(
                request,
                spec,
                folder / "images",
                progress=lambda done, total: show(f"preparing images: {done} of {total or '?'}"),
                warn=lambda line: console.print(f"warning: {line}"),
            )
        data = data_from_cache(
            folder / "images",
            workers=options.workers,
            warn=lambda line: console.print(f"warning: {line}"),
        )
        skipped = f", {data.skipped} skipped" if data.skipped else ""
        console.print(
            f"{len(data.held_out)} held-out images to compare graphs on, {len(data.train)} for "
            f"statistics{skipped}"
        )
        yield data, folder
