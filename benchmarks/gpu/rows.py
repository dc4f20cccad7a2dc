"""The rows of motorvae-doctor gpu: which there are, and timing one with every output gated."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from ...export.verify.reference import Reference
from ...export.verify.verifier import Verifier
from ...runtime.bundle.graph_key import GraphKey, Precision, Tensor, Variant
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphEntry, GraphReport
from ...runtime.core.closing import Closing
from ...runtime.core.errors import BackendError, MeasurementError
from ...runtime.core.latency import NS_PER_MS
from ...runtime.engines.base import Arrays, Backend, Batch
from ...runtime.engines.tensorrt.package import TENSORRT_PACKAGES, title_of
from ...runtime.pixels.convert import input_from_luma
from ..measure.samples import warnings_of
from .result import Row, Stage, samples_ns_of, series_of_ms

WARMUP = 50
"""Untimed runs of each row: kernels are loaded, a graph is recorded, and the clocks go up."""

ONNX, TORCH = "ONNX Runtime CUDA", "torch CUDA"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
ONNX_FORMS: tuple[Variant, ...] = ("full", "luma", "mu")
"""The contract's graph, and the leaner ones that streams take: with both outputs, with `mu`."""
NOT_REACHED = "not reached: the command ended before it"


class Timeable(Backend, Protocol):
    """A backend that can repeat its last run between events of the GPU's clock."""

    def repeat_timed(self) -> Mapping[str, float]:
        """Return milliseconds by stage; see `TensorRTBackend.repeat_timed`."""
        ...


class OneByOne(Closing):
    """Runs a batch image by image and times each: the gate sees the very runs that were timed.

    Args:
        backend: What runs; stays open.
        repeat: Its `repeat_timed`, called after each timed run, or None where it has none.

    Attributes:
        samples_ms: Milliseconds by stage, in the order in which they were taken.
    """

    def __init__(
        self, backend: Backend, repeat: Callable[[], Mapping[str, float]] | None = None
    ) -> None:
        self.name, self.notes = backend.name, backend.notes
        self.input_dtype, self.outputs = backend.input_dtype, backend.outputs
        self.threads = backend.threads
        self.samples_ms: dict[Stage, list[float]] = {}
        self._backend, self._repeat = backend, repeat

    def run(self, batch: Batch) -> Arrays:
        """Run and time each image; see `Backend.run`."""
        parts = []
        for place in range(len(batch)):
            begin_ns = time.monotonic_ns()
            parts.append(self._backend.run(batch[place : place + 1]))
            self._keep("wall", (time.monotonic_ns() - begin_ns) / NS_PER_MS)
            for stage, milliseconds in self._repeat().items() if self._repeat else ():
                self._keep(cast("Stage", stage), milliseconds)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def check_tensors(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Ask the backend; see `Backend.check_tensors`."""
        self._backend.check_tensors(inputs, outputs)

    def close(self) -> None:
        """Do nothing: whoever opened the backend closes it."""

    def _keep(self, stage: Stage, milliseconds: float) -> None:
        self.samples_ms.setdefault(stage, []).append(milliseconds)


def planned_rows() -> tuple[Row, ...]:
    """Return every row that there can be, none of them reached."""
    rows = [
        Row(
            engine=ONNX,
            precision=precision,
            form=form,
            spin="engine's own",
            transfers="engine's own",
            reason=NOT_REACHED,
        )
        for precision in PRECISIONS
        for form in ONNX_FORMS
    ]
    for package in TENSORRT_PACKAGES:
        for precision in PRECISIONS:
            plain = Row(engine=title_of(package), precision=precision, reason=NOT_REACHED)
            graph = "left to the engine" if package == "tensorrt-rtx" else "copies and kernels"
            rows += [plain, plain.model_copy(update={"graph": graph})]
    torch = Row(engine=TORCH, precision="fp16", graph="kernels", reason=NOT_REACHED)
    return (*rows, torch)


def encoder_of_row(bundle: Bundle, row: Row) -> GraphEntry:
    """Return the encoder that a row of ONNX Runtime's is about.

    Raises:
        BundleError: The bundle has no encoder of this precision for ONNX Runtime.
        MeasurementError: It has, and none of this form.
    """
    key = GraphKey("encoder", row.precision, row.form)
    for entry in bundle.manifest.graphs:
        if entry.key in {key, replace(key, target="onnx")}:
            return entry
    leanest = bundle.leanest(replace(key, target="onnx"))  # refuses by the name users know
    raise MeasurementError(
        f"the bundle has no encoder of this form; its leanest in {row.precision} is {leanest.title}"
    )


def decoder_gate(
    open_entry: Callable[[GraphEntry], Backend],
    bundle: Bundle,
    precision: Precision,
    reference: Reference,
    encoded: npt.NDArray[np.float32],
) -> tuple[GraphReport, ...]:
    """Hold the decoder that a stream's `--reconstruct` takes against the reference.

    Args:
        open_entry: Opens one of the bundle's graphs where it is to run.
        bundle: Whose decoder.
        precision: Its arithmetic.
        reference: The images, and what they should give.
        encoded: (N, D) mu of the encoder of the same precision, of at least as many images.

    Raises:
        BackendError: It does not open or run.
    """
    entry = bundle.leanest(GraphKey("decoder", precision, target="onnx"))
    with open_entry(entry) as decoder:
        count = min(len(encoded), len(reference.images))
        verifier = Verifier.of_frames(reference, count, one_by_one=False)
        verifier.take_encoded(entry.key, encoded[:count])
        return verifier.verify(entry.key, decoder)


def measure(
    row: Row,
    backend: Backend,
    reference: Reference,
    *,
    frames: int,
    repeat: Callable[[], Mapping[str, float]] | None = None,
    graph_off: npt.NDArray[np.float32] | None = None,
) -> tuple[Row, npt.NDArray[np.float32]]:
    """Time one encoder image by image, each output held to the gate.

    Args:
        row: What was planned.
        backend: The opened encoder.
        reference: The images, run through again and again, and what they should give.
        frames: How many images.
        repeat: The backend's `repeat_timed`, where it has one.
        graph_off: (frames, D) mu of the same engine without a CUDA graph, to compare with.

    Returns:
        The row with its figures, and (frames, D) mu.

    Raises:
        BackendError: The engine failed.
    """
    luma = reference.images[:1, None]
    first: Batch = luma if backend.input_dtype == np.uint8 else input_from_luma(luma)
    for _ in range(WARMUP):
        backend.run(first)
        if repeat:
            repeat()
    timer, key = OneByOne(backend, repeat), GraphKey("encoder", row.precision, row.form)
    gate: tuple[GraphReport, ...] = ()
    latents: list[npt.NDArray[np.float32]] = []
    left = frames
    while left and all(report.passed for report in gate):
        verifier = Verifier.of_frames(reference, min(left, len(reference.images)))
        reports = verifier.verify(key, timer)
        if not gate or not all(report.passed for report in reports):
            gate = reports
        latents.append(verifier.encoded(key))
        left -= len(latents[-1])
    if row.graph == "copies and kernels" and "h2d" in timer.samples_ms:
        # With a recorded graph there would be no parts: whatever was timed, it was not the graph.
        raise BackendError("; ".join(backend.notes) or "no CUDA graph was recorded")
    found = np.concatenate(latents)
    takes_luma = ("takes 8-bit luma",) if backend.input_dtype == np.uint8 else ()
    return measured_row(
        row,
        name=backend.name,
        notes=(*backend.notes, *takes_luma),
        samples_ms=timer.samples_ms,
        gate=gate,
        equals_graph_off=None if graph_off is None else np.array_equal(found, graph_off),
    ), found


def measured_row(
    row: Row,
    *,
    name: str,
    notes: tuple[str, ...],
    samples_ms: Mapping[Stage, Sequence[float]],
    gate: Sequence[GraphReport],
    equals_graph_off: bool | None = None,
) -> Row:
    """Return a planned row with what was found, and the warnings that its samples deserve.

    Where the gate failed, the samples are dropped: a time of a wrong result is worthless.
    """
    failures = [clause for report in gate for clause in report.failures]
    known = row.model_dump(include={"engine", "precision", "form", "graph", "spin", "transfers"})
    common = {**known, "name": name, "notes": notes, "gate": tuple(gate)}
    if failures:
        return Row(**common, status="drifted", reason=f"drifted: {', '.join(failures)}")
    warnings = [
        warning
        for stage, samples in samples_ms.items()
        if min(samples, default=0) > 0
        for warning in warnings_of(stage, samples_ns_of(samples))
    ]
    return Row(
        **common,
        status="measured",
        stages={stage: series_of_ms(samples) for stage, samples in samples_ms.items()},
        equals_graph_off=equals_graph_off,
        warnings=tuple(warnings),
    )


def gated_row(row: Row, gate: tuple[GraphReport, ...]) -> Row:
    """Return a measured row with a wider gate, drifted if that is past a limit."""
    samples = {stage: series.samples_ms for stage, series in row.stages.items()}
    return measured_row(
        row,
        name=row.name or row.engine,
        notes=row.notes,
        samples_ms=samples,
        gate=gate,
        equals_graph_off=row.equals_graph_off,
    )
