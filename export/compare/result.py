"""VerifyResult: what motorvae verify found, as Python and JSON have it."""

from __future__ import annotations

from typing import Literal

from ...runtime.bundle.graph_key import Precision
from ...runtime.bundle.manifest import FileEntry, Metric
from ...runtime.core.spec import ModelSpec, StrictModel
from ..verify.metrics import share_of_limit

RESULT_VERSION: Literal[1] = 1
OutputKind = Literal["mu", "log_var", "latent", "image"]


class JudgedGraph(StrictModel):
    """One of the two graphs.

    `files` are the graph itself and the files that hold its weights; `input_shape` has the names of
    free axes, or None.
    """

    path: str
    files: tuple[FileEntry, ...]
    engine: str
    input_name: str
    input_dtype: Literal["float32", "float16", "uint8"]
    input_shape: tuple[int | str | None, ...]
    notes: tuple[str, ...] = ()


class OutputResult(StrictModel):
    """How far one output of the candidate is from the reference's.

    `shape` is that of one image, as the reference gives it. `notes` say what the verdict does not
    cover.
    """

    output: str
    candidate_output: str
    kind: OutputKind
    shape: tuple[int, ...]
    passed: bool
    notes: tuple[str, ...]
    metrics: tuple[Metric, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Every figure past its limit, as a clause."""
        return tuple(
            f"{self.output}: {metric.name} {metric} (limit {metric.limit:g})"
            for metric in self.metrics
            if not metric.passed and metric.limit is not None
        )


class VerifyResult(StrictModel):
    """What `motorvae.verify` found.

    Attributes:
        passed: Whether every figure of every output keeps its limit.
        verdict: The same in a sentence.
        reference: The graph that is right.
        candidate: The graph that was judged.
        source: Where the images come from.
        images: How many of them judged.
        skipped: What did not decode, each with its reason.
        preparation: How an image became the input; None where latents were decoded.
        precision: Whose limits hold.
        limits: Those limits by name, with what --limits replaced; None is no limit.
        batch_sizes: Images per run of the candidate, in turn.
        outputs: One report for each output.
        notes: What to know of the comparison as a whole.
    """

    schema_version: Literal[1] = RESULT_VERSION
    motorvae: str
    passed: bool
    verdict: str
    reference: JudgedGraph
    candidate: JudgedGraph
    source: str
    images: int
    skipped: tuple[str, ...]
    preparation: ModelSpec | None
    precision: Precision
    limits: dict[str, float | None]
    batch_sizes: tuple[int, ...]
    outputs: tuple[OutputResult, ...]
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Every figure past its limit, as a clause."""
        return tuple(clause for output in self.outputs for clause in output.failures)


def verdict_of(outputs: tuple[OutputResult, ...], *, candidate: str, images: int, held: str) -> str:
    """Return the one line that says whether all outputs keep their limits, and by how much."""
    failures = [clause for output in outputs for clause in output.failures]
    of_images = "1 image" if images == 1 else f"{images} images"
    if failures:
        more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
        return f"FAILED: {candidate} on {of_images}, held to {held}: {failures[0]}{more}"
    share, name = max(
        (share_of_limit(metric), f"{output.output}: {metric.name}")
        for output in outputs
        for metric in output.metrics
    )
    return (
        f"passed: {candidate} on {of_images}, held to {held}; nearest to its limit is {name}, "
        f"at {share:.0%}"
    )
