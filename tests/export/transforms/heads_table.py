"""Encoders with a cheaper head, beside those of a bundle: bytes, time, and error of mu.

    heads_table.py BUNDLE PRUNED [--rounds 30] [--json FILE]

BUNDLE was exported with `--int8 onnx openvino`, PRUNED from the same run with `--prune-channels` as
well: the row of that option is its INT8 encoder, which the gate has passed.

The head is the matrix product behind the flattened features; `mu` alone is given. Ways: weights in
INT8 or INT4 with float32 or INT8 features (MatMulNBits of onnxruntime's contrib operators; for
OpenVINO DequantizeLinear of opset 21, with blocks), a head of lower rank (mu projected on its
first principal directions over images, in spreads), and fewer channels in front of it (those that
move mu least; their mean goes into the bias). Ranks and channels are chosen on 64 of the bundle's
verification images, and errors are over spreads of the float32 graph's mu, on the rest of them and
on 128 fresh vehicles. Calls are interleaved, at batch 1 on two threads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from motorvae.benchmarks.measure.rounds import RoundPlan, interleaved, stopwatch
from motorvae.export.verify.reference import reference_from_bundle
from motorvae.runtime.bundle.graph_key import GraphKey, Target
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.engines.base import Backend
from motorvae.runtime.engines.open import EngineRequest, open_file
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.dataset import reference_picture

THREADS, CALLS, CHOOSING, FRESH = 2, 5, 64, 128
RANKS, SHARES = (120, 96, 64), (0.9, 0.75, 0.5, 0.375, 0.25)
SEED = 90210  # of fresh vehicles; the model was trained on others

Floats = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Runs = dict[tuple[str, str], Callable[[], object]]


class Head:
    """One graph's matrix product, which a way replaces."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.node = next(node for node in self.graph.node if "mu" in node.output)
        self._made = {out: node for node in self.graph.node for out in node.output}
        self.constants = {one.name: one for one in self.graph.initializer}
        self.weight, self.bias = (self._constant(name) for name in self.node.input[1:3])
        self.features = self.node.input[0]
        source = self._made.get(self.features)
        while source is not None and source.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            self.features, source = source.input[0], self._made.get(source.input[0])

    def _constant(self, name: str) -> Floats:
        if name in self.constants:
            return numpy_helper.to_array(self.constants[name])
        numbers, scale, _ = (
            numpy_helper.to_array(self.constants[one]) for one in self._made[name].input
        )
        return (numbers.astype(np.float32).T * scale).T.astype(np.float32)

    def replaced(self, nodes: list[onnx.NodeProto], arrays: dict[str, Any]) -> bytes:
        """Return the graph with other nodes in the head's place, without what nothing reads."""
        nodes[-1].output[0] = "mu"
        self.graph.node.remove(self.node)
        self.graph.node.extend(nodes)
        for name, array in arrays.items():
            one = array if isinstance(array, TensorProto) else numpy_helper.from_array(array, name)
            self.graph.initializer.append(one)
        while True:
            read = {name for node in self.graph.node for name in node.input} | {"mu"}
            dead = [node for node in self.graph.node if not read.intersection(node.output)]
            for node in dead:
                self.graph.node.remove(node)
            if not dead:
                break
        kept = [one for one in self.graph.initializer if one.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        return self.model.SerializeToString()


def blocks_of(weight: Floats, bits: int, block: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Return symmetric levels (N, K) and scales (N, K / block), the end with most room."""
    top = 2 ** (bits - 1)
    parts = weight.reshape(len(weight), -1, block)
    ends = np.take_along_axis(parts, np.abs(parts).argmax(axis=2)[..., None], axis=2)[..., 0]
    scales = np.where(ends == 0, 1, ends / -top).astype(np.float32)
    levels = np.clip(np.rint(parts / scales[..., None]), -top, top - 1).astype(np.int8)
    return levels.reshape(weight.shape), scales


def lost_of(weight: Floats, levels: npt.NDArray[np.int8], scales: Floats) -> Floats:
    """Return what of weights the levels do not hold; its mean effect goes into the bias."""
    kept = levels.reshape(*scales.shape, -1) * scales[..., None]
    return weight - kept.reshape(weight.shape)


def in_onnx(head: Head, mean: Floats, bits: int, block: int, accuracy: int) -> bytes:
    """MatMulNBits: features (N, K) float32, levels packed low half first; accuracy 4 is INT8."""
    levels, scales = blocks_of(head.weight, bits, block)
    bias = head.bias + lost_of(head.weight, levels, scales) @ mean
    raised = (levels.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    raised = raised.reshape(len(levels), -1, block)
    packed = raised if bits == 8 else raised[..., ::2] | raised[..., 1::2] << 4
    outputs, inputs = head.weight.shape
    facts = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    product = helper.make_node(
        "MatMulNBits",
        [head.features, "B", "scales"],
        ["raw"],
        domain="com.microsoft",
        accuracy_level=accuracy,
        **facts,
    )
    head.model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    arrays = {"B": packed, "scales": scales, "bias_": bias}
    return head.replaced([product, helper.make_node("Add", ["raw", "bias_"], [""])], arrays)


def in_openvino(head: Head, mean: Floats, bits: int, block: int | None) -> bytes:
    """DequantizeLinear of INT8 or INT4 constants in front of the product, as weights are kept."""
    levels, scales = blocks_of(head.weight, bits, block or head.weight.shape[1])
    bias = head.bias + lost_of(head.weight, levels, scales) @ mean
    head.model.opset_import[0].version = 21
    numbers: Any = levels
    if bits == 4:
        low = levels.reshape(-1).astype(np.uint8) & 15
        packed = (low[::2] | low[1::2] << 4).tobytes()
        numbers = TensorProto(
            name="levels", data_type=TensorProto.INT4, dims=levels.shape, raw_data=packed
        )
    facts = {"axis": 1, "block_size": block} if block else {"axis": 0}
    whole = helper.make_node("DequantizeLinear", ["levels", "scales"], ["W"], **facts)
    product = helper.make_node("Gemm", [head.features, "W", "bias_"], [""], transB=1)
    kept = {"levels": numbers, "scales": scales if block else scales[:, 0], "bias_": bias}
    return head.replaced([whole, product], kept)


def low_rank(head: Head, directions: Floats, scale: Floats, mean: Floats) -> bytes:
    """mu = mean + S V V' S^-1 (W x + b - mean), the inner product with few rows."""
    inner = (directions.T / scale) @ head.weight
    outer = scale[:, None] * directions
    offset = (directions.T / scale) @ (head.bias - mean)
    nodes = [
        helper.make_node("Gemm", [head.features, "inner", "offset"], ["few"], transB=1),
        helper.make_node("Gemm", ["few", "outer", "mean_"], [""], transB=1),
    ]
    arrays = {"inner": inner, "outer": outer, "offset": offset, "mean_": mean}
    return head.replaced(nodes, {name: one.astype(np.float32) for name, one in arrays.items()})


def fewer_channels(head: Head, kept: npt.NDArray[np.intp], means: Floats) -> bytes:
    """Leave channels of the last convolution out; the mean of what they gave goes to the bias."""
    conv = [node for node in head.graph.node if node.op_type == "Conv"][-1]
    for name in conv.input[1:3]:
        array = numpy_helper.to_array(head.constants[name])[kept]
        head.constants[name].CopyFrom(numpy_helper.from_array(array, name))
    channels = len(means)
    parts = head.weight.reshape(len(head.weight), channels, -1)
    gone = np.setdiff1d(np.arange(channels), kept)
    bias = head.bias + np.einsum("och,ch->o", parts[:, gone], means[gone])
    reshape = next(node for node in head.graph.node if head.node.input[0] in node.output)
    size = np.array([-1, parts[:, kept][0].size], np.int64)
    head.constants[reshape.input[1]].CopyFrom(numpy_helper.from_array(size, reshape.input[1]))
    del head.graph.value_info[:]
    weight = parts[:, kept].reshape(len(head.weight), -1)
    product = helper.make_node("Gemm", [head.features, "W", "bias_"], [""], transB=1)
    return head.replaced([product], {"W": weight, "bias_": bias.astype(np.float32)})


def features_of(whole: bytes, images: Images) -> Floats:
    """Return (N, K) of what the head reads."""
    head = Head(onnx.load_from_string(whole))
    nodes = [helper.make_node("Identity", [head.features], ["mu"])]
    data = head.replaced(nodes, {})
    model = onnx.load_from_string(data)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = head.weight.shape[1]
    with opened(model.SerializeToString(), "onnx") as backend:
        return np.concatenate([backend.run(image[None, None])["mu"] for image in images])


@contextlib.contextmanager
def opened(data: bytes, engine: Any, precision: Any = "fp32") -> Iterator[Backend]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(data)
        request = EngineRequest(engine, precision=precision, threads=THREADS)
        with open_file(path, request) as backend:
            yield backend


def ways_of(
    bundle: Bundle, pruned: Bundle, images: Images, scale: Floats
) -> dict[tuple[str, str], bytes]:
    """Return every graph by its engine and what it is."""
    fp32 = bundle.content(bundle.entry(GraphKey("encoder", "fp32", "mu")))
    features = features_of(fp32, images)
    first = Head(onnx.load_from_string(fp32))
    channels = numpy_helper.to_array(
        first.constants[[node for node in first.graph.node if node.op_type == "Conv"][-1].input[1]]
    ).shape[0]
    mu = features @ first.weight.T + first.bias
    mean = mu.mean(axis=0)
    _, _, directions = np.linalg.svd((mu - mean) / scale, full_matrices=True)
    means = features.mean(axis=0).reshape(channels, -1)
    away = (features - features.mean(axis=0)).reshape(len(images), channels, -1)
    parts = first.weight.reshape(len(first.weight), channels, -1)
    moved = np.stack([((away[:, c] @ parts[:, c].T / scale) ** 2).mean() for c in range(channels)])
    order = np.argsort(moved)[::-1]

    def head(data: bytes = fp32) -> Head:
        return Head(onnx.load_from_string(data))

    found: dict[tuple[str, str], bytes] = {}
    engines: tuple[Target, ...] = ("onnx", "openvino")
    for engine in engines:
        int8 = bundle.content(bundle.entry(GraphKey("encoder", "int8", "mu", engine)))
        bases = {"float32": fp32, "int8": int8}
        for name, base in bases.items():
            found[engine, name] = base
            seen = features.mean(axis=0) if base is fp32 else features_of(base, images).mean(axis=0)
            if engine == "onnx":
                for bits, block, accuracy in ((8, 128, 4), (4, 128, 4), (4, 32, 4), (4, 32, 1)):
                    kind = "int8" if accuracy == 4 else "float32"
                    title = f"{name}, int{bits} head by {block}, {kind} features"
                    found[engine, title] = in_onnx(head(base), seen, bits, block, accuracy)
            else:
                for bits, block in ((8, None), (4, 128), (4, 32)):
                    title = f"{name}, int{bits} head by {block or 'row'}"
                    found[engine, title] = in_openvino(head(base), seen, bits, block)
        for rank in RANKS:
            made = low_rank(head(), directions[:rank].T, scale, mean)
            found[engine, f"float32, head of rank {rank}"] = made
        for share in SHARES:
            kept = np.sort(order[: round(share * channels)])
            made = fewer_channels(head(), kept, means)
            found[engine, f"float32, {len(kept)} of {channels} channels"] = made
        pruned_key = GraphKey("encoder", "int8", "mu", engine)
        found[engine, "int8, --prune-channels"] = pruned.content(pruned.entry(pruned_key))
    return found


def timed(runs: Runs, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Return milliseconds of each, in turn; the first call of a turn finds cold caches: no part."""
    laps = {key: stopwatch(run, "run") for key, run in runs.items()}
    plan = RoundPlan(samples=rounds * CALLS, warmup=0, settle=1, turn=CALLS)
    return {
        key: [ns / 1e6 for ns in all_ns["run"]] for key, all_ns in interleaved(laps, plan).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pruned", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bundle, pruned = load_bundle(given.bundle), load_bundle(given.pruned)
    if bundle.manifest.weights_sha256 != pruned.manifest.weights_sha256:
        raise SystemExit(f"{given.bundle} and {given.pruned} are of different weights")
    reference, spec = reference_from_bundle(bundle), bundle.spec
    if (count := len(reference.images)) <= CHOOSING:
        raise SystemExit(f"{given.bundle} has {count} verification images: {CHOOSING} only choose")
    scale = np.asarray(reference.scale, np.float32)
    fresh = np.stack(
        [reference_picture(vehicle(SEED, n, spec.image_size)[0], spec) for n in range(FRESH)]
    )
    judged = {"verification": reference.images[CHOOSING:], "fresh": fresh}
    rows: list[dict[str, Any]] = []
    runs: Runs = {}
    true: dict[str, Floats] = {}
    with contextlib.ExitStack() as stack:
        for key, data in ways_of(bundle, pruned, reference.images[:CHOOSING], scale).items():
            row: dict[str, Any] = {"engine": key[0], "way": key[1], "bytes": len(data)}
            rows.append(row)
            try:
                precision = "int8" if key[1].startswith("int8") else "fp32"
                backend = stack.enter_context(opened(data, key[0], precision))
                for name, images in judged.items():
                    mu = np.concatenate([backend.run(image[None, None])["mu"] for image in images])
                    error = np.abs(mu - true.setdefault(name, mu)) / scale
                    error = error[:, reference.judged_units]
                    row[name] = [float(error.max()), float(np.sqrt((error**2).mean()))]
            except MotorVAEError as refused:
                row["refused"] = str(refused)[:200]
                continue
            image = fresh[:1, None]
            runs[key] = lambda backend=backend, image=image: backend.run(image)  # type: ignore[misc]
        samples = timed(runs, given.rounds)
    weight = np.ones((spec.latent_size, spec.flat_size), np.float32)
    reading = timed({("numpy", "matrix"): lambda: weight @ weight[0]}, given.rounds)
    read_ms = statistics.median(reading["numpy", "matrix"])
    rate = weight.nbytes / read_ms / 1e6
    print(f"reading {weight.nbytes / 1e6:.1f} MB: {read_ms:.2f} ms, {rate:.1f} GB/s")
    print("| engine | encoder | MB | p50 ms | of its own | largest, RMS error | fresh |")
    for row in rows:
        key = row["engine"], row["way"]
        if key not in samples:
            print(f"| {key[0]} | {key[1]} | {row['bytes'] / 1e6:.1f} | refused: {row['refused']}")
            continue
        base = key[0], key[1].partition(",")[0]
        p50, own = (statistics.median(samples[one]) for one in (key, base))
        row |= {"p50_ms": p50, "min_ms": min(samples[key]), "of_own": p50 / own}
        errors = " | ".join(f"{row[name][0]:.3f}, {row[name][1]:.3f}" for name in judged)
        times = f"{row['bytes'] / 1e6:.1f} | {p50:.2f} | {p50 / own:.2f}"
        print(f"| {key[0]} | {key[1]} | {times} | {errors} |")
    if given.json:
        given.json.write_text(json.dumps({"read_ms": read_ms, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
