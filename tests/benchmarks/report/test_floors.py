from __future__ import annotations

from typing import Any

import pytest

from motorvae.benchmarks.measure.case import HUFFMAN_ALONE, Case, samples_of
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.report.floors import floor_of
from motorvae.benchmarks.report.tables import group_table, leaders_of

FRAME = {"source": "mjpeg", "frame": (1920, 1080)}
INT8 = {"engine": "OpenVINO", "precision": "int8", "outputs": "mu", "variant": "ours"}


def times(stages: dict[str, float], **facts: Any) -> Case:
    samples = {stage: samples_of([round(ms * 1e6)] * 3) for stage, ms in stages.items()}
    return Case.model_validate({"engine": "OpenVINO", "stages": samples, **facts})


PATH = times({"total": 5, "preprocess": 3.5, "encode": 1.5}, group="path", **FRAME, **INT8)
CODES = times({"total": 2.5}, group="path", **FRAME, engine="libjpeg-turbo", variant=HUFFMAN_ALONE)
ENCODER = times({"run": 1}, group="encoder", **INT8)


@pytest.mark.parametrize(
    ("others", "floor_ms"),
    [
        ((), None),
        ((CODES,), 4.0),
        ((CODES, ENCODER), 3.5),
        ((CODES, ENCODER.with_facts(batch=8)), 4.0),
        ((CODES, ENCODER.with_facts(engine="ONNX Runtime")), 4.0),
        ((CODES.with_facts(frame=(640, 480)), ENCODER), None),
    ],
)
def test_a_jpegs_floor_is_its_codes_and_the_same_encoder_alone(
    others: tuple[Case, ...], floor_ms: float | None
) -> None:
    assert floor_of(PATH, (PATH, *others)) == ("Huffman + encoder", floor_ms)


def test_other_sources_have_no_codes() -> None:
    yuv = PATH.with_facts(source="yuv")
    assert floor_of(yuv, (yuv, CODES, ENCODER)) == ("encoder alone", 1.5)


def test_the_codes_alone_lead_nothing_and_show_the_share_of_each_path(result: Result) -> None:
    found = result.model_copy(update={"cases": (PATH, CODES, ENCODER.with_facts(batch=8))})
    (leader,) = leaders_of(found)
    assert leader.case == PATH
    assert leader.words == "80% of Huffman + encoder"
    table = group_table(found, "path")
    assert table is not None
    place = (*table.texts, *table.figures).index("of floor")
    shares = [row[place] for row in table.rows if row[1]]
    assert shares == ["0.80", ""]


def test_what_is_faster_than_its_codes_is_not_valid(result: Result) -> None:
    quick = times({"total": 3, "preprocess": 1.5, "encode": 1.5}, group="path", **FRAME, **INT8)
    (leader,) = leaders_of(result.model_copy(update={"cases": (quick, CODES)}))
    assert leader.words == "not valid: faster than Huffman + encoder"
