"""Whole networks of others in the normal form: every exporter, opset and kind of batch axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from motorvae.export.onnx_import.normal_form import normal_encoder
from motorvae.export.onnx_import.read import encoder_from_file
from motorvae.runtime.core.errors import GraphError, VerificationError

from .imports import graph_file, imported_decoder, imported_encoder, operators, spec_of
from .torch_graphs import (
    BatchNorms,
    MlpDecoder,
    MlpEncoder,
    SamplingEncoder,
    SequenceFirst,
    SpatialDecoder,
    SpatialEncoder,
    exported,
    trained,
)

WAYS = {
    "opset 9": {"dynamo": False, "opset": 9},
    "opset 13, batch 1": {"dynamo": False, "opset": 13, "free": False},
    "opset 17, unfolded": {"dynamo": False, "opset": 17, "constant_folding": False},
    "dynamo, opset 18": {"dynamo": True, "opset": 18},
    "dynamo, opset 20, batch 1": {"dynamo": True, "opset": 20, "free": False},
    "dynamo, opset 23": {"dynamo": True, "opset": 23},
}


def in_ways(*names: str) -> pytest.MarkDecorator:
    """Run a test once for each of these ways to export."""
    return pytest.mark.parametrize("way", [WAYS[name] for name in names], ids=names)


def run(proto: onnx.ModelProto, inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: inputs}), strict=True))


@in_ways(*WAYS)
def test_spatial_latents_and_attention_are_those_of_torch(
    tmp_path: Path, way: dict[str, object]
) -> None:
    """Judged by torch itself, at a batch of 5, in another range."""
    module = trained(SpatialEncoder())
    path = exported(module, tmp_path / "e.onnx", (3, 32, 48), ["mean", "log_var"], **way)
    proto, user, spec = imported_encoder(path, value_range=(-1, 1), std=(0.5, 1.0, 2.0))
    assert user.facts.latent_shape == (4, 8, 12)
    images = np.random.default_rng(1).random((5, 3, 32, 48), np.float32)
    found = run(proto, images)
    std = np.array([0.5, 1.0, 2.0], np.float32).reshape(-1, 1, 1)
    with torch.no_grad():
        mean, log_var = module(torch.from_numpy((2 * images - 1) / std))
    np.testing.assert_allclose(found["mu"], mean.flatten(1), atol=2e-5)
    np.testing.assert_allclose(found["log_var"], log_var.flatten(1), atol=2e-5)

    module = trained(SpatialDecoder())
    path = exported(module, tmp_path / "d.onnx", (4, 8, 12), ["sample"], **way)
    spec = spec.model_copy(update={"std": ()})
    proto = imported_decoder(path, spec)
    latents = np.random.default_rng(1).standard_normal((5, 384), np.float32)
    with torch.no_grad():
        image = module(torch.from_numpy(latents.reshape(5, 4, 8, 12)))
    found = run(proto, latents)
    np.testing.assert_allclose(found["reconstruction"], (image + 1) / 2, atol=2e-5)
    assert "Resize" in operators(proto)


@in_ways("opset 9", "opset 13, batch 1", "dynamo, opset 18")
def test_two_heads_of_a_small_network_in_its_flat_form(
    tmp_path: Path, way: dict[str, object]
) -> None:
    module = trained(MlpEncoder())
    path = exported(module, tmp_path / "e.onnx", (1, 28, 28), ["mu", "logvar"], **way)
    proto, user, spec = imported_encoder(path)
    assert user.facts.has_log_var
    images = np.random.default_rng(1).random((5, 1, 28, 28), np.float32)
    with torch.no_grad():
        mu, log_var = module(torch.from_numpy(images))
    found = run(proto, images)
    np.testing.assert_allclose(found["mu"], mu, atol=1e-5)
    np.testing.assert_allclose(found["log_var"], log_var, atol=1e-5)
    assert {"BatchNormalization", "Dropout"}.isdisjoint(operators(proto))

    module = trained(MlpDecoder())
    proto = imported_decoder(
        exported(module, tmp_path / "d.onnx", (10,), ["y"], **way), spec, gives="unit"
    )
    latents = np.random.default_rng(1).standard_normal((5, 10), np.float32)
    with torch.no_grad():
        image = module(torch.from_numpy(latents)).reshape(5, 1, 28, 28)
    np.testing.assert_allclose(run(proto, latents)["reconstruction"], image, atol=1e-5)


@in_ways("opset 9", "opset 17, unfolded", "dynamo, opset 20, batch 1")
def test_batch_norms_are_folded_where_a_layer_is_before_them(
    tmp_path: Path, way: dict[str, object]
) -> None:
    module = trained(BatchNorms())
    path = exported(module, tmp_path / "e.onnx", (3, 16, 16), ["z"], **way)
    proto, user, _ = imported_encoder(path)
    assert not user.facts.has_log_var
    images = np.random.default_rng(1).random((5, 3, 16, 16), np.float32)
    with torch.no_grad():
        mu = module(torch.from_numpy(images))
    np.testing.assert_allclose(run(proto, images)["mu"], mu, atol=1e-5)
    assert "BatchNormalization" not in operators(proto)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds[:3] == ["Mul", "Add", "Conv"]  # zeros around an image are not those before
    assert "Mul" not in kinds[3:5]


@in_ways("dynamo, opset 18", "dynamo, opset 20, batch 1", "dynamo, opset 23")
def test_attention_with_the_batch_as_second_axis(tmp_path: Path, way: dict[str, object]) -> None:
    module = trained(SequenceFirst())
    path = exported(module, tmp_path / "e.onnx", (1, 16, 24), ["latent"], **way)
    proto, _, _ = imported_encoder(path)
    images = np.random.default_rng(1).random((5, 1, 16, 24), np.float32)
    with torch.no_grad():
        mu = module(torch.from_numpy(images))
    np.testing.assert_allclose(run(proto, images)["mu"], mu, atol=1e-5)


@in_ways("opset 13, batch 1", "dynamo, opset 23")
def test_a_draw_beside_the_heads_is_left_out_and_said(
    tmp_path: Path, way: dict[str, object]
) -> None:
    path = exported(
        trained(SamplingEncoder()), tmp_path / "e.onnx", (1, 28, 28), ["z", "mu", "log_var"], **way
    )
    proto, user, _ = imported_encoder(path)
    assert not any(op.startswith("Random") for op in operators(proto))
    assert any("RandomNormalLike" in one for one in user.remarks), user.remarks
    assert any("outputs that are not used: z" in one for one in user.remarks)
    with pytest.raises(
        GraphError, match=r"draws random numbers, in RandomNormalLike.*mu="
    ) as caught:
        imported_encoder(path, outputs={"mu": "z"})
    mean = str(caught.value).partition("--outputs mu=")[2].partition(",")[0]
    assert imported_encoder(path, outputs={"mu": mean})[0].graph.output[0].name == "mu"


def test_moments_are_halved_where_the_caller_names_them(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["moments"], strides=[4, 4])]
    weight = np.random.default_rng(0).standard_normal((6, 3, 4, 4)).astype(np.float32)
    path = graph_file(
        tmp_path / "e.onnx",
        nodes,
        shape=("n", 3, 16, 8),
        outputs=["moments"],
        constants={"w": weight},
    )
    with pytest.raises(GraphError, match="--outputs moments=moments"):
        encoder_from_file(path)
    proto, user, _ = imported_encoder(path, outputs={"moments": "moments"})
    assert user.facts.latent_shape == (3, 4, 2)
    images = np.random.default_rng(1).random((2, 3, 16, 8), np.float32)
    whole = run(onnx.load(path), images)["moments"]
    found = run(proto, images)
    np.testing.assert_allclose(found["mu"], whole[:, :3].reshape(2, -1), atol=1e-5)
    np.testing.assert_allclose(found["log_var"], whole[:, 3:].reshape(2, -1), atol=1e-5)


def test_channels_last_as_other_frameworks_write_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["c"], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Transpose", ["c"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Shape", ["nhwc"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["nhwc", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["z_mean"]),
    ]
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "m": rng.standard_normal((4 * 8 * 5, 6)).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([-1]),
    }
    path = graph_file(
        tmp_path / "e.onnx",
        nodes,
        shape=("n", 16, 10, 3),
        outputs=["z_mean"],
        opset=13,
        constants=constants,
    )
    proto, user, _ = imported_encoder(path)
    assert user.facts.layout == "NHWC"
    images = rng.random((3, 3, 16, 10), np.float32)
    expected = run(onnx.load(path), np.ascontiguousarray(images.transpose(0, 2, 3, 1)))["z_mean"]
    np.testing.assert_allclose(run(proto, images)["mu"], expected, atol=1e-4)


def test_half_precision_becomes_float32_and_is_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
        helper.make_node("Tanh", ["d"], ["e"]),
        helper.make_node("Cast", ["e"], ["mu"], to=TensorProto.FLOAT16),
    ]
    weight = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float16)
    path = graph_file(
        tmp_path / "e.onnx",
        nodes,
        shape=("n", 1, 8, 8),
        constants={"w": weight},
        dtype=TensorProto.FLOAT16,
    )
    proto, user, _ = imported_encoder(path)
    assert "float16 weights and arithmetic became float32" in user.remarks
    assert {tensor.data_type for tensor in proto.graph.initializer} == {TensorProto.FLOAT, 7}


def test_images_that_change_each_other_are_refused(tmp_path: Path) -> None:
    """A mean over the batch is the same number where there is one image."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["h"]),
        helper.make_node("Reshape", ["h", "all"], ["row"]),
        helper.make_node("Softmax", ["row"], ["s"], axis=1),
        helper.make_node("Reshape", ["s", "back"], ["mu"]),
    ]
    constants = {
        "m": np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32),
        "all": np.array([1, -1]),
        "back": np.array([-1, 4]),
    }
    path = graph_file(tmp_path / "e.onnx", nodes, shape=("n", 1, 8, 8), constants=constants)
    with pytest.raises(GraphError, match="a Softmax does not take"):
        imported_encoder(path)


def test_a_form_that_gives_other_numbers_is_not_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is planted in a rule: half a batch norm."""
    from motorvae.export.onnx_import import lower_layers

    path = exported(
        trained(BatchNorms()),
        tmp_path / "e.onnx",
        (3, 16, 16),
        ["z"],
        dynamo=False,
        opset=17,
        constant_folding=False,
    )
    whole = lower_layers._scaled
    monkeypatch.setattr(
        lower_layers,
        "_scaled",
        lambda to, value, gain, offset, shape, name: whole(
            to, value, gain, offset * 1.01, shape, name=name
        ),
    )
    user = encoder_from_file(path)
    with pytest.raises(VerificationError, match="differs from the original's by"):
        normal_encoder(user, spec_of(user))
