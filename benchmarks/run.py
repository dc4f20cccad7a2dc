"""One benchmark run from the first load average to the last: all cases under one roofline."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from ..runtime.bundle.graph_key import Part
from ..training.hardware import cpu_has_bf16
from .cases.graph import DriftGate, cost_of_case, graph_cases
from .cases.path import path_cases
from .cases.process import import_cases, start_up_cases, ways_of
from .cases.stream import StreamPlan, stream_cases, stream_ways
from .cases.threads import thread_cases
from .cases.training import training_cases
from .gpu.run import engine_cases
from .measure.case import Case
from .measure.environment import environment_now, load_now, usable_cores
from .measure.machine_rates import Rates, measure_machine, rates_of
from .measure.result import Result, Settings
from .measure.roofline import roofline_of
from .measure.rounds import RoundPlan
from .measure.samples import DRIFT_LIMIT, SPREAD_LIMIT, busy_warning
from .options import RunGroup
from .subjects.model_under_test import ModelUnderTest
from .subjects.torch_engines import thread_limit

_GRAPHS: tuple[Part, ...] = ("encoder", "decoder")
_SPREADING_MS = 100.0
"""How long a turn settles: with less, an engine's p50 depends on which one ran before it."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        samples: Timed calls of each latency case at batch 1; larger batches take fewer.
        batches: Images in one call of a graph; the first is run by every engine.
        quick: Whether these are too few calls to be quoted.
        seed: Seed of the inputs.
        only: Which groups of cases.
        threads: Threads of every engine; each engine's own choice where None.
        skip_compile: Leave torch.compile out.
        training: Calls of each training case, and images in one step; None leaves them out.
        command: What was typed.
    """

    samples: int
    batches: Sequence[int]
    quick: bool
    seed: int
    only: Sequence[RunGroup] = get_args(RunGroup)
    threads: int | None = None
    skip_compile: bool = False
    training: tuple[RoundPlan, int] | None = None
    command: str = "motorvae-bench run"

    @property
    def schedule(self) -> RoundPlan:
        """Calls of each latency case at batch 1."""
        return self.schedule_of(1)

    def schedule_of(self, batch: int) -> RoundPlan:
        """Return the calls of one case: with the batch they grow long, and so fewer."""
        if self.quick:
            return RoundPlan(samples=max(2, self.samples // batch), warmup=2, settle=1, turn=10)
        share = 1 if batch == 1 else min(2 * batch, 20)
        samples = self.samples // share
        return RoundPlan(
            samples=samples,
            warmup=max(2, 10 // batch),
            settle=1,
            settle_ms=_SPREADING_MS,
            turn=max(2, samples // 8),
        )

    @property
    def processes(self) -> int:
        """Launches of each process that is timed by its start."""
        return 1 if self.quick else 5

    @property
    def streams(self) -> StreamPlan:
        """How much of each stream is measured."""
        return StreamPlan(rounds=1, skipped=5, frames=20) if self.quick else StreamPlan()

    @property
    def machine_samples(self) -> int:
        """Samples of each rate of the machine, before and again after the cases."""
        return 5 if self.quick else 30


def run_benchmark(subject: ModelUnderTest, plan: Plan, note: Callable[[str], None]) -> Result:
    """Measure everything; what is compared with each other is measured in turns.

    Args:
        subject: The model.
        plan: What to measure.
        note: Called with what begins, always between timed regions.

    Raises:
        MeasurementError: Two engines disagree.
    """
    created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    load_start = load_now()
    settle_ms = plan.schedule.settle_ms
    with thread_limit(plan.threads) as threads:
        note("matrix rates and bandwidths")
        before = measure_machine(plan.machine_samples, settle_ms=settle_ms)
        cases = list(_cases(subject, plan, note))
        note("matrix rates and bandwidths again")
        rates = rates_of(before, measure_machine(plan.machine_samples, settle_ms=settle_ms))
    cases = [_under_roofline(case, subject, rates) for case in cases]
    busy = busy_warning(load_start[0] / usable_cores())
    return Result(
        created=created,
        command=plan.command,
        model=subject.spec,
        settings=Settings(
            quick=plan.quick,
            untrained=subject.untrained,
            weights_sha256=subject.weights_sha256,
            seed=plan.seed,
            schedule=plan.schedule,
            training_schedule=plan.training[0] if plan.training else None,
            spread_limit=SPREAD_LIMIT,
            drift_limit=DRIFT_LIMIT,
        ),
        environment=environment_now(threads=threads, load_start=load_start),
        matrix=rates.matrix,
        copy_memory=rates.copy_memory,
        read_memory=rates.read_memory,
        cases=tuple(cases),
        warnings=(busy,) if busy else (),
    )


def _cases(subject: ModelUnderTest, plan: Plan, note: Callable[[str], None]) -> Iterator[Case]:
    gate, schedule, seed = DriftGate(subject), plan.schedule, plan.seed
    for graph in _GRAPHS:
        if graph not in plan.only:
            continue
        for place, batch in enumerate(plan.batches):
            note(f"{graph}, batch {batch}")
            yield from graph_cases(
                subject,
                graph,
                batch,
                schedule=plan.schedule_of(batch),
                seed=seed,
                gate=gate,
                threads=plan.threads,
                leading=place > 0,
                skip_compile=plan.skip_compile,
            )
    if "path" in plan.only:
        note("frame to latent")
        yield from path_cases(
            subject, schedule=schedule, seed=seed, gate=gate, threads=plan.threads
        )
    if "threads" in plan.only:
        note("threads as installed, and ours")
        yield from thread_cases(subject, schedule=schedule, seed=seed)
    if "start-up" in plan.only:
        note("process start to first latent")
        yield from start_up_cases(subject, plan.processes)
    if "import" in plan.only:
        note("import")
        yield from import_cases(plan.processes)
    if "stream" in plan.only:
        note("streams: age and memory")
        ways = stream_ways(ways_of(subject))
        yield from stream_cases(subject, ways, plan.streams, schedule, seed=seed)
    if "gpu" in plan.only:
        note("engines of the GPU")
        yield from engine_cases(subject.bundle, subject.reference, frames=schedule.samples)
    if plan.training:
        steps, batch = plan.training
        note(f"training step, batch {batch}")
        yield from training_cases(subject.spec, batch, steps, has_bf16=cpu_has_bf16())


def _under_roofline(case: Case, subject: ModelUnderTest, rates: Rates) -> Case:
    """Add the least time that the machine's best rates allow, where a case is one graph."""
    if case.whole is None or case.group not in _GRAPHS or case.precision not in rates.matrix:
        return case
    roofline = roofline_of(
        cost_of_case(subject, case),
        flops_per_s=rates.matrix[case.precision].best_per_s,
        bytes_per_s=rates.read_memory.best_per_s,
        p50_ms=case.whole.p50,
    )
    warnings = case.warnings
    if roofline.times < 1:
        warnings += (
            "faster than its roofline, so the machine's rates were measured too "
            "low, or the weights stayed in a cache that the reading does not fit",
        )
    return case.model_copy(update={"roofline": roofline, "warnings": warnings})
