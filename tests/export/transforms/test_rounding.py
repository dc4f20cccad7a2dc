from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest

from motorvae.export.transforms import rounding
from motorvae.export.transforms.fp16 import fp16_from_fp32
from motorvae.export.transforms.rounding import InputMoments, weights_rounded_together
from motorvae.export.transforms.values_inside import GraphWithValues, opened_with_values

GRAPHS = {
    "conv": (
        "image [batch, 3, 8, 8]",
        "Conv <kernel_shape = [3, 3], pads = [0, 0, 0, 0]> (image, w, b)",
        ((5, 3, 3, 3), (5,)),
    ),
    "strided in groups": (
        "image [batch, 4, 9, 9]",
        "Conv <group = 2, kernel_shape = [3, 3], strides = [2, 2]> (image, w, b)",
        ((6, 2, 3, 3), (6,)),
    ),
    "over a line, dilated": (
        "image [batch, 6, 30]",
        'Conv <auto_pad = "VALID", dilations = [2]> (image, w, b)',
        ((5, 6, 4), (5,)),
    ),
    "in a volume, no bias": ("image [batch, 3, 5, 6, 7]", "Conv (image, w)", ((4, 3, 2, 2, 3), ())),
    "gemm": ("image [batch, 40]", "Gemm <transB = 1> (image, w, b)", ((7, 40), (7,))),
    "gemm, one bias": ("image [batch, 40]", "Gemm <transB = 1> (image, w, b)", ((7, 40), (1,))),
    "gemm, a row": ("image [batch, 40]", "Gemm <transB = 1> (image, w, b)", ((7, 40), (1, 7))),
    "gemm, no bias": ("image [batch, 40]", "Gemm <transB = 1> (image, w)", ((7, 40), ())),
}


def graph_of(name: str, scale: float = 1.0) -> tuple[ir.Model, tuple[int, ...]]:
    """A layer with weights and a bias that FP16 rounds, and the shape of one of its inputs."""
    given, layer, (weights, bias) = GRAPHS[name]
    shape = given.partition(" ")[2]
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float{shape} image) => (float y) {{ y = {layer} }}
    """.replace("float y", "float[batch] y")
    model = onnx.parser.parse_model(text)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    rng = np.random.default_rng(0)
    for key, of in (("w", weights), *([("b", bias)] if bias else [])):
        array = (scale * rng.normal(size=of)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    size = tuple(int(one) for one in shape.strip("[]").split(", ")[1:])
    return ir.from_proto(onnx.shape_inference.infer_shapes(model)), size


def batches(shape: tuple[int, ...], seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """White images with something in them, one by one."""
    rng = np.random.default_rng(seed)
    for _ in range(16):
        yield np.where(rng.random((1, *shape)) < 0.1, rng.random((1, *shape)), 1).astype(np.float32)


def rounded_over(
    model: ir.Model, engine: GraphWithValues, inputs: Iterable[npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float16]]:
    moments = InputMoments(model, engine)
    for one in inputs:
        moments.run(one)
    return weights_rounded_together(model, moments)


def outputs_of(model: ir.Model, folder: Path, inputs: Any) -> npt.NDArray[np.float64]:
    with opened_with_values(model, folder) as engine:
        return np.concatenate([engine.run(one)["y"] for one in inputs]).astype(np.float64)


def with_weights(model: ir.Model, arrays: dict[str, npt.NDArray[np.float16]]) -> ir.Model:
    copy = model.clone()
    for name, value in copy.graph.initializers.items():
        array = arrays.get(name, value.const_value.numpy().astype(np.float16))
        value.const_value = ir.tensor(array.astype(np.float32), name=name)
    return copy


@pytest.mark.parametrize("name", GRAPHS)
def test_no_output_moves_on_average_and_no_weight_by_more_than_a_unit(
    name: str, tmp_path: Path
) -> None:
    model, shape = graph_of(name)
    with opened_with_values(model, tmp_path) as engine:
        rounded = rounded_over(model, engine, batches(shape, 1))
    assert set(rounded) == {"w"}
    exact = model.graph.initializers["w"].const_value.numpy().astype(np.float64)
    unit = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64)
    assert (np.abs(rounded["w"].astype(np.float64) - exact) < unit).all()

    # On other inputs of the kind.
    true = outputs_of(model, tmp_path, batches(shape, 2))
    axes = (0, *range(2, true.ndim))
    shifts = {}
    for way, arrays in (("nearest", {}), ("together", rounded)):
        found = outputs_of(with_weights(model, arrays), tmp_path, batches(shape, 2))
        shifts[way] = np.abs((found - true).mean(axis=axes)).max()
    assert shifts["together"] < 0.2 * shifts["nearest"], shifts


def test_little_is_added_to_what_rounding_does_to_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cheapest weights go, and no more than are needed; blocks of outputs change nothing."""
    rng = np.random.default_rng(0)
    inputs = [np.abs(rng.normal(size=(1, 2000))).astype(np.float32) for _ in range(8)]
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 2000] image) => (float[batch, 20] y) { y = Gemm <transB = 1> (image, w) }
    """
    proto = onnx.parser.parse_model(text)
    exact = rng.normal(size=(20, 2000)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(exact, "w"))
    model = ir.from_proto(proto)
    found = []
    for most in (1 << 21, 3 * 2000):
        monkeypatch.setattr(rounding, "_AT_A_TIME", most)
        with opened_with_values(model, tmp_path) as engine:
            found.append(rounded_over(model, engine, inputs)["w"].astype(np.float64))
    assert np.array_equal(*found)
    mean = np.concatenate(inputs).mean(axis=0, dtype=np.float64)
    of_nearest, of_these = exact.astype(np.float16) - exact.astype(np.float64), found[0] - exact
    assert np.abs(of_these @ mean).max() < 0.05 * np.abs(of_nearest @ mean).max()
    assert (of_these**2).sum() < 1.1 * (of_nearest**2).sum()


def test_the_fp16_graph_has_these_weights_and_the_same_twice(tmp_path: Path) -> None:
    model, shape = graph_of("conv")
    results = []
    for _ in range(2):
        with opened_with_values(model, tmp_path) as engine:
            results.append(rounded_over(model, engine, batches(shape, 1))["w"])
    assert np.array_equal(*results)
    nearest = model.graph.initializers["w"].const_value.numpy().astype(np.float16)
    assert (results[0] != nearest).any()
    fp16_from_fp32(model, rounded={"w": results[0]})
    assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), results[0])


def test_weights_beyond_fp16_and_black_images_round_to_the_nearest(tmp_path: Path) -> None:
    model, shape = graph_of("conv", scale=65000)
    black = [np.zeros((1, *shape), np.float32)]
    for inputs in (black, batches(shape, 1)):
        with opened_with_values(model, tmp_path) as engine:
            found = rounded_over(model, engine, inputs)["w"]
        exact = model.graph.initializers["w"].const_value.numpy()
        fits = np.abs(exact) < 65504
        assert np.isfinite(found[fits]).all()
        if inputs is black:
            with np.errstate(over="ignore"):
                assert np.array_equal(found, exact.astype(np.float16))


def test_shared_weights_and_values_that_are_no_numbers_are_left_alone(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[batch, 2] z) => (float[batch, 2] y)
    <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, 2}>
    { x = Gemm <transB = 1> (z, w, b)
      y = Gemm <transB = 1> (x, w, b) }
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    with opened_with_values(model, tmp_path) as engine:
        assert rounded_over(model, engine, [np.ones((1, 2), np.float32)]) == {}
    alone, shape = graph_of("gemm")
    with opened_with_values(alone, tmp_path) as engine:
        nan = [np.full((1, *shape), np.nan, np.float32)]
        assert rounded_over(alone, engine, nan) == {}
