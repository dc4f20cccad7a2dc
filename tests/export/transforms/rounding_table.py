"""How far FP16 encoders are off on fresh images, by how their weights were rounded.

    python tests/export/transforms/rounding_table.py OUT BUNDLE,FRESH[,FRESH ...] [...]

FRESH is a folder of images that the bundle's model has never seen, or `vehicles:SEED`. Weights
rounded to the nearest are compared with those rounded together by the bundle's held-out images,
once as ONNX Runtime runs an FP16 graph on a CPU, values inside being float32, and once with every
value inside rounded to FP16 as on a GPU. OUT is a JSON file that keeps every figure; a bundle that
it has is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from motorvae.export.transforms.fp16 import fp16_from_fp32
from motorvae.export.transforms.graph_ops import constant, typed_node
from motorvae.export.transforms.node_names import name_nodes
from motorvae.export.transforms.rounding import InputMoments, Rounded, weights_rounded_together
from motorvae.export.transforms.values_inside import opened_with_values
from motorvae.export.verify.batches import run_in_batches
from motorvae.export.verify.reference import Reference, reference_from_bundle
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import GraphFile, open_engine
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.pixels.files.image_files import luma_from_file
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.dataset import reference_picture

FULL, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
SPLIT = 2.0**13 + 1
"""x * SPLIT - (x * SPLIT - x) is x rounded to 11 bits (Dekker 1971), as many as FP16 has."""

Floats = npt.NDArray[np.floating[Any]]
Facts = dict[str, Any]


def images_from(source: str, spec: ModelSpec, count: int) -> npt.NDArray[np.uint8]:
    """Return up to `count` pictures, (N, H, W) luma."""
    name, _, seed = source.partition(":")
    if name == "vehicles":
        pictures = [vehicle(int(seed), row, spec.image_size)[0] for row in range(count)]
    else:
        pictures = [luma_from_file(path) for path in sorted(Path(source).rglob("*.*"))[:count]]
    return np.stack([reference_picture(picture, spec) for picture in pictures])


def emulated(model: ir.Model) -> ir.Model:
    """Return an FP16 graph in float32, with every value inside rounded to FP16.

    ONNX Runtime drops the rounding between layers that it computes in float32 on a CPU.
    """
    graph = model.graph
    for value in graph.initializers.values():
        if value.dtype == HALF:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32))
            value.dtype = FULL
    split = constant(graph, "split", np.array(SPLIT, np.float32))
    for node in list(graph):
        if node.op_type == "Cast" and node.attributes["to"].as_int() == HALF:
            node.attributes["to"] = ir.AttrInt64("to", int(FULL))
        for value in node.outputs:
            if value.dtype != HALF:
                continue
            value.dtype = FULL
            uses = list(value.uses())
            trio: list[ir.Node] = []
            for op, operands in (("Mul", (value, split)), ("Sub", ()), ("Sub", ())):
                before = [one.outputs[0] for one in trio]
                given = operands or (before[0], [value, *before[1:]][-1])
                name = f"{value.name}_rounded{len(trio)}"
                trio.append(typed_node(op, given, name, shape=value.shape))
            for use in uses:
                use.node.replace_input_with(use.idx, trio[-1].outputs[0])
            graph.insert_after(node, trio)
    return model


def mu_of(model: ir.Model, images: npt.NDArray[np.uint8], spec: ModelSpec) -> Floats:
    """Run a graph in ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        ir.save(model, path)
        with open_engine(GraphFile(path, spec), GraphKey("encoder")) as backend:
            return run_in_batches(backend, input_from_pixels(images[:, None]))["mu"]


def figures_of(found: Floats, true: Floats, reference: Reference) -> dict[str, float]:
    """Return errors of mu in spreads, as the gate has them, of (N, D) latents."""
    error = (found.astype(np.float64) - true) / reference.scale
    error = error[:, reference.judged_units]
    figures = {
        "largest": np.abs(error).max(),
        "rms": np.sqrt(np.mean(error**2)),
        "largest_mean": np.abs(error.mean(axis=0)).max(),  # the shift of the worst unit
    }
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def facts_of(bundle: Bundle, sources: Sequence[str], count: int) -> Facts:
    """Measure a bundle's FP16 encoder and one rounded to the nearest on every source of images."""
    reference, spec = reference_from_bundle(bundle), bundle.spec
    full = ir.load(bundle.path(bundle.entry(GraphKey("encoder"))))
    name_nodes(full)
    with tempfile.TemporaryDirectory() as folder, opened_with_values(full, Path(folder)) as engine:
        moments = InputMoments(full, engine)
        for one in Verifier(reference).single_inputs(GraphKey("encoder")):
            moments.run(one)
        rounded: dict[str, Rounded] = {
            "nearest": {},
            "together": weights_rounded_together(full, moments),
        }

    def graph(way: str) -> ir.Model:
        model = ir.from_proto(ir.to_proto(full))  # a clone would share types
        fp16_from_fp32(model, rounded=rounded[way])
        return model

    facts: Facts = {}
    for source in sources:
        images = images_from(source, spec, count)
        true = mu_of(full, images, spec)
        of_source: Facts = {"images": len(images)}
        for way in rounded:
            alone = mu_of(graph(way), images, spec)
            halves = mu_of(emulated(graph(way)), images, spec)
            # Below its normal numbers FP16 has fewer bits than SPLIT leaves.
            if (
                np.abs(halves.astype(np.float16) - halves) > np.finfo(np.float16).smallest_subnormal
            ).any():
                raise SystemExit(f"{bundle.folder}: mu was not rounded to FP16")
            of_source[way] = {
                "weights": figures_of(alone, true, reference),
                "all": figures_of(halves, true, reference),
            }
        facts[Path(source).name] = of_source
    return facts


def table(document: Facts) -> str:
    """Return all results in Markdown."""
    lines = [
        "| model | fresh images | weights alone: nearest, together | ratio of RMS "
        "| all of FP16: nearest, together | ratio of RMS |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for model, sources in document.items():
        for source, facts in sources.items():
            cells = []
            for part in ("weights", "all"):
                one, other = (facts[way][part] for way in ("nearest", "together"))
                pair = (f"{of['largest']:.4f} ({of['rms']:.5f})" for of in (one, other))
                cells += [", ".join(pair), f"{other['rms'] / one['rms']:.2f}"]
            lines.append(f"| {model} | {source} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what the file lacks, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE,FRESH[,FRESH ...]")
    parser.add_argument("--count", type=int, default=256)
    asked = parser.parse_intermixed_args()
    document: Facts = {}
    if asked.out.exists():
        document = json.loads(asked.out.read_text(encoding="utf-8"))
    for text in asked.bundles:
        path, *sources = text.split(",")
        kept = document.get(Path(path).name)
        if kept is not None and (
            {*kept} != {Path(source).name for source in sources}
            or any(one["images"] > asked.count for one in kept.values())
        ):
            raise SystemExit(f"{asked.out} has {path} on other images: name another file")
        if kept is None:
            document[Path(path).name] = facts_of(load_bundle(Path(path)), sources, asked.count)
            asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document))


if __name__ == "__main__":
    main()
