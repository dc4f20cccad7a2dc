"""The search for an INT8 graph: ranges and float32 layers, chosen and judged by the gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from ...runtime.bundle.manifest import GraphReport
from ..transforms.qdq import Method
from ..verify.metrics import share_of_limit

METHODS = tuple(Method(percentile) for percentile in (None, 99.9, 99.99, 99.995, 99.999, 99.9999))
MOST_FINALISTS = 5
"""So many candidates are held against the images that judge: each look at them makes it a little
likelier that one passes by luck."""
MOST_METHODS = 3
"""So many of them differ in their ranges alone; the others have more layers in float32."""

Judges = Literal["some", "choosing", "judging"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what the gate said of it.

    Attributes:
        method: Where ranges end.
        excluded: Layers left in float32.
        share: The largest share of a limit that it used; above 1 where it failed.
        judges: Which images said so: some of those that choose, all of them, or those that judge.
        model: The graph.
        reports: Where `share` comes from.
    """

    method: Method
    excluded: tuple[str, ...]
    share: float
    judges: Judges
    model: ir.Model
    reports: tuple[GraphReport, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the images that judge found it within every limit."""
        return self.judges == "judging" and all(report.passed for report in self.reports)


@dataclass(frozen=True, slots=True)
class Question:
    """What a search is about.

    Attributes:
        derive: Makes the graph for a method and layers that stay in float32.
        screen: Runs a graph on some of the images that choose.
        choose: Runs a graph on all of them.
        judge: Runs a candidate on the images that judge; they neither calibrated nor chose.
        layers: All layers, first to last.
        excluded: Layers that stay in float32 in any case.
        methods: What is tried.
        tell: Called with what is being tried.
    """

    derive: Callable[[Method, Sequence[str]], ir.Model]
    screen: Callable[[ir.Model], Sequence[GraphReport]]
    choose: Callable[[ir.Model], Sequence[GraphReport]]
    judge: Callable[[Trial], Sequence[GraphReport]]
    layers: Sequence[str]
    excluded: tuple[str, ...] = ()
    methods: Sequence[Method] = METHODS
    tell: Callable[[str], None] = lambda _: None


def search(question: Question) -> tuple[Trial, ...]:
    """Find the INT8 graph to keep; it is the last trial.

    First every method is tried with all layers in INT8. Graphs of one structure run at one speed,
    so the most accurate goes first before the images that judge. Where none passes, layers go back
    to float32 one after another, the one that quantisation harms most first, and the first graph
    that passes is kept: each further layer would cost time. Fewer than half of the layers go.

    The images that choose see values, those that judge also what fresh images may reach. How much
    more of a limit the latter find is learned from each finalist that fails: the next of the same
    method must have that much head room before it is judged. Where none has it, the looks at the
    judges that are left go to those with layers in float32 that are best without it.

    Returns:
        All trials. Where none passed, the last is the best by the most images that saw any.
    """
    return _Search(question).trials()


class _Search:
    def __init__(self, question: Question) -> None:
        self._question = question
        self._trials: list[Trial] = []
        self._finalists = 0
        self._head_room: dict[Method, float] = {}

    def trials(self) -> tuple[Trial, ...]:
        question = self._question
        ranked = sorted([self._screened(method) for method in question.methods], key=_by_share)
        for trial in ranked:
            if self._finalists == MOST_METHODS or trial.share > 1:
                break
            if self._passes(trial):
                return tuple(self._trials)
        judged = [trial for trial in self._trials if trial.judges == "judging"]
        best = min(judged or ranked, key=_by_share).method
        # One layer, a head, may be cut away later, and most of the rest must still be INT8.
        most = (len(question.layers) - 1) // 2 - len(question.excluded)
        others = [layer for layer in question.layers if layer not in question.excluded]
        alone = [self._screened(best, layer) for layer in others] if most > 0 else []
        order = [trial.excluded[-1] for trial in sorted(alone, key=_by_share)]
        layered = []
        for count in range(1, most + 1):
            if self._finalists == MOST_FINALISTS:
                break
            layered.append(self._screened(best, *order[:count]))
            if self._passes(layered[-1]):
                return tuple(self._trials)
        # Head room is a guess from one failure, which these layers may have been the cause of.
        for trial in sorted(layered, key=_by_share):
            if not self._was_judged(trial) and self._passes(trial, head_room=1.0):
                return tuple(self._trials)
        return (*self._trials, self._best())

    def _screened(self, method: Method, *layers: str) -> Trial:
        question = self._question
        excluded = (*question.excluded, *layers)
        question.tell(f"{method}, {', '.join(excluded) or 'nothing'} in float32")
        model = question.derive(method, excluded)
        reports = tuple(question.screen(model))
        trial = Trial(method, excluded, _share_of_values(reports), "some", model, reports)
        self._trials.append(trial)
        return trial

    def _was_judged(self, trial: Trial) -> bool:
        return any(
            (of.judges, of.method, of.excluded) == ("judging", trial.method, trial.excluded)
            for of in self._trials
        )

    def _passes(self, trial: Trial, head_room: float | None = None) -> bool:
        """Hold a candidate against ever more images, for as long as it passes."""
        if head_room is None:
            head_room = self._head_room.get(trial.method, 1.0)
        if self._finalists == MOST_FINALISTS or trial.share * head_room > 1:
            return False
        chosen = self._chosen(trial)
        if chosen.share * head_room > 1:
            return False
        self._finalists += 1
        self._question.tell(f"{trial.method}: finalist {self._finalists}")
        reports = tuple(self._question.judge(chosen))
        share = share_of_limits(reports)
        judged = replace(chosen, share=share, judges="judging", reports=reports)
        self._trials.append(judged)
        if not judged.passed and chosen.share > 0:
            self._head_room[trial.method] = max(head_room, share / chosen.share)
        return judged.passed

    def _chosen(self, trial: Trial) -> Trial:
        reports = tuple(self._question.choose(trial.model))
        chosen = replace(trial, share=_share_of_values(reports), judges="choosing", reports=reports)
        self._trials.append(chosen)
        return chosen

    def _best(self) -> Trial:
        """Return the best of those that judges, or else all that choose, found wanting."""
        for judges in ("judging", "choosing"):
            found = [trial for trial in self._trials if trial.judges == judges]
            if found:
                return min(found, key=_by_share)
        return self._chosen(min(self._trials, key=_by_share))


def share_of_limits(reports: Sequence[GraphReport]) -> float:
    """Return the largest share of its limit that any gated figure uses; above 1 if one failed.

    Where a figure has a bound for fresh images, it is the bound's share.
    """
    metrics = [metric for report in reports for metric in report.metrics]
    return max(map(share_of_limit, metrics), default=0.0)


def _share_of_values(reports: Sequence[GraphReport]) -> float:
    """Return the same by what was seen: the bounds of few images are too wide to choose by."""
    metrics = [metric for report in reports for metric in report.metrics]
    seen = [metric.model_copy(update={"bound": None}) for metric in metrics]
    return max(map(share_of_limit, seen), default=0.0)


def _by_share(trial: Trial) -> float:
    return trial.share
