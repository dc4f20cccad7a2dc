"""Build routes, each tried: built, held to the gate and timed; the fastest engine is kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from rich.console import Console

from ...runtime.bundle.manifest import GraphEntry
from ...runtime.core.errors import BackendError, MissingDependencyError, VerificationError
from ...runtime.engines.base import Backend
from ...runtime.engines.open import open_engine
from ...runtime.engines.tensorrt.build_record import RouteSettings, TriedRoute
from ..verify.reference import Reference
from ..verify.verifier import Verifier
from .build import BuiltEngine, EngineBuildRequest, plan_of
from .routes import DEFAULT, NamedRoute, combined_route, fastest
from .timing import times_of

Build = Callable[[RouteSettings], BuiltEngine]
"""Builds a graph's engine by a route; an EngineError where that fails."""


def fastest_engine(
    default: BuiltEngine,
    routes: Sequence[NamedRoute],
    build: Build,
    *,
    entry: GraphEntry,
    request: EngineBuildRequest,
    reference: Reference,
    console: Console,
) -> BuiltEngine:
    """Return a graph's default engine or a faster one that passes the gate.

    All that was tried is in its `routes`. Each route is timed in turns with the default one, at the
    batch size that the engine is tuned for, and has its line. Of all engines but the fastest only
    the record stays in memory.

    Raises:
        BackendError: The default engine does not run.
    """
    minutes = request.tune_minutes or 0.0
    deadline = time.monotonic() + 60 * minutes
    console.print(f"{entry.key.for_any.title}: {len(routes)} more build routes")
    best, tried = default, list[TriedRoute]()
    with open_engine(plan_of(default, entry, request), entry.key) as baseline:
        drift = _failures(baseline, entry, request, reference)
        for name, settings in itertools.chain(routes, _combined(tried)):
            if time.monotonic() > deadline:
                reason = f"the {minutes:g} minutes of --tune-minutes were over"
                tried.append(
                    TriedRoute(name=name, settings=settings, verdict="not tried", reason=reason)
                )
                continue
            engine = default
            try:
                engine = build(settings)
                one = _tried(
                    engine,
                    baseline,
                    (name, settings),
                    entry=entry,
                    request=request,
                    reference=reference,
                )
            except (BackendError, MissingDependencyError) as error:
                reason = error.clause()
                one = TriedRoute(name=name, settings=settings, verdict="failed", reason=reason)
            tried.append(one)
            if fastest(tried, instead=bool(drift)) is one:
                best = engine
            said = one.times.sentence if one.times else f"{one.verdict}: {one.reason}"
            console.print(f"  {name}: {said}")
    winner = fastest(tried, instead=bool(drift))
    first = TriedRoute(
        name=DEFAULT,
        settings=RouteSettings(),
        verdict="drifted" if drift else "kept" if winner is None else "not faster",
        reason=drift or None,
    )
    # Only now is it known which one is kept.
    others = (one.model_copy(update={"verdict": "kept"}) if one is winner else one for one in tried)
    return replace(best, routes=(first, *others))


def _combined(tried: Sequence[TriedRoute]) -> Iterator[NamedRoute]:
    """Give the route of all that were faster, by what is in `tried` when it is asked for."""
    if (combined := combined_route(tried)) is not None:
        yield combined


def _tried(
    engine: BuiltEngine,
    baseline: Backend,
    route: NamedRoute,
    *,
    entry: GraphEntry,
    request: EngineBuildRequest,
    reference: Reference,
) -> TriedRoute:
    """Hold a route's engine to the gate, and time it where it passes."""
    name, settings = route
    with open_engine(plan_of(engine, entry, request), entry.key) as backend:
        if failures := _failures(backend, entry, request, reference):
            return TriedRoute(name=name, settings=settings, verdict="drifted", reason=failures)
        keys = (entry.key, entry.key)
        times = times_of(backend, baseline, keys, reference, request.profile.opt)
    return TriedRoute(name=name, settings=settings, verdict="not faster", times=times)


def _failures(
    backend: Backend, entry: GraphEntry, request: EngineBuildRequest, reference: Reference
) -> str:
    """Return what the gate has against an engine, in a clause; "" where it passes."""
    verifier = Verifier.of_engines(reference, request.profile)
    if entry.graph == "decoder":
        verifier.take_encoded(entry.key, reference.mu)
    try:
        reports = verifier.verify(entry.key, backend)
    except VerificationError as error:
        return str(error)
    return ", ".join(clause for report in reports for clause in report.failures)
