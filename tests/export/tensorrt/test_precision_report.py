from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.export.tensorrt.formats import FormatCounts
from motorvae.export.tensorrt.precision_report import (
    check_precision_report,
    counts_from_plan,
    precision_report_of,
)
from motorvae.runtime.bundle.graph_key import GraphKey, Precision
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.tensorrt.engine_manifest import PrecisionReport
from motorvae.runtime.engines.tensorrt.package import EngineLog, import_tensorrt

BINDINGS = frozenset({"image", "mu", "log_var", "z", "reconstruction"})


def precision_report(weights: dict[str, int], outputs: dict[str, int]) -> PrecisionReport:
    return PrecisionReport(
        weights=weights,
        weights_from="engine file",
        outputs=outputs,
        outputs_from="engine file",
        multiplications={},
        multiplications_from="typed network",
        asked={},
    )


def layer(output: str, kind: str, dimensions: list[int], **more: object) -> dict[str, object]:
    shape = {"Name": output, "Dimensions": dimensions, "Format/Datatype": kind}
    return {"Name": f"make {output}", "Outputs": [shape], **more}


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_a_real_engine_file_tells_the_formats_of_all_its_weights(
    rtx_bundle: Path, graph: str
) -> None:
    import onnx_ir as ir

    path, _ = GraphKey(graph, "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")  # type: ignore[arg-type]
    counts = counts_from_plan(path.read_bytes(), BINDINGS)
    weights, outputs = counts.weights, counts.outputs
    model = ir.load(rtx_bundle / f"{graph}.fp16.onnx")
    expected = sum(
        value.const_value.size
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT16
    )
    # The compiler pads odd channel counts, which so small a model has many of.
    assert expected <= weights["fp16"] <= expected * 1.2
    assert weights.get("fp32", 0) <= 64
    assert set(outputs) == set(counts.multiplications) == {"fp16"}


def test_engine_file_without_a_table_tells_nothing() -> None:
    assert counts_from_plan(b"\0\1\2 not a plan" * 100, BINDINGS) == FormatCounts()


def test_scratch_and_the_engines_own_bindings_do_not_count() -> None:
    plan = b"""
  tensor={ alignment=32 dims={ "n" 1 8 8 } mem_prop=0 name="image.1" region="" type=float }
  tensor={ alignment=128 dims={ 4096 } is_scratchspace=1 mem_prop=0 name="s" type=int8 }
  tensor={ alignment=128 dims={ "n" 4 4 4 } mem_prop=0 name="conv.1" region="d" type=half }
  sub_tensor={ base="conv.1" dims={ "n" 64 } mem_prop=0 name="view" type=half }
  tensor={ alignment=128 dims={ "n" 4 4 4 } mem_prop=0 name="conv.1" region="e" type=half }
  tensor={ alignment=128 const_payload_size=36 dims={ 1 1 3 3 } name="w" region=c type=float }
  tensor={ alignment=128 dims={ 1 } mem_prop=100 name="shape" region="h" type=int64 }
"""
    assert counts_from_plan(plan, BINDINGS) == FormatCounts({"fp32": 9}, {"fp16": 64})


PLACES = b"""
  tensor={ dims={ "n" 4 8 8 } name="in" region="d" type=%s }
  sub_tensor={ base="in" dims={ "n" 256 } name="flat" type=%s }
  tensor={ const_payload_size=288 dims={ 8 4 3 3 } name="w" region=c type=%s }
  tensor={ const_payload_size=32 dims={ 256 5 } name="w2" region=c type=int8 }
  tensor={ dims={ "n" 8 4 4 } name="out" region="d" type=float }
  tensor={ dims={ "n" 5 } name="mu.1" region="d" type=float }
"""


@pytest.mark.parametrize(
    ("layer", "kinds", "expected"),
    [
        # 288 weights at each of 4x4 places that come out, or 8x8 that go in.
        (b'corrltn={ name="c" output={"out" } input={"in" "w" } x', "iii", {"int8": 288 * 16}),
        (b'deconvolution={ name="d" output={"out" } input={"in" "w" }', "iii", {"int8": 288 * 64}),
        (
            b'fully_connected={ name="f" output={"mu.1" } input={"flat" "w2" }',
            "iii",
            {"int8": 1280},
        ),
        (b'corrltn={ name="c" output={"out" } input={"in" "w" } x', "iif", {"fp32": 288 * 16}),
        (b'corrltn={ name="c" output={"out" } input={"in" "w" } x', "hii", {"fp16": 288 * 16}),
        (b'corrltn={ name="c" output={"out" } input={"absent" "w" } x', "iii", {}),
        (b'other={ name="c" output={"out" } input={"in" "w" } x', "iii", {}),
    ],
)
def test_layers_of_an_engine_file_multiply_in_the_wider_of_their_formats(
    layer: bytes, kinds: str, expected: dict[str, int]
) -> None:
    types = {"i": b"int8", "h": b"half", "f": b"float"}
    plan = PLACES % tuple(types[kind] for kind in kinds) + b"  " + layer
    assert counts_from_plan(plan, BINDINGS).multiplications == expected
    assert counts_from_plan(plan * 2, BINDINGS).multiplications == expected


@pytest.mark.parametrize(
    ("weights", "outputs", "precision"),
    [
        ({"fp16": 94, "fp32": 6}, {"fp16": 100}, "fp16"),
        ({"fp16": 100}, {"fp16": 94, "fp32": 6}, "fp16"),
        ({"fp32": 100}, {"fp32": 100}, "fp16"),
        ({"fp16": 100}, {"fp16": 100}, "fp32"),
        ({}, {"fp16": 100}, "fp16"),
        ({"fp16": 100}, {}, "fp16"),
    ],
)
def test_label_is_refused(
    weights: dict[str, int], outputs: dict[str, int], precision: Precision
) -> None:
    with pytest.raises(EngineError, match=rf"^it is not {precision}: .* needs 95% of both;"):
        check_precision_report(precision_report(weights, outputs), precision, name="it")


class Network:
    """A parsed network of one convolution with 90 weights, between an input and an output."""

    num_inputs = num_outputs = num_layers = 1

    def __init__(self, trt: Any) -> None:
        log = EngineLog(trt)
        self._kept = (trt.Builder(log.logger), log)
        self.real = self._kept[0].create_network(
            1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        image = self.real.add_input("image", trt.float16, (1, 1, 8, 8))
        kernel, bias = np.zeros((9, 1, 3, 3), np.float16), np.zeros(9, np.float16)
        first = self.real.add_convolution_nd(image, 9, (3, 3), kernel, bias)
        last = self.real.add_activation(first.get_output(0), trt.ActivationType.RELU)
        last.get_output(0).name = "mu"
        self.real.mark_output(last.get_output(0))


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(import_tensorrt("tensorrt-rtx").trt)


def read_back(network: Network, *layers: dict[str, object]) -> PrecisionReport:
    text = json.dumps({"Layers": layers})
    return precision_report_of(import_tensorrt("tensorrt-rtx"), network.real, b"", inspected=text)


def test_inspector_that_tells_of_everything_is_believed(network: Network) -> None:
    told = layer("conv", "Float", [1, 9, 6, 6], Weights={"Type": "Float", "Count": 90})
    found = read_back(network, told)
    assert (found.weights_from, found.outputs_from) == ("engine inspector", "engine inspector")
    assert found.weights == {"fp32": 90}
    with pytest.raises(EngineError, match=r"0\.00% of weights"):
        check_precision_report(found, "fp16", name="it")


def test_inspector_that_tells_of_a_part_is_not_taken_for_the_whole(network: Network) -> None:
    told = layer("scaled", "Half", [1], Weights={"Type": "Half", "Count": 9})
    found = read_back(network, told)
    assert (found.weights_from, found.outputs_from) == ("typed network", "typed network")


@pytest.mark.parametrize(
    "told",
    [
        layer("conv", "N/A due to dynamic shapes", [-1, 9, 6, 6]),
        layer("conv", "", [1, 9, 6, 6]),
        {"Name": "conv", "Outputs": [{"Name": "conv", "Dimensions": "N/A"}]},
        {"Name": "conv", "Outputs": [{"Name": "c", "Format/Datatype": "Half", "Dimensions": None}]},
    ],
)
def test_label_needs_evidence_from_the_engine_itself(
    network: Network, told: dict[str, object]
) -> None:
    """The network is FP16, and counting it again proves nothing."""
    found = read_back(network, told)
    assert found.shares("fp16") == (1.0, 1.0)
    with pytest.raises(EngineError, match=r"can be read back .*; .* so try --batch 1,1,1"):
        check_precision_report(found, "fp16", name="it")


def test_weights_alone_are_evidence_where_formats_of_outputs_are_not_told(
    network: Network,
) -> None:
    free = "N/A due to dynamic shapes"
    told = layer("conv", free, [-1, 9, 6, 6], Weights={"Type": "Half", "Count": 90})
    found = read_back(network, told)
    assert (found.weights_from, found.outputs_from) == ("engine inspector", "typed network")
    check_precision_report(found, "fp16", name="it")


def int8_report(
    counts: dict[str, int], asked: dict[str, int], *, told: bool = True
) -> PrecisionReport:
    return precision_report({"int8": 1}, {"int8": 1}).model_copy(
        update={
            "multiplications": counts,
            "multiplications_from": "engine file" if told else "typed network",
            "asked": asked,
        }
    )


@pytest.mark.parametrize(
    ("counts", "asked", "says"),
    [
        ({"int8": 5, "fp32": 95}, {"int8": 100}, r"5\.00% of multiplications .* needs 95%; more"),
        ({"int8": 94, "fp16": 6}, {"int8": 100}, r"94\.00% of multiplications .* needs 95%; more"),
        ({"int8": 49, "fp32": 51}, {"int8": 49, "fp32": 51}, r"49\.00% .* needs 50%; more"),
        ({}, {}, r"0\.00% of multiplications"),
    ],
)
def test_int8_label_is_about_what_is_multiplied(
    counts: dict[str, int], asked: dict[str, int], says: str
) -> None:
    """All weights and all outputs are INT8 in each of these."""
    with pytest.raises(EngineError, match=rf"^it is not int8: {says}"):
        check_precision_report(int8_report(counts, asked), "int8", name="it")


def test_int8_label_is_granted_where_the_engine_does_what_its_graph_asks() -> None:
    mixed = {"int8": 60, "fp32": 40}
    check_precision_report(int8_report(mixed, mixed), "int8", name="it")
    check_precision_report(int8_report({"int8": 57, "fp32": 43}, mixed), "int8", name="it")


def test_int8_label_needs_evidence_from_the_engine_itself() -> None:
    """That its weights are INT8 in the engine does not say how they are multiplied."""
    found = int8_report({"int8": 100}, {"int8": 100}, told=False)
    with pytest.raises(EngineError, match=r"can be read back .*; .* so try --batch 1,1,1"):
        check_precision_report(found, "int8", name="it")


def test_label_is_granted_at_the_limit() -> None:
    check_precision_report(
        precision_report({"fp16": 95, "fp32": 5}, {"fp16": 19, "bf16": 1}), "fp16", name="it"
    )


def kept_report(**changes: object) -> PrecisionReport:
    """Of a graph that keeps a third of its weights and outputs in float32, and does so here."""
    fields: dict[str, object] = {
        "weights": {"fp16": 60, "fp32": 40},
        "weights_from": "engine file",
        "outputs": {"fp16": 70, "fp32": 30},
        "outputs_from": "engine file",
        "multiplications": {"fp16": 100, "fp32": 200},
        "multiplications_from": "engine file",
        "asked": {"fp16": 100, "fp32": 200},
        "kept_float32": ("up1", "up2", "norm", "last"),
        "asked_weights": {"fp16": 60, "fp32": 40},
    }
    return PrecisionReport(**(fields | changes))  # type: ignore[arg-type]


def test_what_is_kept_in_float32_counts_as_intended_and_is_named() -> None:
    report = kept_report()
    check_precision_report(report, "fp16", name="the engine")
    assert report.sentence("fp16") == (
        "60.00% of weights (engine file) and 70.00% of layer outputs (engine file) are fp16, and "
        "by intention not up1, up2, norm and 1 more"
    )
    # Fused layers hand less on than the graph has it, and the kept ones' share grows.
    check_precision_report(kept_report(outputs={"fp16": 58, "fp32": 42}), "fp16", name="the engine")
    # The same shares without the intention are a fault.
    with pytest.raises(EngineError, match=r"60\.00% of weights .* the label needs 95% of both"):
        check_precision_report(kept_report(kept_float32=()), "fp16", name="the engine")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"weights": {"fp16": 50, "fp32": 50}},
            r"50\.00% of weights .*the label needs 57% of both",
        ),
        (  # the compiler made FP16 of what would overflow
            {"multiplications": {"fp16": 250, "fp32": 50}},
            r"16\.67% of multiplications .engine file. are fp32, and the graph keeps 66\.67% in",
        ),
        (
            {"weights": {"fp32": 9, "fp16": 1}, "asked_weights": {"fp32": 9, "fp16": 1}},
            "the label needs 25% of both; keep other layers in float32 with --keep-float32, or fe",
        ),
        ({"outputs": {"fp16": 24, "fp32": 76}}, r"24\.00% of layer outputs"),
        (
            {"multiplications": {"fp16": 50, "fp32": 250}},
            r"16\.67% of multiplications .engine file. are fp16, and the graph has 33\.33% so",
        ),
    ],
)
def test_intention_covers_no_more_than_it_says(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(EngineError, match=problem):
        check_precision_report(kept_report(**changes), "fp16", name="the engine")
