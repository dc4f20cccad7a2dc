"""INT8 against FP16 where nothing can be measured; the rest is on the stand-in driver."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from motorvae.export.tensorrt.add_engines import add_engines_to_bundle
from motorvae.export.tensorrt.build import EngineBuildRequest
from motorvae.export.tensorrt.int8_speed import with_fp16_to_compare
from motorvae.runtime.bundle.graph_key import GraphKey, Precision
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    engine_manifest_from_json,
)
from motorvae.runtime.engines.tensorrt.find import slower_int8
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

from ..engine_graphs import add_form

ORIN = Gpu("Orin", "8.7", "13.2", None, 64 << 30, integrated=True)
NONE = NoGpu("no NVIDIA driver")


def test_without_a_gpu_nobody_says_that_int8_is_faster(bundle_copy: Path) -> None:
    add_form(bundle_copy, "encoder", "int8", "mu")
    bundle, said = load_bundle(bundle_copy), io.StringIO()
    request = EngineBuildRequest(import_tensorrt("tensorrt-rtx"), NONE, "int8", BatchProfile())
    (manifest,) = add_engines_to_bundle(
        bundle, request, Console(file=said, width=200), on_reports=lambda _: None
    )
    why = "whether int8 is faster than fp16 was not measured: it was built without a GPU"
    assert said.getvalue().splitlines()[-1] == f"encoder int8 mu: {why}"
    (speed,) = manifest.int8_speed
    assert (speed.int8, speed.fp16, speed.times, speed.sentence) == ("mu", "mu", None, why)
    path = GraphKey("encoder", "int8", "mu").engine_paths(bundle_copy, "tensorrt-rtx")[1]
    assert engine_manifest_from_json(path) == manifest
    assert slower_int8(bundle, "encoder", request.package, ORIN, ("mu",)) is None


@pytest.fixture
def with_fp16(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.mark.parametrize(
    ("engines", "gpu", "expected"),
    [
        (("int8",), ORIN, ("fp16", "int8")),
        (("fp16", "int8"), ORIN, ("fp16", "int8")),
        (("fp16",), ORIN, ("fp16",)),
        (("int8",), NONE, ("int8",)),
        ((), ORIN, ()),
    ],
)
def test_int8_brings_what_it_is_measured_against(
    with_fp16: Bundle,
    engines: tuple[Precision, ...],
    gpu: Gpu | NoGpu,
    expected: tuple[Precision, ...],
) -> None:
    request = EngineBuildRequest(import_tensorrt("tensorrt-rtx"), gpu, "int8", BatchProfile())
    assert with_fp16_to_compare(with_fp16, engines, request) == expected


def test_a_bundle_without_fp16_graphs_has_nothing_to_measure_against(with_fp16: Bundle) -> None:
    graphs = tuple(one for one in with_fp16.manifest.graphs if one.precision != "fp16")
    manifest = with_fp16.manifest.model_copy(update={"graphs": graphs})
    bundle = Bundle(with_fp16.folder, manifest)
    request = EngineBuildRequest(import_tensorrt("tensorrt-rtx"), ORIN, "int8", BatchProfile())
    assert with_fp16_to_compare(bundle, ("int8",), request) == ("int8",)
