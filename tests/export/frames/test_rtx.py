"""Encoders of whole frames in the real TensorRT-RTX builder, which needs no GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from motorvae.export.cli import main
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

trt = pytest.importorskip("tensorrt_rtx")


def built(path: Path, shapes: list[tuple[int, ...]]) -> bytes:
    """Build an engine for (fewest, usual, most) shapes of the input; the parser's words if not."""
    package = import_tensorrt("tensorrt-rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [
        parser.get_error(n).desc() for n in range(parser.num_errors)
    ]
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("frame", *shapes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, package.version
    return bytes(plan)


@pytest.mark.parametrize("name", ["encoder.nv12.onnx", "encoder.nv12.fp16.onnx"])
def test_frames_of_one_size_build(small_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    assert main(["--model", str(bundle), "--whole-frame", "nv12:320x180:bt709"]) == 0
    sizes = [(count, 270, 320) for count in (1, 1, 4)]
    assert built(bundle / name, sizes)


@pytest.mark.parametrize("text", ["nv12:free:bt709", "bgr:free"])
def test_frames_of_any_size_build(small_bundle: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "free.onnx"
    words = ["--model", str(small_bundle), "--whole-frame", text, "--output", str(path)]
    assert main(words) == 0
    heights, widths = (96, 720, 2160), (128, 1280, 3840)
    shapes = [
        (1, height * 3 // 2, width) if text.startswith("nv12") else (1, height, width, 3)
        for height, width in zip(heights, widths, strict=True)
    ]
    assert built(path, shapes)
