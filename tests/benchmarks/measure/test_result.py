from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from motorvae.benchmarks.measure.case import Case, GpuMode, samples_of
from motorvae.benchmarks.measure.result import Result, load_result
from motorvae.runtime.bundle.manifest import Metric
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import MeasurementError, OutputError


def test_a_result_reads_back_as_it_was_written(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    save_document(path, result)
    assert load_result(path) == result
    raw = json.loads(path.read_text())["cases"][0]["stages"]["run"]["samples"]
    assert tuple(raw) == result.cases[0].stages["run"].samples
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]


def test_percentiles_are_those_of_the_samples() -> None:
    series = samples_of([n * 1_000_000 for n in range(1, 102)])
    found = (series.p50, series.p90, series.p95, series.p99, series.max)
    assert found == pytest.approx((51, 91, 96, 100, 101))
    assert series.shown_in == "ms"


def test_bytes_are_read_in_mib() -> None:
    series = samples_of([1 << 20, 3 << 20, 5 << 20], "bytes")
    assert (series.p50, series.max, series.shown_in) == (3, 5, "MiB")
    assert series.shown == (1, 3, 5)


Edit = Callable[[dict[str, Any]], object]
EDITS: dict[str, tuple[Edit, str]] = {
    "another version": (
        lambda r: r.update(schema_version=1),
        r"schema_version=1, and this motorVAE reads 4: run motorvae-bench again",
    ),
    "no version": (lambda r: r.pop("schema_version"), "schema_version=None"),
    "unknown key": (lambda r: r.update(speed="fast"), "speed: Extra inputs"),
    "polished median": (
        lambda r: r["cases"][0]["stages"]["run"].update(p50=0.1),
        "are not those of the samples",
    ),
    "sample of no time": (
        lambda r: r["cases"][0]["stages"]["run"]["samples"].__setitem__(0, 0),
        "a sample of 0 ns",
    ),
    "milliseconds called MiB": (
        lambda r: r["cases"][0]["stages"]["run"].update(unit="bytes"),
        "are not those of the samples",
    ),
    "a case twice": (
        lambda r: r["cases"].append(r["cases"][0]),
        "two cases are called 'encoder, batch 1, torch eager'",
    ),
    "no fp32 rate": (lambda r: r["matrix"].clear(), "matrix has no fp32 rate"),
    "no samples": (
        lambda r: r["cases"][0]["stages"]["run"].update(samples=[]),
        "samples",
    ),
}


@pytest.mark.parametrize(("edit", "message"), EDITS.values(), ids=EDITS)
def test_an_altered_result_is_refused(
    result: Result, tmp_path: Path, edit: Edit, message: str
) -> None:
    path = tmp_path / "bench.json"
    content = json.loads(result.model_dump_json())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match=message):
        load_result(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_what_is_not_a_result_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match=r"bench\.json.*run motorvae-bench again"):
        load_result(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="cannot read"):
        load_result(tmp_path / "bench.json")


def test_a_case_has_samples_or_a_reason_and_never_both() -> None:
    with pytest.raises(ValidationError, match="either samples or the reason"):
        Case(group="encoder", engine="torch eager", batch=1)
    with pytest.raises(ValidationError, match="either samples or the reason"):
        Case(
            group="encoder",
            engine="torch eager",
            batch=1,
            not_measured="broken",
            stages={"run": samples_of([1])},
        )


KINDS: dict[str, dict[str, Any]] = {
    "encoder, batch 8, torch eager": {"group": "encoder", "engine": "torch eager", "batch": 8},
    "encoder, batch 1, OpenVINO, int8, mu, uint8 input": {
        "group": "encoder",
        "engine": "OpenVINO",
        "precision": "int8",
        "outputs": "mu",
        "input_type": "uint8",
    },
    "path, mjpeg 1920x1080 frame, plain recipe": {
        "group": "path",
        "engine": "plain recipe",
        "source": "mjpeg",
        "frame": (1920, 1080),
    },
    "gpu, batch 1, TensorRT, fp16, decoder, CUDA graph: copies and kernels": {
        "group": "gpu",
        "engine": "TensorRT",
        "precision": "fp16",
        "variant": "decoder",
        "mode": GpuMode(cuda_graph="copies and kernels"),
    },
}


@pytest.mark.parametrize(("key", "facts"), KINDS.items(), ids=KINDS)
def test_the_key_names_all_that_tells_a_case_apart(key: str, facts: dict[str, Any]) -> None:
    assert Case(**facts, not_measured="no time").key == key


@pytest.mark.parametrize("psnr", [52.5, float("inf")])
def test_errors_read_back_as_they_were_written(result: Result, tmp_path: Path, psnr: float) -> None:
    case = result.cases[0].model_copy(
        update={
            "latent_error": Metric(name="largest error / spread", value=0.02, limit=0.05),
            "psnr": Metric(name="PSNR", value=psnr, unit="dB", limit=45, higher_is_better=True),
        }
    )
    changed = result.model_copy(update={"cases": (case, *result.cases[1:])})
    save_document(tmp_path / "bench.json", changed)
    assert load_result(tmp_path / "bench.json") == changed


def test_a_result_that_cannot_be_written_says_so(result: Result, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        save_document(tmp_path / "file" / "bench.json", result)
