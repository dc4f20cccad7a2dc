"""One graph of a bundle as an MLflow model, with its signature and the hash of its weights.

    pip install motorvae mlflow-skinny pandas onnx onnxruntime
    python docs/examples/mlflow_model.py BUNDLE FOLDER

FOLDER is what MLflow's registry, `mlflow models serve` and KServe's MLflow runtime take. The bundle
is checked first, as whoever opens it does; the model is then loaded once, and held against the
bundle's own encoder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow.onnx
import mlflow.pyfunc
import numpy as np
import onnx
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from motorvae.runtime.bundle.graph_key import BATCH, GraphKey, Tensor
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines.open import EngineRequest, open_engine


def main(source: Path, target: Path) -> int:
    """Write the float32 encoder of a bundle as an MLflow model; return the exit code."""
    bundle = load_bundle(source)
    entry = bundle.entry(GraphKey("encoder"))
    manifest = bundle.manifest
    mlflow.onnx.save_model(
        onnx.load_from_string(bundle.content(entry)),
        str(target),
        signature=ModelSignature(schema_of(entry.inputs), schema_of(entry.outputs)),
        metadata={
            "weights_sha256": manifest.weights_sha256,
            "graph_sha256": entry.sha256,
            "model": manifest.model.model_dump_json(),
            "preprocessing": manifest.preprocessing.model_dump_json(),
        },
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    image = np.random.default_rng(1).random((3, *bundle.spec.input_shape), np.float32)
    found = mlflow.pyfunc.load_model(str(target)).predict({"image": image})
    with open_engine(bundle, entry.key, EngineRequest(backend="onnx")) as engine:
        expected = engine.run(image)
    for name, values in expected.items():
        print(f"{name}: largest difference {np.abs(found[name] - values).max():.1e}")
    return 0


def schema_of(tensors: tuple[Tensor, ...]) -> Schema:
    """Return what MLflow checks of a graph's inputs, or outputs."""
    return Schema(
        [
            TensorSpec(
                np.dtype(one.dtype), tuple(-1 if it == BATCH else it for it in one.shape), one.name
            )
            for one in tensors
        ]
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
