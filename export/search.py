"""The search for an INT8 graph: method, percentile and float32 layers, judged by the gate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from ..runtime.bundle import GraphReport, Metric
from .qdq import Method

METHODS = tuple(Method(percentile) for percentile in (None, 99.9, 99.99, 99.995, 99.999, 99.9999))


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate and what the gate said of it.

    Attributes:
        method: Where ranges end.
        excluded: Layers left in float32.
        share: The largest share of a limit that it used; above 1 where it failed.
        is_whole: Whether all images judged it, or some.
        model: The graph.
    """

    method: Method
    excluded: tuple[str, ...]
    share: float
    is_whole: bool
    model: ir.Model

    @property
    def passed(self) -> bool:
        """Whether all images found it within every limit."""
        return self.is_whole and self.share <= 1


@dataclass(frozen=True, slots=True)
class Question:
    """What a search is about.

    Attributes:
        derive: Makes the graph for a method and layers that stay in float32.
        screen: Runs a graph on some of the images that judge.
        judge: Runs a graph on all of them; it was calibrated on none.
        layers: All layers, first to last.
        excluded: Layers that stay in float32 in any case.
        tell: Called with what is being tried.
    """

    derive: Callable[[Method, Sequence[str]], ir.Model]
    screen: Callable[[ir.Model], Sequence[GraphReport]]
    judge: Callable[[ir.Model], Sequence[GraphReport]]
    layers: Sequence[str]
    excluded: tuple[str, ...] = ()
    tell: Callable[[str], None] = lambda _: None


def search(question: Question) -> tuple[Trial, ...]:
    """Find the INT8 graph to keep; it is the last trial.

    First every method is tried with all layers in INT8. Graphs of one structure run at one speed,
    so the most accurate that passes is kept. Where none does, layers go back to float32 one after
    another, the one that quantisation harms most first, and the first graph that passes is kept:
    each further layer would cost time. Fewer than half of the layers go.

    Returns:
        All trials. Where none passed, the last is the best of those that all images judged.
    """
    trials = [_trial(question, method, question.excluded) for method in METHODS]
    ranked = sorted(trials, key=_by_share)
    for trial in ranked:
        if trial.share > 1:
            break
        trials.append(_confirmed(question, trial))
        if trials[-1].passed:
            return tuple(trials)
    best = ranked[0].method
    # One layer, a head, may be cut away later, and most of the rest must still be INT8.
    most = (len(question.layers) - 1) // 2 - len(question.excluded)
    if most > 0:
        others = [layer for layer in question.layers if layer not in question.excluded]
        alone = [_trial(question, best, (*question.excluded, layer)) for layer in others]
        order = [trial.excluded[-1] for trial in sorted(alone, key=_by_share)]
        trials += alone
        for count in range(1, most + 1):
            trial = _trial(question, best, (*question.excluded, *order[:count]))
            trials.append(_confirmed(question, trial))
            if trials[-1].passed:
                return tuple(trials)
    whole = [trial for trial in trials if trial.is_whole]
    return (*trials, min(whole, key=_by_share) if whole else _confirmed(question, ranked[0]))


def _trial(question: Question, method: Method, excluded: tuple[str, ...]) -> Trial:
    question.tell(f"{method}, {', '.join(excluded) or 'nothing'} in float32")
    model = question.derive(method, excluded)
    share = share_of_limits(question.screen(model))
    return Trial(method, excluded, share, is_whole=False, model=model)


def _confirmed(question: Question, trial: Trial) -> Trial:
    share = share_of_limits(question.judge(trial.model))
    return replace(trial, share=share, is_whole=True)


def share_of_limits(reports: Sequence[GraphReport]) -> float:
    """Return the largest share of its limit that any gated figure uses; above 1 if one failed."""
    return max((_share(metric) for report in reports for metric in report.metrics), default=0.0)


def _share(metric: Metric) -> float:
    if metric.limit is None:
        return 0.0
    if metric.limit == 0:
        return 0.0 if metric.passed else math.inf
    if metric.unit == "dB":  # as a ratio of RMS errors
        share = 10 ** ((metric.limit - metric.value) / 20)
    elif metric.higher_is_better:
        share = (1 - metric.value) / (1 - metric.limit)
    else:
        share = metric.value / metric.limit
    return math.inf if math.isnan(share) else share


def _by_share(trial: Trial) -> float:
    return trial.share
