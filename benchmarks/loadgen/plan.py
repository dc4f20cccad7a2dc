"""What the process that LoadGen runs in is told, and what it answers."""

from __future__ import annotations

from ...runtime.bundle.graph_key import Part, Precision, Target, Variant
from ...runtime.core.spec import StrictModel
from ...runtime.engines.open import BackendName
from ..measure.case import Samples
from ..measure.loadgen import Scenario

IMAGES = 64
"""How many different images LoadGen draws from: its "query sample library"."""


class LoadGenPlan(StrictModel):
    """One run."""

    bundle: str
    part: Part = "encoder"
    precision: Precision
    variant: Variant
    target: Target | None
    backend: BackendName
    threads: int | None
    trust: bool
    images: str  # A .npy of (IMAGES, C, H, W) uint8
    scenario: Scenario
    batch: int
    seconds: float
    logs: str  # A folder that exists, for LoadGen's own files


class LoadGenAnswer(StrictModel):
    """Our own loop before and after LoadGen's run, and what that takes without any work."""

    overhead_ms: float  # A query, of Offline a sample, that is answered at once
    ours: tuple[Samples, Samples]
