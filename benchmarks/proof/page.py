"""The page of a proof: one HTML file that asks nothing of the network, for desks and phones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jinja2

from ...runtime.core.atomic_files import replaced_file
from .record import Proof, StepRecord

_TEMPLATE = Path(__file__).with_name("proof.html.j2")
_UNITS = ("gb_per_s", "tflop_per_s", "images_per_s", "per_s", "ms", "mj", "w")
"""How names of figures end; see `words_of`."""
_SHOWN_UNITS = {
    "gb_per_s": "GB/s",
    "tflop_per_s": "TFLOP/s",
    "images_per_s": "images/s",
    "per_s": "/s",
    "ms": "ms",
    "mj": "mJ",
    "w": "W",
}


def save_page(path: Path, proof: Proof) -> None:
    """Write the page, whole or not at all; an OutputError where it cannot be written."""
    templates = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = templates.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        proof=proof,
        title=title_of(proof),
        counts=proof.counts,
        commits=sorted({commit_words(step) for step in proof.steps if step.commit}),
        steps=proof.steps,
        figures=lambda row: [*map(words_of, row.figures, row.figures.values())],
        facts=dict(_facts(proof)),
    )
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def title_of(proof: Proof) -> str:
    """Return what it ran on: the GPU's name, or that there was none."""
    gpu = proof.machine.gpu
    return gpu.name if gpu and not proof.machine.no_gpu else "no GPU"


def commit_words(step: StepRecord) -> str:
    """Return of which source a step was, in a few words."""
    changed = " with changes" if step.dirty else " (changes unknown)" if step.dirty is None else ""
    return f"{(step.commit or 'unknown')[:12]}{changed}"


def words_of(name: str, value: float) -> str:
    """Return a figure for people: `wall_p50_ms` and 1.234 give "wall p50 1.23 ms"."""
    unit = next((unit for unit in _UNITS if name.endswith(f"_{unit}")), "")
    title = (name.removesuffix(f"_{unit}") if unit else name).replace("_", " ")
    shown = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{title} {shown} {_SHOWN_UNITS.get(unit, '')}".strip()


def _facts(proof: Proof) -> Iterator[tuple[str, object]]:
    machine = proof.machine
    if machine.gpu is not None:
        gpu = machine.gpu.model_dump(exclude_none=True)
        yield from ((f"GPU {name}", fact) for name, fact in gpu.items())
    if machine.board:
        yield "board", machine.board
    environment = machine.environment
    if environment is not None:
        facts = environment.model_dump(exclude_none=True)
        versions = facts.pop("versions")
        yield from ((name, fact) for name, fact in facts.items() if name not in {"threads", "gpu"})
        yield from ((f"version of {name}", version) for name, version in versions.items())
    for number, state in enumerate(machine.power):
        yield f"GPU {number} before", ", ".join(f"{name} {value}" for name, value in state.items())
