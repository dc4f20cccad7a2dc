from __future__ import annotations

import json
from pathlib import Path

import pytest

from motorvae.export.receipt import (
    check_receipt,
    counts_from_inspector,
    counts_from_plan,
)
from motorvae.runtime.bundle import Precision
from motorvae.runtime.engines import engine_paths
from motorvae.runtime.errors import EngineError
from motorvae.runtime.passport import PrecisionReceipt

FACES = frozenset({"image", "mu", "log_var", "z", "reconstruction"})
HALF = "Row major linear FP16 format"


def receipt(weights: dict[str, int], outputs: dict[str, int]) -> PrecisionReceipt:
    return PrecisionReceipt(
        weights=weights, weights_from="engine file", outputs=outputs, outputs_from="engine file"
    )


def layer(output: str, kind: str, dimensions: list[int], **more: object) -> dict[str, object]:
    shape = {"Name": output, "Dimensions": dimensions, "Format/Datatype": kind}
    return {"Name": f"make {output}", "Outputs": [shape], **more}


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_a_real_engine_file_tells_the_formats_of_all_its_weights(
    rtx_bundle: Path, graph: str
) -> None:
    import onnx_ir as ir

    path, _ = engine_paths(rtx_bundle, graph, "fp16", "tensorrt-rtx")  # type: ignore[arg-type]
    weights, outputs = counts_from_plan(path.read_bytes(), FACES)
    model = ir.load(rtx_bundle / f"{graph}.fp16.onnx")
    expected = sum(
        value.const_value.size
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.dtype == ir.DataType.FLOAT16
    )
    # The compiler pads odd channel counts, which so small a model has many of.
    assert expected <= weights["fp16"] <= expected * 1.2
    assert weights.get("fp32", 0) <= 64
    assert set(outputs) == {"fp16"}


def test_engine_file_without_a_table_tells_nothing() -> None:
    assert counts_from_plan(b"\0\1\2 not a plan" * 100, FACES) == ({}, {})


def test_scratch_and_the_engines_own_faces_do_not_count() -> None:
    plan = b"""
  tensor={ alignment=32 dims={ "n" 1 8 8 } mem_prop=0 name="image.1" region="" type=float }
  tensor={ alignment=128 dims={ 4096 } is_scratchspace=1 mem_prop=0 name="s" type=int8 }
  tensor={ alignment=128 dims={ "n" 4 4 4 } mem_prop=0 name="conv.1" region="d" type=half }
  sub_tensor={ base="conv.1" dims={ "n" 64 } mem_prop=0 name="view" type=half }
  tensor={ alignment=128 dims={ "n" 4 4 4 } mem_prop=0 name="conv.1" region="e" type=half }
  tensor={ alignment=128 const_payload_size=36 dims={ 1 1 3 3 } name="w" region=c type=float }
  tensor={ alignment=128 dims={ 1 } mem_prop=100 name="shape" region="h" type=int64 }
"""
    assert counts_from_plan(plan, FACES) == ({"fp32": 9}, {"fp16": 64})


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
    assert counts_from_inspector(text, FACES) == ({"fp16": 288, "fp32": 32}, {"fp16": 544})


def test_inspector_without_details_tells_nothing() -> None:
    text = json.dumps({"Layers": ["conv", "gemm"], "Bindings": []})
    assert counts_from_inspector(text, FACES) == ({}, {})


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
    assert counts_from_inspector(text, FACES)[1] == {found: 6}


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
        check_receipt(receipt(weights, outputs), precision, name="it")


def test_label_is_granted_at_the_limit() -> None:
    check_receipt(receipt({"fp16": 95, "fp32": 5}, {"fp16": 19, "bf16": 1}), "fp16", name="it")
