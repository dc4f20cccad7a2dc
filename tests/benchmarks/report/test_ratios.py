"""Gains of the published result against itself, with a fault planted, and on a slower machine."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from motorvae.benchmarks.measure.case import Case, samples_of
from motorvae.benchmarks.measure.result import Result, load_result
from motorvae.benchmarks.report.ratios import compare_gains, gains_of
from motorvae.runtime.core.errors import MeasurementError

Command = Callable[..., str]
PUBLISHED = Path(__file__).parents[3] / "docs" / "results" / "speed.json.gz"


@pytest.fixture(scope="module")
def published() -> Result:
    return load_result(PUBLISHED)


def slower(case: Case, times: float) -> Case:
    """The same case with all its times so many times as long."""
    if case.whole is None or case.whole.unit != "ns":
        return case
    stages = {
        name: samples_of([round(one * times) for one in series.samples])
        for name, series in case.stages.items()
    }
    return case.with_facts(stages=stages)


def changed(result: Result, how: Callable[[Case], Case]) -> Result:
    return result.model_copy(update={"cases": tuple(how(case) for case in result.cases)})


def lost(before: Result, after: Result, tolerance: float = 0.35) -> list[str]:
    return [one.key for one in compare_gains(before, after, tolerance) if one.lost]


def test_nothing_is_lost_against_itself(published: Result) -> None:
    assert lost(published, published) == []
    assert len(gains_of(published)) > 50


def test_a_machine_of_half_the_speed_has_lost_nothing(published: Result) -> None:
    assert lost(published, changed(published, lambda case: slower(case, 2.0))) == []


@pytest.mark.parametrize("tolerance", [0.35, 0.45])  # the default, and that of CI
@pytest.mark.parametrize("engine", ["ONNX Runtime", "OpenVINO"])
def test_half_the_gain_of_int8_is_lost(published: Result, engine: str, tolerance: float) -> None:
    def halved(case: Case) -> Case:
        is_it = (case.group, case.engine, case.precision) == ("encoder", engine, "int8")
        return slower(case, 2.0) if is_it else case

    found = lost(published, changed(published, halved), tolerance)
    assert f"encoder, batch 1, {engine}, int8, mu, uint8 input, ours, over torch eager" in str(
        found
    )
    assert all(f"{engine}, int8" in key and key.startswith("encoder") for key in found)


def test_a_camera_that_waits_is_lost(published: Result) -> None:
    found = lost(
        published,
        changed(
            published, lambda case: slower(case, 2) if case.variant == "motorvae-stream" else case
        ),
    )
    assert found
    assert all("its parts alone over its age" in key for key in found)


def test_a_minute_of_other_work_loses_nothing(published: Result) -> None:
    """A quarter of the turns of a case, and of it alone, takes five times as long."""

    def disturbed(case: Case) -> Case:
        if case.whole is None or case.precision != "int8" or case.group != "encoder":
            return case
        size = published.turn_of(case)
        end = len(case.whole.samples) // size // 4 * size
        samples = [one * (5 if at < end else 1) for at, one in enumerate(case.whole.samples)]
        return case.with_facts(stages={"run": samples_of(samples)})

    assert lost(published, changed(published, disturbed)) == []


def test_on_another_processor_a_gain_counts_by_its_matrix_rates(published: Result) -> None:
    environment = published.environment.model_copy(update={"cpu": "one without VNNI"})
    other = published.model_copy(update={"environment": environment})
    found = compare_gains(published, other, 0.35)
    assert 0 < len(found) < len(gains_of(published))
    assert all("int8" in one.key or "bf16" in one.key for one in found)
    assert not any(one.lost for one in found)

    def series_of(rate: object, times: float) -> object:
        series = samples_of([round(one * times) for one in rate.series.samples])  # type: ignore[attr-defined]
        return rate.model_copy(update={"series": series})  # type: ignore[attr-defined]

    # Its INT8 is half as fast by the rates, and so are the graphs.
    matrix = published.matrix | {"int8": series_of(published.matrix["int8"], 2.0)}
    plain = changed(other, lambda case: slower(case, 2) if case.precision == "int8" else case)
    assert not any(
        one.lost
        for one in compare_gains(published, plain.model_copy(update={"matrix": matrix}), 0.35)
    )
    assert any(one.lost for one in compare_gains(published, plain, 0.35))


def test_a_model_of_another_grey_is_compared_by_its_graphs_alone(published: Result) -> None:
    grey = published.model.model_copy(update={"matrix": "bt709"})
    found = compare_gains(published, published.model_copy(update={"model": grey}), 0.35)
    assert {one.after.of.group for one in found} == {"encoder", "decoder"}


def test_what_cannot_be_compared_is_refused(published: Result) -> None:
    other = published.model_copy(
        update={"model": published.model.model_copy(update={"latent_size": 64})}
    )
    with pytest.raises(MeasurementError, match="the model or the instruction set differs"):
        compare_gains(published, other, 0.35)
    gone = changed(
        published,
        lambda case: (
            case.with_facts(stages={}, not_measured="it crashed")
            if case.precision == "int8" and case.whole is not None
            else case
        ),
    )
    with pytest.raises(MeasurementError, match=r"no longer measured: .*int8.*it crashed"):
        compare_gains(published, gone, 0.35)
    drifted = changed(
        published,
        lambda case: (
            case.model_copy(
                update={"latent_error": case.latent_error.model_copy(update={"passed": False})}
            )
            if case.precision == "int8" and case.latent_error
            else case
        ),
    )
    with pytest.raises(MeasurementError, match=r"no longer measured: .*int8.*its drift gate"):
        compare_gains(published, drifted, 0.35)
    with pytest.raises(MeasurementError, match="share no ratio"):
        compare_gains(published, published.model_copy(update={"cases": ()}), 0.35)


def test_an_expected_precision_that_is_gone_is_refused_and_others_are_named(
    published: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def only(keep: Callable[[Case], bool]) -> Result:
        cases = tuple(case for case in published.cases if keep(case))
        return published.model_copy(update={"cases": cases})

    without = only(lambda case: case.precision != "int8")
    with pytest.raises(MeasurementError, match=r"expected ratios are missing: .*, int8, .*find"):
        compare_gains(published, without, 0.35, expect=["int8"])
    in_one = only(lambda case: (case.engine, case.precision) != ("OpenVINO", "int8"))
    with pytest.raises(MeasurementError, match="are missing: encoder, batch 1, OpenVINO, int8"):
        compare_gains(published, in_one, 0.35, expect=["int8"])
    # Work of another kind, or at another batch size, that one result alone has measured is none.
    short = only(lambda case: case.group == "encoder" and case.batch == 1)
    assert compare_gains(published, short, 0.35, expect=["int8", "bf16"])
    with pytest.raises(MeasurementError, match="expected int4, of which the first result has no"):
        compare_gains(published, short, 0.35, expect=["int4"])

    # On another processor without its matrix rate, none of them says anything.
    rates = {name: rate for name, rate in published.matrix.items() if name != "int8"}
    cpu = published.environment.model_copy(update={"cpu": "another"})
    elsewhere = published.model_copy(update={"environment": cpu, "matrix": rates})
    assert compare_gains(published, elsewhere, 0.35)
    with pytest.raises(MeasurementError, match="expected int8, of which no ratio could be"):
        compare_gains(published, elsewhere, 0.35, expect=["int8"])
    unmeasured = changed(
        published,
        lambda case: case.with_facts(stages={}) if case.precision == "int8" else case,
    )
    with pytest.raises(MeasurementError, match="expected int8, of which the first result has no"):
        compare_gains(unmeasured, unmeasured, 0.35, expect=["int8"])

    from motorvae.benchmarks.cli import main  # with its own console

    path = tmp_path / "bench.json"
    path.write_text(without.model_dump_json())
    assert main(["compare", str(PUBLISHED), str(path), "--ratios"]) == 0
    assert "of encoder, " in capsys.readouterr().out
    assert main(["compare", str(PUBLISHED), str(path), "--ratios", "--expect", "int8"]) == 1
    assert main(["compare", str(PUBLISHED), str(path), "--expect", "int8"]) == 1
    assert "--expect int8: give --ratios, too" in capsys.readouterr().err


def test_the_command_reads_what_is_published_and_ends_with_1_where_a_gain_is_lost(
    published: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from motorvae.benchmarks.cli import main  # with its own console

    path = tmp_path / "bench.json"
    path.write_text(
        changed(
            published, lambda case: slower(case, 2) if case.precision == "int8" else case
        ).model_dump_json()
    )
    assert main(["compare", str(PUBLISHED), str(PUBLISHED), "--ratios"]) == 0
    assert main(["compare", str(PUBLISHED), str(path), "--ratios"]) == 1
    said = capsys.readouterr()
    assert "lost: 3." in said.out
    assert "ratios fell by more than 35%, most of all" in said.err
    assert main(["compare", str(PUBLISHED), str(path), "--ratios", "--tolerance", "0.9"]) == 0


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"{}")[:-6]], ids=["no gzip", "cut short"]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "speed.json.gz"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match="is no gzip file"):
        load_result(path)
