"""Engines for DLA on the stand-in driver: the core is named before the engine is loaded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.engines.select import select_engine

from .engine_bundles import write_tagged

TENSORRT = EngineRequest(backend="tensorrt")


def built_for(bundle: Bundle, core: int) -> None:
    """Let the encoder's engine be one that was built for a DLA core."""
    path = bundle.folder / "engines" / "encoder.fp16.tensorrt.json"
    content = json.loads(path.read_text())
    content["schema_version"] = 5
    placed = {"core": core, "layers": 9, "on_gpu": ["head (SHUFFLE)"]}
    content["precision_report"]["dla"] = placed
    write_tagged(path, content)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("core", [0, 1])
def test_the_core_is_named_before_the_engine_is_loaded(
    bundle: Bundle, host_tensorrt: Any, core: int
) -> None:
    host_tensorrt.Runtime.num_DLA_cores = 2
    built_for(bundle, core)
    chosen = select_engine(bundle, "encoder", TENSORRT)
    with chosen.backend as backend:
        backend.run(np.zeros((1, 1, 32, 32), np.float32))
    assert host_tensorrt.cores == [core]
    assert chosen.remarks == f"; 8 of 9 layers on DLA core {core}, on the GPU head (SHUFFLE)"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(("core", "cores"), [(0, 0), (1, 0), (1, 1), (2, 2)])
def test_a_machine_without_the_core_is_one_line_and_nothing_is_loaded(
    bundle: Bundle, host_tensorrt: Any, core: int, cores: int
) -> None:
    host_tensorrt.Runtime.num_DLA_cores = cores
    built_for(bundle, core)
    says = (
        rf"^encoder\.fp16\.tensorrt\.engine was built for DLA core {core}, and TensorRT 10\.3\.0 "
        rf"sees {cores} DLA cores on this machine: build it again .* without --use-dla-core"
    )
    with pytest.raises(EngineError, match=says) as caught:
        select_engine(bundle, "encoder", TENSORRT)
    assert "\n" not in str(caught.value)
    assert host_tensorrt.handed == []


@pytest.mark.usefixtures("package")
def test_an_engine_for_the_gpu_names_no_core(bundle: Bundle, host_tensorrt: Any) -> None:
    host_tensorrt.Runtime.num_DLA_cores = 2
    select_engine(bundle, "encoder", TENSORRT).backend.close()
    assert host_tensorrt.cores == [-1]
