"""One benchmark run from the first load average to the last: all cases under one roofline."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from ..runtime.bundle.graph_key import Part
from ..training.hardware import cpu_has_bf16
from .cases.gpu import engine_cases
from .cases.model import graph_cases, training_cases
from .cases.path import path_cases, thread_cases
from .cases.stream import StreamPlan, import_cases, start_up_cases, stream_cases
from .compare import LEAST_TURNS
from .loadgen.run import loadgen_runs, streaming_engines
from .measure.case import Case, busy_warning
from .measure.energy import IDLE_S, WINDOW_S, WINDOWS
from .measure.loadgen import LoadGenRun
from .measure.result import MachineRates, Result, Settings, environment_now, load_now, usable_cores
from .measure.roofline import cost_of, measure_machine, rates_of, roofline_of
from .measure.rounds import RoundPlan
from .options import RunGroup, RunOptions
from .sensors.find import require_sensors
from .sensors.meter import Meter
from .under_test.engines import thread_limit
from .under_test.model_under_test import ModelUnderTest, model_from_files, untrained_model

_SPREADING_MS = 100.0
"""How long a turn settles: with less, an engine's p50 depends on which one ran before it."""
_QUICK_IDLE_S, _QUICK_WINDOW_S = 2.0, 1.0  # in place of `IDLE_S` and `WINDOW_S`
_IMAGES, _QUICK_IMAGES = 256, 32
"""Of the bundle's verification images; the gate of the export took all of them."""


def round_plan(options: RunOptions, batch: int = 1) -> RoundPlan:
    """Return the calls of one latency case: with the batch they grow long, and so fewer."""
    samples = options.samples_to_take
    if options.quick:
        samples = max(2, samples // batch)
        # As many turns as a comparison needs to judge.
        return RoundPlan(samples=samples, warmup=2, settle=1, turn=max(1, samples // LEAST_TURNS))
    samples //= 1 if batch == 1 else min(2 * batch, 20)
    return RoundPlan(
        samples=samples,
        warmup=max(2, 10 // batch),
        settle=1,
        settle_ms=_SPREADING_MS,
        turn=max(2, samples // 8),
    )


def _window_s(options: RunOptions) -> float:
    """Return how long one of the windows of a case lasts."""
    if options.energy_seconds is not None:
        return options.energy_seconds / WINDOWS
    return _QUICK_WINDOW_S if options.quick else WINDOW_S


def run_benchmark(
    options: RunOptions, command: str, note: Callable[[str], None], *, logs: Path | None = None
) -> Result:
    """Measure everything; what is compared with each other is measured in turns.

    Energy without a sensor is a MeasurementError. `command` is what was typed; `note` is called
    with what begins, always between timed regions; `logs` is a folder for LoadGen's files, where
    that was asked for.
    """
    sensors = require_sensors() if options.energy else None
    created = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    schedule = round_plan(options)
    # Each follows a step that is not timed.
    steps = RoundPlan(samples=options.training_steps, warmup=0, settle=0, turn=1)
    with contextlib.ExitStack() as stack, thread_limit(options.threads) as threads:
        if options.untrained:
            tested = stack.enter_context(
                untrained_model(options.spec, options.seed, int8=options.untrained_int8)
            )
        else:
            bundle, run = options.model or Path("bundle"), options.checkpoint or Path("runs/latest")
            images = _QUICK_IMAGES if options.quick else _IMAGES
            tested = model_from_files(bundle, run, images=images)
        load_start = load_now()
        meter = stack.enter_context(
            Meter(
                sensors,
                window_s=_window_s(options),
                idle_s=_QUICK_IDLE_S if options.quick else IDLE_S,
            )
        )
        samples, settle_ms = 5 if options.quick else 30, schedule.settle_ms
        note("matrix rates and bandwidths")
        before = measure_machine(samples, settle_ms=settle_ms)
        cases = list(_cases(tested, options, steps, note, meter))
        loadgen = _loadgen(tested, options, note, logs) if logs is not None else ()
        note("matrix rates and bandwidths again")
        rates = rates_of(before, measure_machine(samples, settle_ms=settle_ms))
        meter.close()
    busy = busy_warning(load_start[0] / usable_cores())
    return Result(
        created=created,
        command=command,
        model=tested.spec,
        settings=Settings(
            quick=options.quick,
            untrained=tested.untrained,
            weights_sha256=tested.bundle.manifest.weights_sha256,
            seed=options.seed,
            schedule=schedule,
            training_schedule=steps if options.training else None,
        ),
        environment=environment_now(threads=threads, load_start=load_start),
        **rates,
        energy=meter.facts,
        loadgen=loadgen,
        watch=meter.watched,
        cases=tuple(_under_roofline(case, tested, rates) for case in cases),
        warnings=(busy,) if busy else (),
    )


def _cases(
    tested: ModelUnderTest,
    options: RunOptions,
    steps: RoundPlan,
    note: Callable[[str], None],
    meter: Meter,
) -> Iterator[Case]:
    schedule, seed, threads = round_plan(options), options.seed, options.threads
    for part in get_args(Part):
        for place, batch in enumerate(options.batches_to_measure if part in options.only else ()):
            note(f"{part}, batch {batch}")
            yield from graph_cases(
                tested,
                part,
                batch,
                schedule=round_plan(options, batch),
                seed=seed,
                threads=threads,
                leading=place > 0,
                skip_compile=options.skip_compile or options.quick,
                meter=meter,
            )
    processes = 1 if options.quick else 3
    streams = StreamPlan(rounds=1, skipped=5, frames=20) if options.quick else StreamPlan()
    others: dict[RunGroup, tuple[str, Callable[[], list[Case]]]] = {
        "path": (
            "frame to latent",
            lambda: path_cases(tested, schedule=schedule, seed=seed, threads=threads, meter=meter),
        ),
        "threads": (
            "threads as installed, and ours",
            lambda: thread_cases(tested, schedule=schedule, seed=seed),
        ),
        "start-up": ("process start to first latent", lambda: start_up_cases(tested, processes)),
        "import": ("imports", lambda: import_cases(processes)),
        "stream": (
            "streams: age and memory",
            lambda: stream_cases(tested, streams, schedule, seed=seed),
        ),
        "gpu": (
            "engines of the GPU",
            lambda: engine_cases(
                tested.bundle,
                tested.reference,
                frames=schedule.samples,
                trust=options.trust,
                meter=meter,
            ),
        ),
    }
    for group, (title, measure) in others.items():
        if group in options.only:
            note(title)
            yield from measure()
    if options.training:
        batch = options.training_batch
        note(f"training step, batch {batch}")
        yield from training_cases(tested.spec, batch, steps, has_bf16=cpu_has_bf16())


def _loadgen(
    tested: ModelUnderTest, options: RunOptions, note: Callable[[str], None], logs: Path
) -> tuple[LoadGenRun, ...]:
    return loadgen_runs(
        tested,
        streaming_engines(tested, options.threads),
        seconds=options.loadgen_s,
        offline_batch=max(options.batches_to_measure),
        threads=options.threads,
        trust=options.trust,
        seed=options.seed,
        logs=logs,
        note=note,
    )


def _under_roofline(case: Case, tested: ModelUnderTest, rates: MachineRates) -> Case:
    """Add the least time that the machine's best rates allow, where a case is one graph."""
    if tested.spec.channels is None:
        if case.group not in get_args(Part):
            return case
        note = "roofline not known: what a run of another network than the card's costs"
        return case.with_facts(notes=(*case.notes, note))
    rate = rates["matrix"].get(case.precision)
    if case.whole is None or case.group not in get_args(Part) or rate is None:
        return case
    roofline = roofline_of(
        cost_of(tested.spec, case.graph, case.batch),
        flops_per_s=rate.best_per_s,
        bytes_per_s=rates["read_memory"].best_per_s,
        p50_ms=case.whole.p50,
    )
    warnings = case.warnings
    if roofline.times < 1:
        warnings += (
            "faster than its roofline, so the machine's rates were measured too "
            "low, or the weights stayed in a cache that the reading does not fit",
        )
    return case.with_facts(roofline=roofline, warnings=warnings)
