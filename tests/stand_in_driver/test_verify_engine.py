"""motorvae verify with an engine that lies anywhere, on the stand-in driver."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from motorvae.export.compare.options import VerifyOptions
from motorvae.export.compare.run import verified
from motorvae.runtime.core.errors import EngineError

from ..export.compare.graphs import save_graph

FLOAT, UNITS, SIDE = TensorProto.FLOAT, 8, 32


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        assert cv2.imwrite(
            str(folder / f"{index}.png"), rng.integers(0, 256, (SIDE, SIDE), np.uint8)
        )
    return folder


def first_pixels(path: Path, start: int) -> Path:
    """What the stand-in's engine gives, as a graph, where `start` is 0."""
    ends = {"start": np.array([start]), "stop": np.array([start + UNITS]), "axis": np.array([1])}
    return save_graph(
        path,
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Slice", ["flat", *ends], ["mu"]),
        ],
        {"image": (FLOAT, ("batch", 1, SIDE, SIDE))},
        {"mu": (FLOAT, ("batch", UNITS))},
        ends,
    )


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("profile", [(1, 1, 8), (4, 4, 4)])
def test_an_engine_of_anybody_is_judged(
    tmp_path: Path, photos: Path, profile: tuple[int, int, int]
) -> None:
    plan = tmp_path / "mine.engine"
    facts = {"tensors": {"image": [1, SIDE, SIDE], "mu": [UNITS]}, "profile": profile}
    plan.write_text(json.dumps(facts))
    for start in (0, 1):
        reference = first_pixels(tmp_path / "reference.onnx", start)
        options = VerifyOptions(reference, plan, str(photos), precision="fp16", trust=True)
        result = verified(options)
        assert result.passed == (start == 0)
        assert result.candidate.engine.startswith("TensorRT 10.3")
        assert result.candidate.files[0].file == "mine.engine"


@pytest.mark.usefixtures("package")
def test_what_no_engine_is_is_named(tmp_path: Path, photos: Path) -> None:
    plan = tmp_path / "mine.engine"
    plan.write_text("no engine")
    reference = first_pixels(tmp_path / "reference.onnx", 0)
    with pytest.raises(EngineError, match=r"mine\.engine"):
        verified(VerifyOptions(reference, plan, str(photos), precision="fp16", trust=True))
