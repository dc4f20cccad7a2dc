"""What the JSON of a proof cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motorvae.benchmarks.proof.record import (
    MachineFacts,
    Proof,
    Row,
    StepRecord,
    load_proof,
    public_text,
)
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import MeasurementError


def test_a_row_that_is_not_proven_has_a_reason_and_no_other_one() -> None:
    for facts in (
        {"status": "unproven"},
        {"status": "failed"},
        {"status": "proven", "reason": "it is so"},
    ):
        with pytest.raises(ValueError, match="only what is not proven has a reason"):
            Row.model_validate({"what": "x", **facts})


def test_nothing_is_proven_without_a_gpu(proof: Proof) -> None:
    content = proof.model_dump()
    content["machine"]["no_gpu"] = "libcuda.so.1 is the tests' stand-in driver"
    with pytest.raises(ValueError, match="a row is proven without a GPU: libcuda"):
        Proof.model_validate(content)


def test_nothing_is_proven_by_a_step_that_was_not_run() -> None:
    row = Row(what="x", status="proven")
    with pytest.raises(ValueError, match="was not run, and has a row that is proven"):
        StepRecord(name="x", proves="x", limit_s=1, rows=(row,))


def test_a_machine_has_a_gpu_or_a_reason() -> None:
    with pytest.raises(ValueError, match="has a GPU or the reason"):
        MachineFacts(gpu=None, environment=None)


def test_a_step_of_no_rows_or_twice_is_refused(proof: Proof) -> None:
    content = proof.model_dump()
    content["steps"] = [content["steps"][0]] * 2
    with pytest.raises(ValueError, match="two steps are called doctor-onnx"):
        Proof.model_validate(content)
    with pytest.raises(ValueError, match="rows"):
        StepRecord(name="x", proves="x", limit_s=1, rows=())


def test_it_is_read_as_it_was_written(proof: Proof, tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    save_document(path, proof, indent=1)
    assert load_proof(path) == proof
    path.write_text(path.read_text("utf-8").replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(MeasurementError, match="schema_version=2, and this motorVAE reads 1"):
        load_proof(path)


def test_the_worst_row_counts_for_a_step(proof: Proof) -> None:
    assert [step.status for step in proof.steps] == ["proven", "failed", "unproven"]
    assert dict(proof.counts) == {"proven": 1, "unproven": 2, "failed": 1}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GPU-12345678-9abc-def0-1234-56789abcdef0 fell", "GPU-... fell"),
        ("Serial Number : 1650522003820", "Serial Number : ..."),
        ("serial=0x12ab45", "serial=..."),
        ("serial execution of 12 kernels", "serial execution of 12 kernels"),
        ("hostname=box7 ; line=66", "hostname=... ; line=66"),
        ("two\nlines\x1b[31m", "two lines\\x1b[31m"),
        ("x" * 600, "x" * 497 + "..."),
    ],
)
def test_what_tells_one_machine_from_another_is_hidden(text: str, shown: str) -> None:
    assert public_text(text) == shown


def test_paths_of_the_run_are_relative(tmp_path: Path) -> None:
    facts: Any = f"in {tmp_path}/logs/x.log and {tmp_path}, not in {tmp_path}er/x"
    assert public_text(facts, tmp_path) == f"in logs/x.log and , not in {tmp_path}er/x"
