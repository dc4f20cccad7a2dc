"""The search for an INT8 graph: ranges and float32 layers, chosen and judged by the gate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Literal

import onnx_ir as ir

from ...runtime.bundle.manifest import GraphReport
from ..transforms.qdq import Method
from ..verify.metrics import share_of_limit

METHODS = tuple(Method(percentile) for percentile in (None, 99.9, 99.99, 99.995, 99.999, 99.9999))
MOST_FINALISTS = 5
"""So many candidates are verified on the images that judge: each look at them makes it a little
likelier that one passes by luck."""
MOST_METHODS = 3
"""So many of them differ in their ranges alone; the others have more layers in float32."""

MOST_COMPARED = 3
"""With the first so many numbers of layers in float32 all ranges are compared, with more the best
of these."""

Judges = Literal["some", "choosing", "judging"]
"""Some of the images that choose, all of them, or those that judge, which neither calibrated nor
chose."""
_by_share = attrgetter("share")


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and its verification."""

    method: Method  # where ranges end
    excluded: tuple[str, ...]  # layers left in float32
    model: ir.Model  # the graph
    judges: Judges = "some"  # which images it was verified on
    reports: tuple[GraphReport, ...] = ()  # what came of it

    @property
    def share(self) -> float:
        """The largest share of a limit that it used; above 1 where it failed.

        Where a figure has a bound for fresh images, its bound counts if the trial is judged.
        """
        metrics = [metric for report in self.reports for metric in report.metrics]
        if self.judges != "judging":  # the bounds of few images are too wide to choose by
            metrics = [metric.model_copy(update={"bound": None}) for metric in metrics]
        return max(map(share_of_limit, metrics), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether it is within every limit on the images that judge."""
        return self.judges == "judging" and all(report.passed for report in self.reports)


@dataclass(slots=True)
class Search:
    """Finds the INT8 graph to keep.

    First every method is tried with all layers in INT8. Graphs of one structure run at one speed,
    so the most accurate goes first before the images that judge. Where none passes, layers go back
    to float32 one after another, the one that quantisation harms most first, and the first graph
    that passes is kept: each further layer would cost time. Fewer than half of the layers go.

    Ranges that are best while a layer is in INT8 may be those that suit this layer alone: a narrow
    one costs others their largest values. So layers are tried by themselves with the widest ranges
    as well, and with the first few numbers of layers in float32 all methods are compared again.

    The images that choose see values, those that judge also what fresh images may reach. How much
    more of a limit the latter find is learned from each finalist that fails: the next of the same
    method must have that much head room before it is judged. Where none has it, the looks at the
    judges that are left go to those with layers in float32 that are best without it.
    """

    # makes the graph for a method and layers that stay in float32
    derive: Callable[[Method, Sequence[str]], ir.Model]
    # runs a trial's graph on the images that its `judges` names
    verify: Callable[[Trial], Sequence[GraphReport]]
    layers: Sequence[str]  # all layers, first to last
    excluded: tuple[str, ...] = ()  # layers that stay in float32 in any case
    methods: Sequence[Method] = METHODS  # what is tried
    # So many neighbours go to float32 together. Where an engine rounds what one layer hands to the
    # next if either is INT8, one layer alone gains nothing.
    together: int = 1
    on_step: Callable[[str], None] = lambda _: None  # called with what is being tried
    _trials: list[Trial] = field(default_factory=list, init=False)
    _head_room: dict[Method, float] = field(default_factory=dict, init=False)

    def run(self) -> tuple[Trial, ...]:
        """Return all trials. The last is the graph to keep.

        Where none passed, it is the best by the most images that verified any.
        """
        ranked = sorted([self._screened(method) for method in self.methods], key=_by_share)
        for trial in ranked:
            if len(self._verified_by("judging")) == MOST_METHODS or trial.share > 1:
                break
            if self._passes(trial):
                return tuple(self._trials)
        best = min(self._verified_by("judging") or ranked, key=_by_share).method
        # One layer, a head, may be cut away later, and most of the rest must still be INT8.
        most = (len(self.layers) - 1) // 2 - len(self.excluded)
        methods = [best, *(m for m in self.methods if m.equalised == best.equalised and m != best)]
        layered: list[Trial] = []
        for turn, layers in enumerate(self._layers_to_give_up(best, most)):
            if len(self._verified_by("judging")) == MOST_FINALISTS:
                break
            alike = [self._screened(method, *layers) for method in methods]
            layered += alike
            leading = min(alike, key=_by_share)
            if self._passes(leading):
                return tuple(self._trials)
            if turn + 1 == MOST_COMPARED:  # networks of dozens of layers would take an hour
                methods = [leading.method]
        # Head room is a guess from one failure, which these layers may have been the cause of.
        for trial in sorted(layered, key=_by_share):
            judged = {(one.method, one.excluded) for one in self._verified_by("judging")}
            is_new = (trial.method, trial.excluded) not in judged
            if is_new and self._passes(trial, head_room=1.0):
                return tuple(self._trials)
        found = self._verified_by("judging") or self._verified_by("choosing")
        if not found:
            found = [self._verified(min(self._trials, key=_by_share), "choosing")]
        return (*self._trials, min(found, key=_by_share))

    def _layers_to_give_up(self, best: Method, most: int) -> Iterator[tuple[str, ...]]:
        """Yield ever more layers, at most so many, the most harmful first."""
        others = [layer for layer in self.layers if layer not in self.excluded]
        together = min(self.together, most)
        if together < 1:
            return
        groups = [others[n : n + together] for n in range(len(others) - together + 1)]
        harm = {tuple(group): self._share_without(group, best) for group in groups}
        given_up: list[str] = []
        for group in sorted(harm, key=harm.__getitem__):
            # Of a group that would be too many the layers next to those that went before are taken.
            more = [layer for layer in group if layer not in given_up][: most - len(given_up)]
            if more:
                given_up += more
                yield tuple(given_up)

    def _share_without(self, layers: Sequence[str], best: Method) -> float:
        """Return what layers leave where they alone go, with the best ranges or the widest."""
        widest = replace(best, percentile=None)
        tried = dict.fromkeys((best, widest) if widest in self.methods else (best,))
        return min(self._screened(method, *layers).share for method in tried)

    def _screened(self, method: Method, *layers: str) -> Trial:
        excluded = (*self.excluded, *layers)
        for trial in self._verified_by("some"):
            if (trial.method, trial.excluded) == (method, excluded):
                return trial
        self.on_step(f"{method}, {', '.join(excluded) or 'nothing'} in float32")
        return self._verified(Trial(method, excluded, self.derive(method, excluded)), "some")

    def _passes(self, trial: Trial, head_room: float | None = None) -> bool:
        """Verify a candidate on ever more images, for as long as it passes."""
        if head_room is None:
            head_room = self._head_room.get(trial.method, 1.0)
        finalists = len(self._verified_by("judging"))
        if finalists == MOST_FINALISTS or trial.share * head_room > 1:
            return False
        chosen = self._verified(trial, "choosing")
        if chosen.share * head_room > 1:
            return False
        self.on_step(f"{trial.method}: finalist {finalists + 1}")
        judged = self._verified(chosen, "judging")
        if not judged.passed and chosen.share > 0:
            self._head_room[trial.method] = max(head_room, judged.share / chosen.share)
        return judged.passed

    def _verified(self, trial: Trial, judges: Judges) -> Trial:
        trial = replace(trial, judges=judges)
        self._trials.append(replace(trial, reports=tuple(self.verify(trial))))
        return self._trials[-1]

    def _verified_by(self, judges: Judges) -> list[Trial]:
        return [trial for trial in self._trials if trial.judges == judges]
