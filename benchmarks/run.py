"""One benchmark run from the first load average to the last: all cases under one roofline."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..runtime.bundle import GraphName
from ..training.hardware import cpu_has_bf16
from .cases import graph_cases, path_cases
from .engines import thread_limit
from .environment import environment_now, load_now, usable_cores
from .machine import measure_machine, rates_of
from .measure import Schedule
from .results import Case, Rate, Result, Settings
from .roofline import cost_of, roofline_of
from .stability import DRIFT_LIMIT, SPREAD_LIMIT, busy_warning
from .subject import Subject
from .training_case import training_cases

_GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder")
_RUN = "run"


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        schedule: Calls of each latency case.
        batches: Images in one call of a graph.
        machine_samples: Samples of each rate of the machine, before and again after the cases.
        quick: Whether these are too few calls to be quoted.
        seed: Seed of the inputs.
        threads: Threads of every engine; torch's own choice where None.
        skip_compile: Leave torch.compile out.
        training: Calls of each training case, and images in one step; None leaves them out.
    """

    schedule: Schedule
    batches: Sequence[int]
    machine_samples: int
    quick: bool
    seed: int
    threads: int | None = None
    skip_compile: bool = False
    training: tuple[Schedule, int] | None = None


def run_benchmark(subject: Subject, plan: Plan, note: Callable[[str], None]) -> Result:
    """Measure everything in one process.

    Args:
        subject: The model.
        plan: What to measure.
        note: Called with what begins, always between timed regions.

    Raises:
        MeasurementError: Two engines disagree.
    """
    created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    load_start = load_now()
    cases: list[Case] = []
    with thread_limit(plan.threads) as threads:
        note("matrix rate and copy bandwidth")
        before = measure_machine(plan.machine_samples)
        for graph in _GRAPHS:
            for batch in plan.batches:
                note(f"{graph}, batch {batch}")
                cases += graph_cases(
                    subject,
                    graph,
                    batch,
                    schedule=plan.schedule,
                    seed=plan.seed,
                    threads=threads,
                    skip_compile=plan.skip_compile,
                )
        note("frame to latent")
        cases += path_cases(subject, schedule=plan.schedule, seed=plan.seed, threads=threads)
        if plan.training:
            schedule, batch = plan.training
            note(f"training step, batch {batch}")
            cases += training_cases(subject.spec, batch, schedule, has_bf16=cpu_has_bf16())
        note("matrix rate and copy bandwidth again")
        matrix, copy_memory = rates_of(before, measure_machine(plan.machine_samples))
    busy = busy_warning(load_start[0] / usable_cores())
    return Result(
        created=created,
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
        environment=environment_now(
            threads=dict.fromkeys(("torch", "ONNX Runtime", "OpenCV"), threads),
            load_start=load_start,
        ),
        matrix=matrix,
        copy_memory=copy_memory,
        cases=tuple(_under_roofline(case, subject, matrix, copy_memory) for case in cases),
        warnings=(busy,) if busy else (),
    )


def _under_roofline(case: Case, subject: Subject, matrix: Rate, copy_memory: Rate) -> Case:
    """Add the least time that the machine's best rates allow, where a case is one graph."""
    if case.not_measured is not None or case.group not in _GRAPHS:
        return case
    roofline = roofline_of(
        cost_of(subject.spec, case.group, case.batch),
        flops_per_s=matrix.best_per_s,
        bytes_per_s=copy_memory.best_per_s,
        p50_ms=case.stages[_RUN].p50_ms,
    )
    warnings = case.warnings
    if roofline.times < 1:
        warnings += (
            "faster than its roofline, so the machine's rates were measured too "
            "low, or the weights stayed in a cache that the copy does not fit",
        )
    return case.model_copy(update={"roofline": roofline, "warnings": warnings})
