"""The platform table claims a run on hardware only where its proof lies in docs/results."""

from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.benchmarks.proof.cli import main
from motorvae.benchmarks.proof.platforms import (
    SECTIONS,
    cells_of,
    rows_of_table,
    unfounded_claims,
    unlinked_proofs,
)
from motorvae.benchmarks.proof.record import Proof, Row
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import MeasurementError

DOCS = Path(__file__).parents[3] / "docs"
LINK = "results/gpu-a-test/proof.json"
HEAD = (
    "| platform | what runs there | how it is checked otherwise | run on real hardware |\n"
    "| --- | --- | --- | --- |\n"
)


def page_of(claim: str, platform: str = "x86-64, any NVIDIA GPU") -> str:
    return f"{HEAD}| {platform} | ONNX Runtime with CUDA | as above | {claim} |\n\nText.\n"


@pytest.fixture
def docs(proof: Proof, tmp_path: Path) -> Path:
    (tmp_path / LINK).parent.mkdir(parents=True)
    save_document(tmp_path / LINK, proof)
    return tmp_path


def test_every_claim_of_the_table_has_its_proof() -> None:
    page = (DOCS / "platforms.md").read_text("utf-8")
    assert unfounded_claims(page, DOCS) == []
    assert unlinked_proofs(page, DOCS) == []


def test_the_rows_that_a_gpu_can_prove_are_found_in_the_table() -> None:
    rows = [*rows_of_table((DOCS / "platforms.md").read_text("utf-8"))]
    assert {row.section for row in rows} == {*SECTIONS, None}
    assert len(rows) >= 7


def test_a_claim_without_a_proof_is_found(docs: Path) -> None:
    assert unfounded_claims(page_of("no"), docs) == []
    for claim, says in (
        ("**yes**: it ran", "links no JSON below results/"),
        ("**yes**: [here](results/gpu-none/proof.json)", "cannot read"),
        (f"**yes**: [here]({LINK})", f"{LINK} says: "),
    ):
        (wrong,) = unfounded_claims(page_of(claim), docs)
        assert says in wrong
    (wrong,) = unfounded_claims(
        page_of(f"**yes**: [x]({LINK})", "x86-64, GeForce or RTX GPU (8.9)"), docs
    )
    assert wrong == f"x86-64, GeForce or RTX GPU (8.9): {LINK} proves nothing of it"


def test_an_arm_machine_with_a_card_is_no_row_of_x86(proof: Proof) -> None:
    environment = proof.machine.environment
    assert environment is not None
    for arm in (environment.model_copy(update={"machine": "aarch64"}), None):
        machine = proof.machine.model_copy(update={"environment": arm})
        with pytest.raises(MeasurementError, match="it changes no row"):
            cells_of(proof.model_copy(update={"machine": machine}), LINK)


def test_the_cell_that_the_command_prints_is_founded(
    docs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs.rename(docs.with_name("docs"))
    monkeypatch.chdir(docs.parent)
    assert main(["table", f"docs/{LINK}"]) == 0
    key, cell = capsys.readouterr().out.splitlines()
    assert key == "x86-64, any NVIDIA GPU: ONNX Runtime"
    assert cell.strip() == (
        f"**yes**: [A GPU of a test, driver 580.10]({LINK}), 2026-11-29: 1 of 2 rows proven"
    )
    assert unfounded_claims(page_of(cell.strip()), docs.with_name("docs")) == []


def test_a_proof_that_the_table_does_not_link_is_found(docs: Path) -> None:
    assert unlinked_proofs(page_of("no"), docs) == [LINK]
    assert unlinked_proofs(page_of(f"[x]({LINK})"), docs) == []


def test_failures_are_in_the_cell(proof: Proof) -> None:
    (step, *others) = proof.steps
    failed = Row(what="x", status="failed", reason="it crashed")
    broken = proof.model_copy(
        update={"steps": (step.model_copy(update={"rows": (*step.rows, failed)}), *others)}
    )
    (cell,) = cells_of(broken, LINK).values()
    assert cell.endswith("1 of 3 rows proven, **1 failed**")


def test_a_machine_without_a_gpu_changes_no_row(proof: Proof) -> None:
    machine = proof.machine.model_copy(update={"no_gpu": "no NVIDIA driver"})
    with pytest.raises(
        MeasurementError, match=r"without a GPU \(no NVIDIA driver\): it changes no"
    ):
        cells_of(proof.model_copy(update={"machine": machine}), LINK)
    with pytest.raises(MeasurementError, match="nothing of the platform table is proven in it"):
        cells_of(proof.model_copy(update={"steps": proof.steps[1:]}), LINK)


@pytest.mark.parametrize(
    ("board", "key"),
    [
        ("# R36 (release), REVISION: 4.3", "Jetson Orin, JetPack 6"),
        ("# R38 (release), REVISION: 2.0", "Jetson, JetPack 7"),
    ],
)
def test_a_jetson_is_known_by_its_release(proof: Proof, board: str, key: str) -> None:
    gpu = proof.machine.gpu
    assert gpu is not None
    machine = proof.machine.model_copy(
        update={"gpu": gpu.model_copy(update={"integrated": True}), "board": board}
    )
    step = proof.steps[0].model_copy(update={"name": "doctor-tensorrt"})
    jetson = proof.model_copy(update={"machine": machine, "steps": (step,)})
    assert [*cells_of(jetson, LINK)] == [key]
