"""Small shards of vehicles, written by the standard library's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import pytest

from motorvae.runtime.sources.synthetic.vehicles import vehicle_picture
from motorvae.training.shards import index as index_module

SIDE, PER_SHARD = 32, 6
LABEL_BYTES = 4 * 512  # between two pictures: filling, two headers, and a label


def picture(row: int, suffix: str = ".png", side: int = SIDE) -> bytes:
    return cv2.imencode(suffix, vehicle_picture(0, row, side, "rgb"))[1].tobytes()


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def packed(folder: Path, rows: Iterable[int], per_shard: int = PER_SHARD) -> list[Path]:
    """Pack vehicles, each with a label beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(rows)
    return [
        pack(
            folder / f"train-{number:03d}.tar",
            {
                f"{row:04d}.{suffix}": data
                for row in rows[number * per_shard : (number + 1) * per_shard]
                for suffix, data in (("png", picture(row)), ("cls", b"1"))
            },
        )
        for number in range(-(-len(rows) // per_shard))
    ]


def mixed_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs have about three of the images above, and windows two runs."""
    monkeypatch.setattr(index_module, "RUN_BYTES", 3 * (len(picture(0)) + LABEL_BYTES))
    monkeypatch.setattr(index_module, "RUNS_IN_WINDOW", 2)
