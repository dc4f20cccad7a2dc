"""Build routes that compete: each is built, held to the gate and timed; the fastest is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from ...runtime.bundle.manifest import GraphEntry
from ...runtime.core.errors import (
    BackendError,
    MissingDependencyError,
    VerificationError,
)
from ...runtime.engines.base import Backend
from ...runtime.engines.tensorrt.build_record import PairedTimes, RouteSettings, TriedRoute
from ..verify.reference import Reference
from ..verify.verifier import Verifier
from .build import BuiltEngine, EngineBuildRequest, plan_of
from .routes import (
    DEFAULT,
    NamedRoute,
    combined_route,
    fastest,
    own_routes,
    tuner_options,
    tuner_routes,
)
from .timing import opened, times_of

Build = Callable[[RouteSettings], BuiltEngine]


@dataclass
class Competition:
    """The routes of one graph's engine, tried one after the other against the default one.

    Args:
        entry: The graph.
        request: What is built; its profile's best batch size is timed.
        reference: What the gate compares with.
        build: Builds the graph's engine by a route; an EngineError where that fails.
        console: Where each route has its line.
    """

    entry: GraphEntry
    request: EngineBuildRequest
    reference: Reference
    build: Build
    console: Console
    tried: list[TriedRoute] = field(default_factory=list)
    _best: BuiltEngine | None = None
    _drift: str = ""  # what the gate has against the default engine

    def run(self, default: BuiltEngine, routes: Sequence[NamedRoute]) -> BuiltEngine:
        """Return the default engine or a faster one that passes the gate, with all that was tried.

        Raises:
            BackendError: The default engine does not run.
        """
        minutes = self.request.tune_minutes or 0.0
        deadline = time.monotonic() + 60 * minutes
        self.console.print(f"{self.entry.key.for_any.title}: {len(routes)} more build routes")
        with self._opened(default) as baseline:
            self._drift = self._failures(baseline)
            for name, settings in routes:
                self._try(name, settings, baseline, deadline, minutes)
            if (combined := combined_route(self.tried)) is not None:
                self._try(*combined, baseline, deadline, minutes)
        winner = fastest(self.tried, instead=bool(self._drift))
        kept = [
            one.model_copy(update={"verdict": "kept"}) if one is winner else one
            for one in self.tried
        ]
        first = TriedRoute(
            name=DEFAULT,
            settings=RouteSettings(),
            verdict="drifted" if self._drift else "kept" if winner is None else "not faster",
            reason=self._drift or None,
        )
        best = default if winner is None or self._best is None else self._best
        return replace(best, routes=(first, *kept))

    def _try(
        self,
        name: str,
        settings: RouteSettings,
        baseline: Backend,
        deadline: float,
        minutes: float,
    ) -> None:
        if time.monotonic() > deadline:
            reason = f"the {minutes:g} minutes of --tune-minutes were over"
            self._note(name, settings, "not tried", reason=reason)
            return
        try:
            engine = self.build(settings)
            with self._opened(engine) as backend:
                failures = self._failures(backend)
                if failures:
                    self._note(name, settings, "drifted", reason=failures)
                    return
                keys = (self.entry.key, self.entry.key)
                count = self.request.profile.opt
                times = times_of(backend, baseline, keys, self.reference, count)
        except (BackendError, MissingDependencyError) as error:
            self._note(name, settings, "failed", reason=error.clause())
            return
        self._note(name, settings, "not faster", times=times)
        if fastest(self.tried, instead=bool(self._drift)) is self.tried[-1]:
            self._best = engine  # of the others only the record stays in memory

    def _failures(self, backend: Backend) -> str:
        """Return what the gate has against an engine, in a clause; "" where it passes."""
        verifier = Verifier.of_engines(self.reference, self.request.profile)
        if self.entry.graph == "decoder":
            verifier.take_encoded(self.entry.key, self.reference.mu)
        try:
            reports = verifier.verify(self.entry.key, backend)
        except VerificationError as error:
            return str(error)
        return ", ".join(clause for report in reports for clause in report.failures)

    def _opened(self, engine: BuiltEngine) -> Backend:
        return opened(plan_of(engine, self.entry, self.request), self.entry.key)

    def _note(
        self,
        name: str,
        settings: RouteSettings,
        verdict: str,
        *,
        reason: str | None = None,
        times: PairedTimes | None = None,
    ) -> None:
        facts = {"name": name, "settings": settings, "verdict": verdict}
        self.tried.append(TriedRoute.model_validate(facts | {"reason": reason, "times": times}))
        if verdict != "not tried":
            said = times.sentence if times else f"{verdict}: {reason}"
            self.console.print(f"  {name}: {said}")


def tuned_engine(
    default: BuiltEngine,
    build: Build,
    *,
    entry: GraphEntry,
    request: EngineBuildRequest,
    reference: Reference,
    console: Console,
) -> BuiltEngine:
    """Let our own build routes and those of TensorRT's tuner compete with the default one."""
    listed = tuner_options(request.package)
    routes = [*own_routes(request.package), *tuner_routes(listed)]
    return Competition(entry, request, reference, build, console).run(default, routes)
