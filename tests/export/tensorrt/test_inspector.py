"""Engine inspectors' JSON of TensorRT 10 and 11, in recordings and in what may go wrong."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motorvae.export.tensorrt.formats import FormatCounts
from motorvae.export.tensorrt.inspector import counts_from_inspector
from motorvae.export.tensorrt.precision_report import counts_from_network, counts_from_plan
from motorvae.runtime.bundle.graph_key import Part, Precision, Variant
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage, import_tensorrt

from ..engine_graphs import write_form
from .one_line import json_from_log

RECORDED = Path(__file__).parent / "inspector"
BINDINGS = frozenset({"image", "mu", "log_var", "z", "reconstruction"})
HALF = "Row major linear FP16 format"


def recorded(name: str) -> str:
    text = (RECORDED / name).read_text(encoding="utf-8")
    return json_from_log(text) if name.endswith(".log") else text


def layer(output: str, kind: str, dimensions: list[int], **more: object) -> dict[str, object]:
    shape = {"Name": output, "Dimensions": dimensions, "Format/Datatype": kind}
    return {"Name": f"make {output}", "Outputs": [shape], **more}


def test_inspector_counts_weights_biases_and_layer_outputs() -> None:
    text = json.dumps(
        {
            "Layers": [
                layer(
                    "conv",
                    "Thirty-two wide channel vectorized row major FP16 format",
                    [-1, 32, 4, 4],
                    Weights={"Type": "Half", "Count": 288},
                    Bias={"Type": "Float", "Count": 32},
                ),
                layer("scaled", "Half", [1, 32]),
                layer("shape", "Int64", [4]),
                layer("mu", "Row major linear FP32", [-1, 8]),
            ],
            "Bindings": ["image", "mu"],
        }
    )
    expected = FormatCounts({"fp16": 288, "fp32": 32}, {"fp16": 544})
    assert counts_from_inspector(text, BINDINGS) == expected


@pytest.mark.parametrize(
    ("kind", "into", "held", "expected"),
    [
        ("Convolution", "Row major Int8 format", "Int8", {"int8": 288 * 16}),
        ("Deconvolution", "Int8", "Int8", {"int8": 288 * 64}),
        ("Convolution", "Float", "Int8", {"fp32": 288 * 16}),
        ("Convolution", "Int8", "Half", {"fp16": 288 * 16}),
        ("Convolution", "N/A due to dynamic shapes", "Int8", {}),
    ],
)
def test_inspector_counts_multiplications_where_formats_of_both_operands_are_told(
    kind: str, into: str, held: str, expected: dict[str, int]
) -> None:
    told = layer(
        "conv",
        "Half",
        [1, 8, 4, 4],
        ParameterType=kind,
        Inputs=[{"Name": "in", "Dimensions": [1, 4, 8, 8], "Format/Datatype": into}],
        Weights={"Type": held, "Count": 288},
    )
    counts = counts_from_inspector(json.dumps({"Layers": [told]}), BINDINGS)
    assert counts.multiplications == expected


def test_inspector_without_details_tells_nothing() -> None:
    text = json.dumps({"Layers": ["conv", "gemm"], "Bindings": []})
    assert counts_from_inspector(text, BINDINGS) == FormatCounts()


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("Row major Int8 format", "int8"),
        ("BF16", "bf16"),
        ("Row major linear BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("Float", "fp32"),
        (HALF, "fp16"),
    ],
)
def test_every_name_of_a_format_is_understood(kind: str, found: str) -> None:
    text = json.dumps({"Layers": [layer("conv", kind, [2, 3])]})
    assert counts_from_inspector(text, BINDINGS).outputs == {found: 6}


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '"a text"'])
def test_inspector_that_speaks_no_json_tells_nothing(text: str) -> None:
    assert counts_from_inspector(text, BINDINGS) == FormatCounts()


MIXED = {"fp32": 100 + 10 + 1200 + 40, "fp16": 300 + 30}
"""The weights of three layers, of which the middle one is FP16."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "trex-mobilenet-int8.json",
            FormatCounts(
                {"int8": 864 + 2304, "fp32": 32 + 24},
                {"int8": 3 * 224 * 224 + 32 * 112 * 112, "fp16": 24 * 56 * 56},
                {"int8": 864 * 112 * 112 + 2304 * 56 * 56},
            ),
        ),
        (
            "issue-4020-resnet-int8.json",
            FormatCounts({"int8": 294912, "fp32": 256}, {"int8": 3 * 224 * 224}),
        ),
        # What is multiplied cannot be told of kernels of the compiler's own making.
        ("torch-tensorrt-mixed.log", FormatCounts(MIXED, {"fp16": 10, "fp32": 30 + 40})),
        (
            "tensorrt-11-documented.json",
            FormatCounts({"fp16": 216 + 8}, {"fp16": 8 * 112 * 112}, {"fp16": 216 * 112 * 112}),
        ),
    ],
)
def test_recordings_of_others_are_counted(name: str, expected: FormatCounts) -> None:
    """Where each is from is said in `Source`; the log is from Torch-TensorRT's documentation.

    (User guide, Mixed Precision, explicit typing; docs/_sources/user_guide in pytorch/TensorRT.)
    """
    assert counts_from_inspector(recorded(name), frozenset({"x"})) == expected


CHANNELS = (16, 32, 64, 128, 256)
"""Of the demo's encoder, of which TensorRT-RTX 1.7.1 logged what it made."""


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_recordings_in_the_form_of_tensorrt_11_are_counted(precision: str) -> None:
    """By the model's own sizes: five convolutions and two heads of 128 units.

    The compiler pads the one colour to two channels in FP16 and to four in INT8.
    """
    bindings = frozenset({"image", "mu", "log_var"})
    counts = counts_from_inspector(recorded(f"rtx-1.7.1-encoder-{precision}.log"), bindings)
    colours = {"fp16": 2, "int8": 4}[precision]
    kernels = [9 * one * other for one, other in itertools.pairwise((colours, *CHANNELS))]
    heads = 256 * 8 * 8 * 256
    places = (128, 64, 32, 16, 8)
    products = sum(kernel * side**2 for kernel, side in zip(kernels, places, strict=True)) + heads
    assert counts.multiplications == {precision: products}
    assert counts.weights[precision] == pytest.approx(sum(kernels) + heads, abs=800)  # biases
    assert set(counts.outputs) == ({"fp16"} if precision == "fp16" else {"int8", "fp32"})


class Listening:
    """A logger of all that a builder says, for what it says of the engine that it made."""

    def __init__(self, trt: Any) -> None:
        self.said: list[str] = []
        said = self.said

        class Listener(trt.ILogger):  # type: ignore[misc]  # known at run time only
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, _: Any, message: str) -> None:
                said.append(message)

        self.logger = Listener()


@pytest.mark.parametrize(
    ("graph", "precision", "variant"),
    [
        ("encoder", "fp16", "full"),
        ("encoder", "fp16", "luma"),
        ("encoder", "int8", "mu"),
        ("decoder", "fp16", "full"),
        ("decoder", "fp32", "full"),
        ("decoder", "int8", "phases"),
    ],
)
def test_what_the_installed_builder_says_is_what_its_engine_file_holds(
    small_bundle: Path, tmp_path: Path, graph: Part, precision: Precision, variant: Variant
) -> None:
    """Two sources of the same facts, and a third: the network that was asked for."""
    rtx: TensorRTPackage = import_tensorrt("tensorrt-rtx")
    trt, log = rtx.trt, Listening(rtx.trt)
    builder = trt.Builder(log.logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log.logger)
    path = write_form(small_bundle, tmp_path, graph, precision, variant)
    assert parser.parse(path.read_bytes())
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    given = network.get_input(0)
    sizes = builder.create_optimization_profile()
    sizes.set_shape(given.name, *[(count, *tuple(given.shape)[1:]) for count in (1, 1, 8)])
    config.add_optimization_profile(sizes)
    plan = bytes(builder.build_serialized_network(network, config))
    text = json_from_log(next(line for line in log.said if line.startswith("Layers:")))
    assert json.loads(text).keys() == {"Layers", "I/O Tensors", "Engine Metadata"}
    # Nothing is told of what its own inputs and outputs are but by the text itself.
    found = counts_from_inspector(text, frozenset())
    in_file = counts_from_plan(plan, BINDINGS)
    asked = counts_from_network(trt, network, BINDINGS)
    assert found.multiplications == in_file.multiplications
    assert found.multiplications.keys() == asked.multiplications.keys() == {precision}
    for name, number in in_file.weights.items():
        assert found.weights.get(name, 0) == pytest.approx(number, rel=0.02, abs=64)


NOT_TOLD = FormatCounts()


@pytest.mark.parametrize(
    "changes",
    [
        {"Datatype": None},
        {"Datatype": 7},
        {"Datatype": "Half", "Format/Datatype": "Row major linear FP32"},
        {"Datatype": "Format not available due to dynamic shapes"},
        {"Data Type": "Half"},
        {"Format": "Row major linear FP16 format"},  # a layout, which is no number format
        {"Datatype": "Half", "Dimensions": None},
        {"Datatype": "Half", "Dimensions": "[1,9,6,6]"},
        {"Datatype": "Half", "Dimensions": [1, [9], 6]},
        {"Datatype": "Half", "Dimensions": [float("inf")]},
    ],
)
def test_fields_that_are_absent_renamed_or_at_odds_are_not_reported(
    changes: dict[str, object],
) -> None:
    tensor = {"Name": "conv", "Dimensions": [1, 9, 6, 6]} | changes
    text = json.dumps({"Layers": [{"Name": "conv", "Outputs": [tensor], "Constants": [tensor]}]})
    counts = counts_from_inspector(text, BINDINGS)
    assert sum(counts.outputs.values()) == sum(counts.weights.values()) == 0
    assert not counts.multiplications


@pytest.mark.parametrize("changes", [{"Constants": "none"}, {"Constants": [None, 3, "w"]}])
def test_constants_of_another_kind_are_not_guessed(changes: dict[str, object]) -> None:
    """The layer says that it has constants, so its inputs are not searched for them."""
    tensor = {"Name": "w", "Dimensions": [9, 9], "Datatype": "Half"}
    told = {"Name": "gemm", "LayerType": "gemm", "Inputs": [tensor], "Outputs": []} | changes
    assert counts_from_inspector(json.dumps({"Layers": [told]}), BINDINGS) == NOT_TOLD


def test_both_forms_in_one_document_count_each_layer_once() -> None:
    old, new = (
        json.loads(recorded("trex-mobilenet-int8.json")),
        json.loads(recorded("tensorrt-11-documented.json")),
    )
    both = old | {"Layers": old["Layers"] + new["Layers"], "I/O Tensors": new["I/O Tensors"]}
    counts = [counts_from_inspector(json.dumps(one), frozenset()) for one in (old, new, both)]
    assert counts[2] == counts[0].plus(counts[1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                (
                    *(
                        "Layers",
                        "Bindings",
                        "I/O Tensors",
                        "Name",
                        "LayerType",
                        "Inputs",
                        "Outputs",
                    ),
                    *("Constants", "Weights", "Bias", "Type", "Count", "Dimensions", "Datatype"),
                    *("Format/Datatype", "ParameterType"),
                )
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(JSON)
def test_no_json_is_a_crash(content: Any) -> None:
    counts = counts_from_inspector(json.dumps({"Layers": content}), BINDINGS)
    assert all(number >= 0 for number in counts.weights.values())
    counts_from_inspector(json.dumps(content), BINDINGS)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"Layers":' * 200_000])
def test_json_that_is_nested_without_end_reports_nothing(text: str) -> None:
    assert counts_from_inspector(text, BINDINGS) == FormatCounts()


def test_a_layer_that_is_listed_again_does_not_stand_for_what_is_not_listed() -> None:
    layer = {
        "Name": "conv",
        "LayerType": "CaskConvolution",
        "Weights": {"Type": "Half", "Count": 9},
        "Inputs": [{"Name": "a", "Datatype": "Half", "Dimensions": [1, 1, 4, 4]}],
        "Outputs": [{"Name": "b", "Datatype": "Half", "Dimensions": [1, 1, 2, 2]}],
    }
    wider = layer | {"Weights": {"Type": "Float", "Count": 9}}
    once, twice, at_odds = (
        counts_from_inspector(json.dumps({"Layers": layers}), frozenset())
        for layers in ([layer], [layer] * 20, [layer, wider])
    )
    assert once == twice == FormatCounts({"fp16": 9}, {"fp16": 4}, {"fp16": 36})
    assert at_odds == FormatCounts()


@pytest.mark.parametrize(
    "dimensions",
    [
        [1, 2, -3, -4],
        [1, 2.9, 4],
        ["9", 4],
        "8888",
        [999_999_999_999_999_999] * 20_000,
        [1 << 30, 1 << 30],
    ],
)
def test_dimensions_that_no_tensor_has_count_nothing(dimensions: object) -> None:
    layer = {"Name": "a", "Outputs": [{"Name": "x", "Datatype": "Half", "Dimensions": dimensions}]}
    counts = counts_from_inspector(json.dumps({"Layers": [layer]}), frozenset())
    assert sum(counts.outputs.values()) == 0


@pytest.mark.parametrize("count", [True, -5, 2.0, "9", 1 << 62])
def test_a_count_of_weights_that_is_none_counts_nothing(count: object) -> None:
    layer = {"Name": "a", "Weights": {"Type": "Half", "Count": count}}
    counts = counts_from_inspector(json.dumps({"Layers": [layer]}), frozenset())
    assert sum(counts.weights.values()) == 0
