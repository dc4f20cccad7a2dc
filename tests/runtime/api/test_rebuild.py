"""The commands as they are installed: what a runtime alone cannot do is done for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.commands import encode_main, stream_main
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines import select
from motorvae.runtime.engines.gpu_info import Gpu, find_gpu
from motorvae.runtime.engines.tensorrt.find import check_engine
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0", "580.65", 24 << 30, integrated=False)


@pytest.mark.skipif(isinstance(find_gpu(), Gpu), reason="a GPU is made up, and here is a real one")
@pytest.mark.parametrize("command", ["stream", "encode"])
def test_rebuild_builds_an_engine_that_does_not_fit(
    command: str,
    rtx_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The engine is built for real, and opened as far as the driver that is not there."""
    model = Path(shutil.copytree(rtx_bundle, tmp_path / "bundle"))
    for path in (model / "engines").glob("encoder.*.engine"):
        path.write_bytes(b"damaged")
    monkeypatch.setattr(select, "find_gpu", lambda: ADA)
    options = ["--model", str(model), "--backend", "tensorrt-rtx"]
    if command == "stream":
        options += ["--camera", "synthetic", "--output", str(tmp_path / "rows.jsonl")]
    else:
        assert cv2.imwrite(str(tmp_path / "image.png"), np.zeros((32, 32), np.uint8))
        options += [str(tmp_path / "image.png"), "--output", str(tmp_path / "latents.npz")]
    main = stream_main if command == "stream" else encode_main
    assert main(options) == 1
    assert "or add --rebuild" in capfd.readouterr().err.splitlines()[-1]
    assert main([*options, "--rebuild"]) == 1
    assert "rebuild" not in capfd.readouterr().err.splitlines()[-1]
    bundle = load_bundle(model)
    entry = bundle.entry(GraphKey("encoder", "fp16"))
    check_engine(bundle, entry, import_tensorrt("tensorrt-rtx"), ADA)
