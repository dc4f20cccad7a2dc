"""Tables as a terminal of 80 columns shows them."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from motorvae.export.tables import routes_table
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.engines.tensorrt.build_record import (
    PairedTimes,
    RouteSettings,
    TriedRoute,
)
from motorvae.runtime.engines.tensorrt.engine_manifest import engine_manifest_from_json


def test_routes_are_shown_with_times_and_verdicts(rtx_bundle: Path) -> None:
    times = PairedTimes(batch=1, ms=(0.2, 0.21, 0.22), against_ms=(0.3, 0.31, 0.32))
    level = RouteSettings(optimization_level=5)
    routes = (
        TriedRoute(name="default", settings=RouteSettings(), verdict="not faster"),
        TriedRoute(name="level 5", settings=level, verdict="kept", times=times),
        TriedRoute(name="tiling", settings=level, verdict="drifted", reason="mu: 0.3"),
    )
    path = GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    manifest = engine_manifest_from_json(path).model_copy(update={"routes": routes})
    said = io.StringIO()
    Console(file=said, width=80).print(routes_table(manifest))
    lines = [" ".join(line.replace("│", " ").split()) for line in said.getvalue().splitlines()]
    assert any(line.startswith("encoder fp16: build route time default verdict") for line in lines)
    assert "level 5 0.210 ms 0.310 ms kept" in lines
    assert "default not faster" in lines
    assert "tiling DRIFTED" in lines
    words = " ".join(said.getvalue().split())
    assert "medians at batch 1 by the GPU's clock (CUDA events), in turns with the default" in words
    assert all(len(line) <= 80 for line in said.getvalue().splitlines())
