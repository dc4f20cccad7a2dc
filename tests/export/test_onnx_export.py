from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from motorvae.export.onnx_export import OPSET, onnx_from_model
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import open_file
from motorvae.training.model import MotorVAE

from .conftest import SPEC, model_with_statistics

RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_graph_has_the_contract_s_face_and_no_batch_norm(
    graph: Part, graphs: dict[Part, bytes]
) -> None:
    proto = onnx.load_from_string(graphs[graph])
    inputs, outputs = GraphKey(graph).inputs(SPEC), GraphKey(graph).outputs(SPEC)
    assert [value.name for value in proto.graph.input] == [tensor.name for tensor in inputs]
    assert [value.name for value in proto.graph.output] == [tensor.name for tensor in outputs]
    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_param == "batch"
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
    kinds = {node.op_type for node in proto.graph.node}
    assert "BatchNormalization" not in kinds
    assert not kinds & RANDOM_OPS


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_same_weights_give_the_same_bytes(graph: Part, graphs: dict[Part, bytes]) -> None:
    again = ir.to_proto(onnx_from_model(model_with_statistics(SPEC), SPEC, graph))
    digest = hashlib.sha256(again.SerializeToString()).hexdigest()
    assert digest == hashlib.sha256(graphs[graph]).hexdigest()
    other = ir.to_proto(onnx_from_model(model_with_statistics(SPEC, seed=1), SPEC, graph))
    assert hashlib.sha256(other.SerializeToString()).hexdigest() != digest


EXPORT = """
import hashlib, onnx_ir as ir
from motorvae.export.onnx_export import onnx_from_model
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.model import MotorVAE
import torch
torch.manual_seed(0)
spec = ModelSpec(image_size=32, channels=(4, 8), latent_size=3)
model = MotorVAE(spec).eval()
for graph in ("encoder", "decoder"):
    data = ir.to_proto(onnx_from_model(model, spec, graph)).SerializeToString()
    print(hashlib.sha256(data).hexdigest())
"""


def test_same_weights_give_the_same_bytes_in_another_process() -> None:
    """Two processes, each with its own order of everything that is hashed."""
    printed = [
        subprocess.run(
            [sys.executable, "-c", EXPORT],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert len(printed[0].split()) == 2
    assert printed[0] == printed[1]


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
def test_graph_says_nothing_of_the_machine_it_came_from(
    graph: Part, graphs: dict[Part, bytes]
) -> None:
    data = graphs[graph]
    here = Path(__file__).resolve().parents[2]
    for trace in (str(here), str(Path(torch.__file__).parent), "stack_trace", ".py"):
        assert trace.encode() not in data, trace


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_graphs_agree_with_torch_at_any_batch_size(
    batch: int, graphs: dict[Part, bytes], model: MotorVAE, tmp_path: Path
) -> None:
    images = np.random.default_rng(batch).random((batch, 1, 32, 32), np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images))
    for graph, batch_in in (("encoder", images), ("decoder", expected.mu.numpy())):
        path = tmp_path / f"{graph}.onnx"
        path.write_bytes(graphs[graph])
        with open_file(path) as backend:
            for name, found in backend.run(batch_in).items():
                np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec(image_size=64, channels=(4, 8, 8), latent_size=3),
        ModelSpec(image_size=96, channels=(6,), latent_size=5),
    ],
    ids=str,
)
def test_other_sizes_export_too(spec: ModelSpec, tmp_path: Path) -> None:
    model = model_with_statistics(spec)
    for graph in ("encoder", "decoder"):
        path = tmp_path / f"{graph}.onnx"
        ir.save(onnx_from_model(model, spec, graph), path)
        onnx.checker.check_model(path, full_check=True)
        with open_file(path) as backend:
            backend.check_tensors(GraphKey(graph).inputs(spec), GraphKey(graph).outputs(spec))


@pytest.mark.parametrize("channels", [(1,), (4, 8)])
def test_a_model_as_it_trains_is_exported_by_torchs_own_operators(
    channels: tuple[int, ...],
) -> None:
    """Weights of one channel are channels last however they lie."""
    spec = ModelSpec(image_size=32, channels=channels, latent_size=3)
    model = MotorVAE(spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    kinds = {node.op_type for node in onnx_from_model(model.eval(), spec, "decoder").graph}
    assert kinds == {"Gemm", "Reshape", "ConvTranspose", "LeakyRelu", "Conv", "Sigmoid"}
