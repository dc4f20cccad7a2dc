"""From a proof to the platform table of the documentation, and back: who claims what with what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...runtime.core.errors import MeasurementError
from .record import Proof, load_proof

SECTIONS: dict[str, tuple[str, ...]] = {
    "x86-64, GeForce or RTX GPU": ("doctor-tensorrt-rtx", "tests-rtx"),
    "x86-64, any NVIDIA GPU: TensorRT": ("doctor-tensorrt", "tests-tensorrt"),
    "x86-64, any NVIDIA GPU: ONNX Runtime": ("doctor-onnx", "tests-onnx", "stream-onnx"),
    "Jetson Orin, JetPack 6": ("doctor-tensorrt", "tests-tensorrt"),
    "Jetson, JetPack 7": ("doctor-tensorrt", "tests-tensorrt"),
}
"""The rows of the table that a GPU can prove, by how they begin (with the first words of the second
column after a colon), and the steps of which one must have proven something."""
_LINK = re.compile(r"\]\((results/[^)\s]+\.json)\)")


@dataclass(frozen=True)
class PlatformRow:
    """One row of the table in docs/platforms.md."""

    platform: str
    runs: str  # What runs there
    claim: str  # The last column

    @property
    def section(self) -> str | None:
        """The key in `SECTIONS`; None where a GPU is not what the row is about."""
        text = f"{self.platform}: {self.runs}"
        for key in SECTIONS:
            platform, _, runs = key.partition(": ")
            if text.startswith(platform) and self.runs.startswith(runs):
                return key
        return None


def rows_of_table(page: str) -> Iterator[PlatformRow]:
    """Yield the rows of the table whose last heading is "run on real hardware"."""
    lines = [line.strip() for line in page.splitlines()]
    heads = [n for n, line in enumerate(lines) if line.endswith("| run on real hardware |")]
    for line in lines[heads[0] + 2 :] if heads else ():
        if not line.startswith("|"):
            return
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        yield PlatformRow(cells[0], cells[1], cells[-1])


def cells_of(proof: Proof, link: str) -> dict[str, str]:
    """Return the last cell of each row of the table that a proof changes, by key of `SECTIONS`.

    `link` is where its JSON lies, as docs/platforms.md has it. A machine without a GPU is a
    MeasurementError, and so is one on which nothing of the table was proven.
    """
    machine = proof.machine
    if machine.no_gpu or machine.gpu is None:
        raise MeasurementError(
            f"this proof is of a machine without a GPU ({machine.no_gpu}): it changes no row"
        )
    found = {}
    for key, names in SECTIONS.items():
        if key.startswith("Jetson") != machine.gpu.integrated:
            continue
        # A Grace Hopper or an Arm server with a card is none of the table's.
        if key.startswith("x86-64") and not _is_x86(proof):
            continue
        if "JetPack" in key and _jetpack_of(proof) != key.rpartition(" ")[2]:
            continue
        rows = [row for step in proof.steps if step.name in names for row in step.rows]
        proven = sum(row.status == "proven" for row in rows)
        if not proven:
            continue
        failed = sum(row.status == "failed" for row in rows)
        words = f"{proven} of {len(rows)} rows proven" + (f", **{failed} failed**" * bool(failed))
        name = f"{machine.gpu.name}, driver {machine.gpu.driver or 'unknown'}"
        found[key] = f"**yes**: [{name}]({link}), {proof.updated[:10]}: {words}"
    if not found:
        raise MeasurementError("nothing of the platform table is proven in it: it changes no row")
    return found


def unfounded_claims(page: str, docs: Path) -> list[str]:
    """Return what is wrong with the table's claims: each "yes" about a GPU links its proof.

    The proof must be there and readable, be of a real GPU, and have proven a row of that platform.
    """
    wrong = []
    for row in rows_of_table(page):
        if row.section is None or row.claim == "no":
            continue
        links = _LINK.findall(row.claim)
        if not links:
            wrong.append(f"{row.platform}: it claims a run and links no JSON below results/")
        for link in links:
            try:
                cells = cells_of(load_proof(docs / link), link)
            except MeasurementError as error:
                wrong.append(f"{row.platform}: {link}: {error}")
                continue
            if row.section not in cells:
                wrong.append(f"{row.platform}: {link} proves nothing of it")
            elif cells[row.section] not in row.claim:
                wrong.append(f"{row.platform}: {link} says: {cells[row.section]}")
    return wrong


def unlinked_proofs(page: str, docs: Path) -> list[str]:
    """Return the proofs below docs/results that the table does not link."""
    linked = set(_LINK.findall(page))
    found = (path.relative_to(docs).as_posix() for path in docs.glob("results/gpu-*/proof.json"))
    return sorted(set(found) - linked)


def _is_x86(proof: Proof) -> bool:
    environment = proof.machine.environment
    return environment is not None and environment.machine in {"x86_64", "AMD64"}


def _jetpack_of(proof: Proof) -> str:
    """Return the major version of JetPack: L4T 36 is JetPack 6, and 38 and 39 are 7."""
    release = re.search(r"\bR(\d+)\b", proof.machine.board or "")
    return {"36": "6", "38": "7", "39": "7"}.get(release[1] if release else "", "")
