"""readme_text: the page that lies beside the models, for whoever finds them on a server."""

from __future__ import annotations

from .manifest import REPOSITORY_MANIFEST, ModelEntry, RepositoryManifest

README = "README.md"

_NEEDS = {
    "onnxruntime": (
        "The graphs have ONNX's IR version 10, which Triton 24.07 and newer read. CUDA is asked to "
        "keep float32 (`use_tf32` is 0)."
    ),
    "openvino": (
        "Triton's OpenVINO backend cannot be told to keep float32: on processors with AMX it "
        "computes float32 graphs in bf16. What bf16 does to these latents `--bf16` and "
        "`--triton-precision bf16` verify."
    ),
    "tensorrt": (
        "A plan runs on the GPU and the version of TensorRT that it was built with, and on no "
        "other. It is a program to the server: serve none of unknown origin."
    ),
}


def readme_text(manifest: RepositoryManifest) -> str:
    """Return a page in Markdown: the models, what they take, where they come from, what was run."""
    rows = "".join(_row(one) for one in manifest.models)
    notes = [f"{one.name}: {note}" for one in manifest.models for note in one.notes]
    listed = "".join(f"- {note}\n" for note in (*notes, *manifest.notes))
    spec, preprocessing = manifest.model, manifest.preprocessing
    levels = preprocessing.luma or f"colours as {preprocessing.planes}"
    return f"""# Models of a motorVAE for Triton Inference Server

Written by {manifest.producer} on {manifest.created}, for the backend {manifest.platform}, in \
{manifest.precision}.

| model | takes | gives | most per run |
| --- | --- | --- | --- |
{rows}
Weights: sha256 `{manifest.weights_sha256}`. Manifest of the bundle: sha256 \
`{manifest.manifest_sha256}`.

{_NEEDS[manifest.platform]}

## How a picture becomes `image`

{levels}; crop {preprocessing.crop}; fit: {preprocessing.fit}; resize: {preprocessing.resize}; to \
{spec.width} x {spec.height} pixels. A float32 `image` is that times 1/255, an uint8 one the \
levels themselves. Models that take a `frame` do all of it. Each model's configuration says the \
same to clients: `GET /v2/models/NAME/config`, under `parameters`.

## What was verified

{_verified(manifest)}
Triton itself was no part of that. `{REPOSITORY_MANIFEST}` has all figures, and the sha256 of each \
file.
{chr(10) if listed else ""}{listed}"""


def _row(entry: ModelEntry) -> str:
    takes, gives = (
        ", ".join(f"`{one.name}` {one.dtype} {_shape(one.shape[1:])}" for one in tensors)
        for tensors in (entry.inputs, entry.outputs)
    )
    frame = f" ({entry.frame})" if entry.frame else ""
    most = entry.max_batch_size or "one request"
    return f"| {entry.name} | {takes}{frame} | {gives} | {most} |\n"


def _shape(sizes: tuple[int | str, ...]) -> str:
    return " x ".join(map(str, sizes))


def _verified(manifest: RepositoryManifest) -> str:
    lines = []
    for entry in manifest.models:
        if entry.steps:
            lines.append(f"- {entry.name}: {' and '.join(entry.steps)} in turn\n")
            continue
        engines = sorted({report.engine for report in entry.verification})
        images = max((report.images for report in entry.verification), default=0)
        said = f"in {', '.join(engines)}, on up to {images} images" if engines else "not verified"
        lines.append(f"- {entry.name} ({entry.graph}): {said}\n")
    return "".join(lines)
