"""Engines for DLA: which releases can, what a core cannot run, and what is said of it.

No machine here has one. The networks are real, parsed by TensorRT-RTX, whose builder also shows
what a release without DLA does. What stands for an Orin's core answers by NVIDIA's table of layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motorvae.export.cli import main
from motorvae.export.tables import engine_table
from motorvae.export.tensorrt.build import EngineBuildRequest, engine_from_onnx
from motorvae.export.tensorrt.dla import (
    FOR_DLA,
    DlaRequest,
    check_dla,
    check_placement,
    dla_objection,
    moved_by_builder,
    place_on_dla,
)
from motorvae.export.tensorrt.precision_report import check_precision_report, precision_report_of
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.gpu_info import NoGpu
from motorvae.runtime.engines.tensorrt.build_record import DlaPlacement
from motorvae.runtime.engines.tensorrt.engine_manifest import (
    BatchProfile,
    PrecisionReport,
    engine_manifest_from_json,
)
from motorvae.runtime.engines.tensorrt.package import EngineLog, TensorRTPackage, import_tensorrt

ON_DLA = {"CONVOLUTION", "ACTIVATION", "ELEMENTWISE", "POOLING", "SCALE", "CONCATENATION"}
"""Of NVIDIA's "DLA Layer Support Summary" (TensorRT 11.4.1) what graphs here may have; transposed
convolutions are there without padding only, which the decoder's have."""


def package_of(version: str, *, rtx: bool = False) -> TensorRTPackage:
    """The installed TensorRT-RTX in the part of a release of TensorRT."""
    trt = import_tensorrt("tensorrt-rtx").trt
    return TensorRTPackage("tensorrt-rtx" if rtx else "tensorrt", trt, version)


class Orin:
    """Stands for a builder's configuration on a machine with two cores."""

    def __init__(self, able: set[str] = ON_DLA, cores: int = 2) -> None:
        self.able, self.num_DLA_cores = able, cores
        self.default_device_type: Any = None
        self.flags: list[str] = []
        self.on: dict[str, str] = {}
        self._core = -1

    @property
    def DLA_core(self) -> int:  # noqa: N802  # as TensorRT spells it
        return self._core

    @DLA_core.setter
    def DLA_core(self, core: int) -> None:  # noqa: N802  # as above
        self._core = core

    def can_run_on_DLA(self, layer: Any) -> bool:  # noqa: N802  # as above
        return str(layer.type).rpartition(".")[2] in self.able

    def set_flag(self, flag: Any) -> None:
        self.flags.append(str(flag).rpartition(".")[2])

    def set_device_type(self, layer: Any, device: Any) -> None:
        self.on[layer.name] = str(device).rpartition(".")[2]


class Parsed:
    """A graph as a real network, with one batch size."""

    def __init__(self, path: Path) -> None:
        self.package = package_of("11.4.1")
        trt, self.log = self.package.trt, EngineLog(self.package.trt)
        self.builder = trt.Builder(self.log.logger)
        self.network = self.builder.create_network(0)
        self.parser = trt.OnnxParser(self.network, self.log.logger)
        assert self.parser.parse(path.read_bytes())
        image = self.network.get_input(0)
        image.shape = trt.Dims([1, *tuple(image.shape)[1:]])
        assert not self.log.errors

    def placed(self, orin: Orin, request: DlaRequest) -> DlaPlacement:
        config: Any = orin
        return place_on_dla(
            self.package, config, self.network, config, request, name="encoder.fp16.onnx"
        )


@pytest.fixture
def encoder(small_bundle: Path) -> Parsed:
    return Parsed(small_bundle / "encoder.fp16.onnx")


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("10.3.0", "takes no strongly typed network to DLA"),
        ("10.16.1.11", "takes no strongly typed network to DLA"),
        ("11.3.1", "takes no strongly typed network to DLA"),
        ("11.4.0.106", "takes no strongly typed network to DLA"),
    ],
)
def test_releases_that_cannot_say_which_one_can(version: str, says: str) -> None:
    objection = dla_objection(package_of(version), 2, 0) or ""
    assert says in objection
    assert objection.endswith("TensorRT 11.4.1 with JetPack 7.2.2 on an Orin is the first")


@pytest.mark.parametrize("version", ["11.4.1", "11.4.1.20", "11.5.0", "12.0.0"])
def test_newer_releases_are_asked_for_their_cores(version: str) -> None:
    package = package_of(version)
    assert dla_objection(package, 2, 1) is None
    assert dla_objection(package, 2, 2) == (
        "this machine has 2 DLA cores, numbered from 0, and no core 2"
    )
    assert "sees no DLA core on this machine" in (dla_objection(package, 0, 0) or "")


def test_a_real_builder_without_dla_is_refused_before_anything_is_built() -> None:
    with pytest.raises(EngineError, match=r"sees no DLA core on this machine; leave out --use-dla"):
        check_dla(package_of("11.4.1"), DlaRequest(0))
    with pytest.raises(EngineError, match=r"TensorRT-RTX 1\.7 has no DLA; leave out"):
        check_dla(package_of("1.7", rtx=True), DlaRequest(0))


def test_the_parser_has_the_flag_for_dla() -> None:
    assert FOR_DLA in import_tensorrt("tensorrt-rtx").trt.OnnxParserFlag.__members__


def test_an_engine_for_dla_is_never_built_for_the_gpu_instead(small_bundle: Path) -> None:
    """TensorRT-RTX takes DLA as the device, and builds for the GPU without a word (seen, 1.7.1)."""
    from rich.console import Console

    package = import_tensorrt("tensorrt-rtx")
    request = EngineBuildRequest(
        package, NoGpu("none"), "fp16", BatchProfile(min=1, opt=1, max=1), dla=DlaRequest(0)
    )
    content = (small_bundle / "encoder.fp16.onnx").read_bytes()
    with pytest.raises(EngineError, match="has no DLA; leave out --use-dla-core"):
        engine_from_onnx(content, request, name="it", title="it", console=Console(quiet=True))


def test_layers_that_a_core_cannot_run_are_named_and_refused(encoder: Parsed) -> None:
    orin = Orin()
    with pytest.raises(EngineError) as caught:
        encoder.placed(orin, DlaRequest(1))
    said = str(caught.value)
    assert said.startswith("DLA core 1 cannot run 8 of the 20 layers of encoder.fp16.onnx: ")
    assert "Cast_image_fp16 (CAST)" in said
    assert "3 more; let the GPU run them with --allow-gpu-fallback, or leave out" in said
    assert orin.flags == []


def test_with_fallback_they_are_put_on_the_gpu_by_name(encoder: Parsed) -> None:
    orin = Orin()
    placed = encoder.placed(orin, DlaRequest(1, fallback=True))
    assert (orin.DLA_core, str(orin.default_device_type)) == (1, "DeviceType.DLA")
    assert orin.flags == ["GPU_FALLBACK"]
    assert orin.on == {text.rpartition(" (")[0]: "GPU" for text in placed.on_gpu}
    kinds = {text.rpartition(" (")[2].rstrip(")") for text in placed.on_gpu}
    assert kinds == {"CAST", "SHUFFLE", "MATRIX_MULTIPLY"}
    assert placed.runs("node_Conv_37")
    assert "CONSTANT" not in kinds


def test_a_core_that_can_run_all_needs_no_fallback(encoder: Parsed) -> None:
    orin = Orin(ON_DLA | {"CAST", "SHUFFLE", "MATRIX_MULTIPLY"})
    placed = encoder.placed(orin, DlaRequest(0))
    assert placed.on_gpu == ()
    assert orin.flags == []
    assert orin.on == {}


def test_a_core_that_can_run_nothing_is_no_place_for_it(encoder: Parsed) -> None:
    with pytest.raises(EngineError, match="DLA core 0 can run none of the 20 layers of encoder"):
        encoder.placed(Orin(set()), DlaRequest(0, fallback=True))


def test_a_core_that_is_not_taken_is_an_error(encoder: Parsed) -> None:
    """As on a machine without one: what is set is -1 when it is read back."""

    class Stubborn(Orin):
        @property
        def DLA_core(self) -> int:  # noqa: N802  # as TensorRT spells it
            return -1

        @DLA_core.setter
        def DLA_core(self, core: int) -> None:  # noqa: N802  # as above
            assert core == 1

    with pytest.raises(EngineError, match="was asked for DLA core 1 and took -1: name another"):
        encoder.placed(Stubborn(), DlaRequest(1, fallback=True))


SAID = (
    "Layer '/model.24/Constant_1_output_0' (CONSTANT): Unsupported on DLA. Switching this layer's "
    "device type to GPU.",
    "Layer 'head' (SHUFFLE): Unsupported on DLA. Switching this layer's device type to GPU.",
    "DLA supports only 8 subgraphs per DLA core. Switching to GPU for layer conv_6",
    "DLA only supports FP16 and Int8 precision type. Switching (Unnamed Layer* 275) [Gather] "
    "device type to GPU.",
    "Default DLA is enabled but layer net/conv/BiasAdd is not supported on DLA, falling back to "
    "GPU.",
    "conv_6: something else that a builder says of DLA",
)
"""In the words of builders, as recorded where `export/tensorrt/dla.py` says."""


def test_what_the_builder_moves_by_itself_is_named_too() -> None:
    placed = DlaPlacement(core=0, layers=20, on_gpu=("head (SHUFFLE)",))
    found = moved_by_builder(placed, [*SAID, SAID[2]])
    assert found.on_gpu == (
        "head (SHUFFLE)",
        "conv_6 (moved by the builder)",
        "(Unnamed Layer* 275) [Gather] (moved by the builder)",
        "net/conv/BiasAdd (moved by the builder)",
    )
    with pytest.raises(EngineError, match="cannot run 4 of the 20 layers of it: head"):
        check_placement(found, DlaRequest(0), name="it")
    check_placement(found, DlaRequest(0, fallback=True), name="it")


def report_of(encoder: Parsed, placement: DlaPlacement, inspected: str) -> PrecisionReport:
    return precision_report_of(
        encoder.package, encoder.network, b"", inspected=inspected, dla=placement
    )


def test_what_runs_on_dla_is_evidence_and_what_does_not_is_none(encoder: Parsed) -> None:
    placed = encoder.placed(Orin(), DlaRequest(0, fallback=True))
    alone = report_of(encoder, placed, '{"Layers": []}')
    assert alone.dla == placed
    # The heads run on the GPU, and of them nothing is known.
    assert alone.weights_from == "typed network"
    assert alone.multiplications_from == "DLA"
    heads = 16 * 16
    told = (
        '{"Layers": [{"Name": "heads_myl0_1", "LayerType": "gemm", "Inputs": '
        '[{"Name": "in", "Dimensions": [1, 16], "Datatype": "Half"}], "Constants": '
        f'[{{"Name": "w", "Dimensions": [16, {heads // 16}], "Datatype": "Half"}}], "Outputs": '
        '[{"Name": "out", "Dimensions": [1, 16], "Datatype": "Half"}]}]}'
    )
    both = report_of(encoder, placed, told)
    assert both.weights_from == "engine inspector and DLA"
    assert set(both.weights) == {"fp16"}
    check_precision_report(both, "fp16", name="it")
    assert "layers on DLA core 0, on the GPU Cast_image_fp16 (CAST), " in both.sentence("fp16")


def test_float32_on_dla_is_evidence_of_nothing(small_bundle: Path) -> None:
    """DLA has no float32: whatever a builder says it does there is not what the graph says."""
    parsed = Parsed(small_bundle / "encoder.onnx")
    placed = parsed.placed(Orin(), DlaRequest(0, fallback=True))
    found = report_of(parsed, placed, '{"Layers": []}')
    assert {found.weights_from, found.outputs_from} == {"typed network"}
    assert not found.proves("fp32")


def test_the_table_and_the_manifest_say_what_runs_where(rtx_bundle: Path) -> None:
    path = GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    manifest = engine_manifest_from_json(path)
    placed = DlaPlacement(core=1, layers=9, on_gpu=("head (SHUFFLE)",))
    report = manifest.precision_report.model_copy(update={"dla": placed})
    table = engine_table([manifest.model_copy(update={"precision_report": report})])
    assert "encoder fp16: 8 of 9 layers on DLA core 1, on the GPU head (SHUFFLE)" in str(
        table.caption
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--use-dla-core", "0", "--fp16"), "takes one batch size, and --batch is 1,1,8: add"),
        (("--use-dla-core", "0", "--batch", "1,1,1"), "DLA computes in FP16 and INT8 only: add"),
        (
            ("--use-dla-core", "0", "--batch", "1,1,1", "--engine", "tensorrt"),
            "DLA computes in FP16 and INT8 only: add",
        ),
        (
            ("--use-dla-core", "0", "--fp16", "--batch", "1,1,1", "--engine", "tensorrt-rtx"),
            "--engine tensorrt-rtx was asked for: leave one of them out",
        ),
        (("--use-dla-core", "-1", "--fp16", "--batch", "1,1,1"), "is no core: they are numbered"),
        (("--allow-gpu-fallback", "--fp16"), "--allow-gpu-fallback is for DLA engines: add"),
        (
            ("--use-dla-core", "0", "--fp16", "--batch", "1,1,1"),
            "TensorRT needs the package tensorrt, which is not installed: ",
        ),
        (  # one batch size, however it is spelled
            ("--use-dla-core", "0", "--fp16", "--batch", "01,1, 1"),
            "TensorRT needs the package tensorrt, which is not installed: ",
        ),
        (("--tune", "--engine", "none", "--fp16"), "--tune is for TensorRT engines, and none"),
        (("--tune", "--fp16"), "--tune keeps the fastest engine, which only the GPU can tell"),
        (
            ("--tune", "--fp16", "--engine", "tensorrt-rtx"),
            "TensorRT-RTX finishes its engines on the target and has no build routes: leave out",
        ),
        (("--tune-minutes", "0", "--fp16"), "out of range: take up to 1440"),
        (("--tune-minutes", "nan", "--fp16"), "out of range: take up to 1440"),
        (("--tune-minutes", "5", "--fp16"), "--tune-minutes is for --tune: add that, or leave"),
        (("--tune-minutes", "10", "--fp16"), "--tune-minutes is for --tune: add that, or leave"),
        (
            ("--use-dla-core", "0", "--fp16", "--batch", "01,2,1"),
            "batch='01,2,1': give fewest,best,most images per run",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    bundle_copy: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    says: str,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    before = sorted(path.name for path in bundle_copy.rglob("*"))
    assert main(["--model", str(bundle_copy), *options]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert says in line
    assert sorted(path.name for path in bundle_copy.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "says"),
    [("--useDLACore=0", "--use-dla-core"), ("--allowGPUFallback", "--allow-gpu-fallback")],
)
def test_trtexecs_own_spelling_is_answered_with_ours(
    capfd: pytest.CaptureFixture[str], option: str, says: str
) -> None:
    assert main(["--fp16", option]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"motorvae-export: {option}: {says} ")
