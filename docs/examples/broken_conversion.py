"""An FP16 conversion that np.allclose passes and motorvae verify refuses.

The encoder is a linear autoencoder's: principal components of drawn vehicles, each latent a mean
over pixels of 0 to 255. Its weights are therefore around 1e-6, where FP16 has steps of 6e-8, and
any converter rounds them to those. The latents are as small, so that their errors stay below the
usual absolute tolerances. With the 1/255 as a node of its own the weights are in FP16's range.

    python docs/examples/broken_conversion.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import motorvae as mv
from motorvae.runtime.sources.synthetic.vehicles import vehicle

SIDE, LATENTS, IMAGES = 64, 64, 160
WHITE = 255
Floats = npt.NDArray[np.floating[Any]]


def main(folder: Path) -> int:
    """Write two graphs and a folder of images, and compare the graphs both ways."""
    photos = folder / "images"
    photos.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([vehicle(7, index, SIDE)[0] for index in range(2 * IMAGES)])
    for index, image in enumerate(pixels[IMAGES:]):  # those that the components are not made of
        cv2.imwrite(str(photos / f"{index:03d}.png"), image)
    data = pixels[:IMAGES].reshape(IMAGES, -1).astype(np.float64)
    components = np.linalg.svd(data - data.mean(axis=0), full_matrices=False)[2][:LATENTS]
    weights = components / SIDE
    bias = -weights @ data.mean(axis=0) / WHITE
    folded, half = weights / WHITE, np.float16
    reference = write_graph(folder / "encoder.onnx", folded, bias)
    candidate = write_graph(folder / "encoder.fp16.onnx", folded, bias, half)
    scaled = write_graph(folder / "scaled.fp16.onnx", weights, bias, half, factor=1 / WHITE)

    # The usual check, on the very images that the gate gets.
    luma = np.stack(
        [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(photos.iterdir())]
    )
    one, other = (run(path, luma[:, None].astype(np.float32)) for path in (reference, candidate))
    print("np.allclose, rtol=1e-3, atol=1e-3:", np.allclose(other, one, rtol=1e-3, atol=1e-3))
    error, spread = np.abs(other - one), one.std(axis=0)
    print(f"largest error {error.max():.1e}; spreads {spread.min():.1e} to {spread.max():.1e}")

    results = [
        mv.verify(reference, one, photos, value_range=(0, WHITE)) for one in (candidate, scaled)
    ]
    for result in results:
        print("motorvae verify:", result.verdict)
    return 0 if [result.passed for result in results] == [False, True] else 1


def write_graph(
    path: Path,
    weights: Floats,
    bias: Floats,
    dtype: type[np.floating[Any]] = np.float32,
    *,
    factor: float = 1.0,
) -> Path:
    """Write mu = weights (D, S x S) times the flat image, times a factor, plus bias (D,)."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=kind),
        helper.make_node("Mul", ["pixels", "factor"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["latent"], transB=1),
        helper.make_node("Cast", ["latent"], ["mu"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("mu", TensorProto.FLOAT, ["batch", len(bias)])],
        [
            numpy_helper.from_array(weights.astype(dtype), "weights"),
            numpy_helper.from_array(bias.astype(dtype), "bias"),
            numpy_helper.from_array(np.asarray(factor, dtype), "factor"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def run(path: Path, images: Floats) -> Floats:
    """Return mu (N, D) of images (N, 1, S, S)."""
    import onnxruntime  # noqa: PLC0415  # motorvae has told it to send nothing by now

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["mu"], {"image": images})[0])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "broken-conversion")))
