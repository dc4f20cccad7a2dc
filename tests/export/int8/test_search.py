from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir
import pytest

from motorvae.export.int8.search import (
    METHODS,
    MOST_COMPARED,
    MOST_FINALISTS,
    Search,
    Trial,
)
from motorvae.export.transforms.qdq import Method
from motorvae.runtime.bundle.manifest import GraphReport, Metric

LAYERS = ("one", "two", "three", "four", "five", "six", "head")


def reports(*metrics: Metric) -> tuple[GraphReport, ...]:
    return (
        GraphReport(
            graph="encoder",
            precision="int8",
            output="mu",
            engine="none",
            reference="none",
            images=1,
            metrics=metrics,
        ),
    )


def error(share: float) -> tuple[GraphReport, ...]:
    return reports(Metric(name="max", value=share, limit=1.0, passed=share <= 1))


Share = Callable[[Method, tuple[str, ...]], float]


class Asked:
    """A search whose candidates have made-up errors, by which images judge them."""

    def __init__(
        self,
        share: Share,
        on_all: Share | None = None,
        on_judges: Share | None = None,
        excluded: tuple[str, ...] = (),
        together: int = 1,
        layers: Sequence[str] = LAYERS,
    ) -> None:
        self.derived: list[tuple[Method, tuple[str, ...]]] = []
        self.finalists: list[Trial] = []
        on_all = on_all or share
        self._shares = {"some": share, "choosing": on_all, "judging": on_judges or on_all}
        self.search = Search(self._derive, self._verify, layers, excluded, together=together)

    def _verify(self, trial: Trial) -> tuple[GraphReport, ...]:
        assert self.derived[int(str(trial.model.graph.name))] == (trial.method, trial.excluded)
        if trial.judges == "judging":
            self.finalists.append(trial)
        return error(self._shares[trial.judges](trial.method, trial.excluded))

    def _derive(self, method: Method, excluded: Sequence[str]) -> ir.Model:
        self.derived.append((method, tuple(excluded)))
        graph = ir.Graph([], [], nodes=[], name=str(len(self.derived) - 1))
        return ir.Model(graph, ir_version=10)


def test_most_accurate_method_is_kept_and_no_layer_is_given_up() -> None:
    best = METHODS[3]
    asked = Asked(lambda method, _: 0.4 if method == best else 0.9)
    found = asked.search.run()[-1]
    assert (found.method, found.excluded, found.passed) == (best, (), True)
    assert asked.derived == [(method, ()) for method in METHODS]


def test_what_a_few_images_let_pass_and_all_do_not_is_not_kept() -> None:
    shares = dict(zip(METHODS, (0.5, 0.2, 0.3, 0.9, 0.9, 0.9), strict=True))
    asked = Asked(
        lambda method, _: shares[method],
        lambda method, _: 1.2 if method == METHODS[1] else shares[method] + 0.1,
    )
    found = asked.search.run()[-1]
    assert found.method == METHODS[2]
    assert found.share == pytest.approx(0.4)
    assert found.passed
    assert [trial.method for trial in asked.finalists] == [METHODS[2]]


def test_layers_go_back_to_float_most_harmful_first_and_no_more_than_needed() -> None:
    harm = {"three": 0.9, "five": 0.6, "one": 0.1}

    def share(method: Method, excluded: tuple[str, ...]) -> float:
        return 2.4 - sum(harm.get(layer, 0) for layer in excluded) + (method != METHODS[2])

    asked = Asked(share)
    found = asked.search.run()[-1]
    assert (found.method, found.excluded) == (METHODS[2], ("three", "five"))
    assert found.passed


def test_ranges_that_suited_a_layer_in_int8_alone_are_not_kept_when_it_is_in_float() -> None:
    """As of a decoder whose last layer wants narrow ranges, and all others wide ones."""
    widest, narrow = METHODS[0], METHODS[1]

    def share(method: Method, excluded: tuple[str, ...]) -> float:
        if "head" in excluded:
            return {widest: 0.5, narrow: 1.2}.get(method, 1.1)
        return {narrow: 1.5}.get(method, 2.0) - 0.1 * ("two" in excluded)

    found = Asked(share).search.run()[-1]
    assert (found.method, found.excluded, found.passed) == (widest, ("head",), True)


def test_layer_whose_harm_only_wide_ranges_show_goes_first() -> None:
    widest, narrow = METHODS[0], METHODS[1]

    def share(method: Method, excluded: tuple[str, ...]) -> float:
        if method == widest and "head" in excluded:
            return 0.5
        return {narrow: 1.5}.get(method, 2.0) - 0.1 * ("two" in excluded)

    asked = Asked(share)
    found = asked.search.run()[-1]
    assert (found.method, found.excluded, found.passed) == (widest, ("head",), True)
    assert len(asked.derived) == len({*asked.derived})  # none is made twice


def test_of_a_network_of_dozens_of_layers_not_every_candidate_is_made() -> None:
    layers = [str(number) for number in range(41)]
    asked = Asked(lambda _method, excluded: 9.0 - 0.1 * len(excluded), layers=layers)
    assert not asked.search.run()[-1].passed
    alone = 2 * len(layers)
    compared = MOST_COMPARED * len(METHODS)
    assert max(len(excluded) for _, excluded in asked.derived) == 20
    assert len(asked.derived) <= len(METHODS) + alone + compared + 20


def test_neighbours_go_to_float_together_where_one_alone_gains_nothing() -> None:
    """As in ONNX Runtime, which rounds what one layer hands to the next if either is INT8."""
    together = {"six", "head"}

    def share(_method: Method, excluded: tuple[str, ...]) -> float:
        return 0.5 if together <= {*excluded} else 2.0

    found = Asked(share, together=2).search.run()[-1]
    assert (found.excluded, found.passed) == (("six", "head"), True)
    assert not Asked(share).search.run()[-1].passed
    failing = Asked(lambda _method, _excluded: 2.0, together=2)
    assert not failing.search.run()[-1].passed
    counts = {len(excluded) for _, excluded in failing.derived}
    assert counts == {0, 2, (len(LAYERS) - 1) // 2}


def test_layers_that_stay_in_float_anyway_count_and_are_not_tried_again() -> None:
    asked = Asked(lambda _method, excluded: 3.0 - 0.1 * len(excluded), excluded=("one",))
    trials = asked.search.run()
    assert all(excluded[0] == "one" and excluded.count("one") == 1 for _, excluded in asked.derived)
    assert max(len(excluded) for _, excluded in asked.derived) == (len(LAYERS) - 1) // 2
    assert not trials[-1].passed
    assert trials[-1].share == min(trial.share for trial in trials)


def test_the_best_of_those_that_all_images_refused_comes_last() -> None:
    """One that only a few images let pass is no better than they found it on all."""
    asked = Asked(
        lambda method, _: 0.1 if method == METHODS[0] else 0.9,
        lambda method, _: 3.0 if method == METHODS[0] else 1.01,
    )
    trials = asked.search.run()
    assert not any(trial.passed for trial in trials)
    assert (trials[-1].judges, trials[-1].share) == ("choosing", 1.01)
    assert not asked.finalists


def test_what_chose_it_passes_and_what_judges_it_refuses_is_not_kept() -> None:
    """The planted fault: a candidate is good on the images that chose it and bad on the others."""
    lucky, sound = METHODS[1], METHODS[4]

    def judged(method: Method, excluded: tuple[str, ...]) -> float:
        return 1.1 if method == lucky and not excluded else 0.4

    asked = Asked(lambda method, _: {lucky: 0.1, sound: 0.9}.get(method, 2.0), on_judges=judged)
    found = asked.search.run()[-1]
    assert [trial.method for trial in asked.finalists] == [lucky, sound]
    assert (found.method, found.excluded, found.passed) == (sound, (), True)

    def chosen(method: Method, excluded: tuple[str, ...]) -> float:
        return 0.08 if excluded else {lucky: 0.1}.get(method, 2.0)

    asked = Asked(chosen, on_judges=judged)
    found = asked.search.run()[-1]
    assert (found.method, len(found.excluded), found.passed) == (lucky, 1, True)


def test_head_room_that_a_failed_finalist_lacked_is_asked_of_the_next() -> None:
    harm = dict(zip(LAYERS[:3], (0.1, 0.2, 0.3), strict=True))

    def chosen(_method: Method, excluded: tuple[str, ...]) -> float:
        return 0.9 - sum(harm.get(layer, 0) for layer in excluded)

    asked = Asked(chosen, on_judges=lambda method, excluded: 1.5 * chosen(method, excluded))
    found = asked.search.run()[-1]
    # 0.9 is judged at 1.35; 0.6 x 1.5 passes, and nothing between is judged.
    assert [trial.excluded for trial in asked.finalists] == [(), (), (), ("three",)]
    assert found.excluded == ("three",)
    assert found.share == pytest.approx(0.9)
    assert found.passed


def test_looks_that_head_room_left_over_go_to_the_best_with_layers_in_float() -> None:
    """One layer alone makes the tail: the head room asked for from the failure is too much."""
    harm = dict(zip(LAYERS[:3], (0.1, 0.2, 0.3), strict=True))

    def chosen(_method: Method, excluded: tuple[str, ...]) -> float:
        return 0.9 - sum(harm.get(layer, 0) for layer in excluded)

    def judged(_method: Method, excluded: tuple[str, ...]) -> float:
        return 0.95 if "three" in excluded and "two" in excluded else 4.0

    asked = Asked(chosen, on_judges=judged)
    found = asked.search.run()[-1]
    assert found.passed
    assert found.excluded == ("three", "two", "one")
    assert len(asked.finalists) == 4


def test_few_are_held_against_the_judges_however_many_choose_well() -> None:
    def judged(_method: Method, excluded: tuple[str, ...]) -> float:
        return 1.01 + 0.01 * len(excluded)

    asked = Asked(lambda _method, excluded: 0.9 - 0.2 * len(excluded), on_judges=judged)
    trials = asked.search.run()
    assert 2 <= len(asked.finalists) <= MOST_FINALISTS
    assert (trials[-1].judges, trials[-1].share) == ("judging", 1.01)


@pytest.mark.parametrize(
    ("metric", "share"),
    [
        (Metric(name="a", value=0.1, limit=0.4), 0.25),
        (Metric(name="a", value=0.3), 0.0),
        (Metric(name="a", value=0, limit=0), 0.0),
        (Metric(name="a", value=2, limit=0, passed=False), float("inf")),
        (Metric(name="a", value=float("nan"), limit=1, passed=False), float("inf")),
        (Metric(name="a", value=46.0206, limit=40, unit="dB", higher_is_better=True), 0.5),
        (Metric(name="a", value=0.95, limit=0.9, higher_is_better=True), 0.5),
    ],
    ids=str,
)
def test_share_of_a_limit_is_in_errors_whatever_the_unit(metric: Metric, share: float) -> None:
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    trial = Trial(METHODS[0], (), model, "judging", reports(metric))
    assert trial.share == pytest.approx(share, rel=1e-3)
