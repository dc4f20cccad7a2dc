"""A small set of shards, and what training makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.dataset import DataRequest, DataSet, data_from_cache, prepare_data

from .packing import packed

Prepare = Callable[..., tuple[DataSet, list[str]]]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of 8 shards of 6 vehicles."""
    packed(tmp_path / "shards", range(48))
    return tmp_path / "shards"


@pytest.fixture
def prepare(spec: ModelSpec, tmp_path: Path) -> Prepare:
    """What training makes of some data, and the warnings."""
    request = DataRequest("", tmp_path / "runs", held_out=0.2, workers=2)

    def prepared(
        data: object, other: ModelSpec | None = None, cache: str = "cache", **change: object
    ) -> tuple[DataSet, list[str]]:
        lines: list[str] = []
        prepare_data(
            replace(request, data=str(data), **change),  # type: ignore[arg-type]
            other or spec,
            tmp_path / cache,
            progress=lambda _done, _expected: None,
            warn=lines.append,
        )
        return data_from_cache(tmp_path / cache, workers=2, warn=lines.append), lines

    return prepared
