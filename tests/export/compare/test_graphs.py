from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.export.compare.graphs import opened_reference
from motorvae.runtime.core.spec import ModelSpec

from .graphs import BYTE, FLOAT, HALF, SIDE, encoder, heads

SPEC = ModelSpec(
    image_size=SIDE,
    color="rgb",
    channels=None,
    latent_size=6,
    value_range=(-1, 1),
    mean=(0.1, 0.2, 0.3),
    std=(0.5, 1, 2),
)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("dtype", "error"), [(FLOAT, 3e-7), (HALF, 2e-3), (BYTE, 0.0)])
def test_pictures_are_scaled_by_range_mean_and_std(
    tmp_path: Path, dtype: int, error: float, channels_last: bool
) -> None:
    path = encoder(tmp_path / "graph.onnx", heads(), dtype=dtype, channels_last=channels_last)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE), np.uint8)
    expected: Any = pictures
    if dtype != BYTE:
        mean, std = (np.array(part)[:, None, None] for part in (SPEC.mean, SPEC.std))
        expected = (pictures / 255.0 * 2 - 1 - mean) / std
    with opened_reference(path, threads=None) as graph:
        graph.spec = SPEC
        given = graph.prepared(pictures)
    if channels_last:
        assert given.shape == (2, SIDE, SIDE, 3)
        given = given.transpose(0, 3, 1, 2)
    assert given.dtype == {FLOAT: np.float32, HALF: np.float16, BYTE: np.uint8}[dtype]
    np.testing.assert_allclose(given.astype(np.float64), expected, rtol=0, atol=error or 1e-300)


@pytest.mark.parametrize("batch", [3, "batch"])
def test_any_number_of_pictures_runs_in_the_graph_s_batches(
    tmp_path: Path, batch: int | str
) -> None:
    path = encoder(tmp_path / "graph.onnx", heads(), batch=batch)
    pictures = np.random.default_rng(0).integers(0, 256, (7, 3, SIDE, SIDE), np.uint8)
    with opened_reference(path, threads=1) as graph:
        graph.spec = SPEC.model_copy(update={"value_range": (0, 1), "mean": (), "std": ()})
        found = graph.run(pictures)
    flat = pictures.reshape(7, -1) / 255.0
    assert found["mu"].shape == (7, 6)
    np.testing.assert_allclose(found["mu"], flat @ heads()["of_mu"], rtol=1e-4, atol=1e-4)
