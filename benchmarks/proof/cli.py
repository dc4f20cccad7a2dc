"""`python -m motorvae.benchmarks.proof`: run the steps, draw the page, give the table's cells."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ...runtime.core.atomic_files import check_writable
from ...runtime.core.command import Command, CommandGroup, PlainConsole, stderr_console
from ...runtime.core.errors import ConfigError, MeasurementError, needed_for, writing_output
from ...runtime.core.lifecycle import loading
from ...runtime.core.system.locks import output_locked
from ..options import check_least, check_output

JSON_NAME, PAGE_NAME = "proof.json", "proof.html"


@dataclass(frozen=True)
class ProofOptions:
    """Show what this machine's GPU makes of motorVAE: each step by itself, one JSON, one page.

    A second run on the same machine goes on: what is proven stays, and the other steps run again.
    Exit code 1 where something failed, or nothing is proven, as on a machine without a GPU.
    """

    output: Path = Path("gpu-proof")
    """The folder for proof.json and proof.html, such as docs/results/gpu-NAME."""
    work: Path = Path("gpu-proof/work")
    """The folder for logs, the model that is trained, and what steps leave for each other."""
    steps: tuple[str, ...] = ()
    """Run these steps, and run them again where they are proven; all is every step. By default
    those that are not proven yet."""
    seconds: float | None = None
    """Seconds that the whole may take; what does not fit is unproven."""
    time_factor: float = 1.0
    """Multiply the time limit of each step by this, such as 3 on a small board."""
    model: Path | None = None
    """A bundle to measure, instead of one that a step trains and exports."""
    checkpoint: Path | None = None
    """The training run that --model came from, for torch's encoder."""
    checkout: Path | None = None
    """The checkout whose tests are run; by default this folder, if it is one."""
    frames: int = 1000
    """Images through each engine of the doctor, one at a time."""
    list: bool = False
    """Print the steps with their time limits and what each needs here, and run none."""

    def __post_init__(self) -> None:
        check_least(self, frames=1)
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"--seconds {self.seconds:g}: take more than 0")
        if not 0.1 <= self.time_factor <= 100:
            raise ConfigError(f"--time-factor {self.time_factor:g}: take 0.1 to 100")
        if self.checkpoint is not None and self.model is None:
            raise ConfigError("--checkpoint: name the bundle of that run, too, with --model")
        for path, option in ((self.model, "--model"), (self.checkpoint, "--checkpoint")):
            if path is not None and not path.exists():
                raise ConfigError(f"{option} {path}: there is no such file or folder")
        if self.checkout is not None and not _is_checkout(self.checkout):
            raise ConfigError(f"--checkout {self.checkout}: it has no tests/gpu of motorVAE")


@dataclass(frozen=True)
class PageOptions:
    """Draw the page of a proof anew, such as after its JSON was brought from another machine."""

    proof: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PROOF")] = Path(
        f"gpu-proof/{JSON_NAME}"
    )
    """The proof.json."""
    output: Path = Path("gpu-proof") / PAGE_NAME
    """Where the page goes, a .html file."""


@dataclass(frozen=True)
class TableOptions:
    """Print the cells of the platform table in docs/platforms.md that a proof changes."""

    proof: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PROOF")]
    """The proof.json, below docs/results."""


def _run(options: ProofOptions, args: Sequence[str]) -> int:
    with needed_for("proving a GPU", extra="bench"), loading():
        from .run import ProofRun  # noqa: PLC0415  # with psutil and jinja2
        from .steps import BUNDLE, RUN, Place, planned_steps  # noqa: PLC0415
    work = options.work.absolute()
    place = Place(
        checkout=_checkout_of(options),
        work=work,
        model=options.model.absolute() if options.model else work / BUNDLE,
        checkpoint=options.checkpoint.absolute() if options.checkpoint else work / RUN,
        frames=options.frames,
        time_factor=options.time_factor,
    )
    steps = planned_steps(place)
    if options.list:
        for step in steps:
            print(f"{step.name}: {step.proves} (at most {step.limit_s:.0f} s)")
            if reason := step.why_not():
                print(f"  {reason}")
        return 0
    names = [step.name for step in steps]
    if unknown := [name for name in options.steps if name not in {*names, "all"}]:
        raise ConfigError(
            f"--steps {unknown[0]}: there is none of this name; take all, or some "
            f"of {', '.join(names)}"
        )
    asked = frozenset(names if "all" in options.steps else options.steps) or None
    json, page = options.output / JSON_NAME, options.output / PAGE_NAME
    for path in (json, page, work / "logs" / "machine.log"):
        check_writable(path)
    console = stderr_console()
    with output_locked(json), output_locked(work):
        with writing_output(work):
            (work / "logs").mkdir(parents=True, exist_ok=True)
            options.output.mkdir(parents=True, exist_ok=True)
        proof = ProofRun(
            place=place,
            steps=steps,
            asked=asked,
            json=json,
            page=page,
            console=console,
            command=shlex.join(("python", "-m", "motorvae.benchmarks.proof", *args)),
            until_s=None if options.seconds is None else time.monotonic() + options.seconds,
        ).run()
    counts = proof.counts
    said = f"{counts['proven']} proven, {counts['failed']} failed, {counts['unproven']} unproven"
    if proof.machine.no_gpu:
        raise MeasurementError(
            f"no GPU, so that nothing is proven: {proof.machine.no_gpu}; all {counts['unproven']} "
            f"rows are in {page}: run make gpu-proof on the machine that has one"
        )
    if counts["failed"] or not counts["proven"]:
        raise MeasurementError(
            f"{said}; the reasons are in {page}, the logs in {work / 'logs'}: mend what failed "
            "and run it again, which runs only what is not proven"
        )
    console.print(f"{said}: {json} and {page}")
    return 0


def _page(options: PageOptions, *_: object) -> None:
    check_output(options.output, ".html")
    with needed_for("drawing a proof", extra="bench"):
        from .page import save_page  # noqa: PLC0415  # with jinja2
        from .record import load_proof  # noqa: PLC0415  # with psutil
    proof = load_proof(options.proof)
    with output_locked(options.output):
        save_page(options.output, proof)
    stderr_console().print(f"page in {options.output}")


def _table(options: TableOptions, *_: object) -> None:
    with needed_for("reading a proof", extra="bench"):
        from .platforms import cells_of  # noqa: PLC0415  # with psutil
        from .record import load_proof  # noqa: PLC0415
    link = options.proof
    with contextlib.suppress(ValueError):
        link = link.absolute().relative_to(Path("docs").absolute())
    for key, cell in cells_of(load_proof(options.proof), link.as_posix()).items():
        PlainConsole(soft_wrap=True).print(f"{key}\n    {cell}")


def _checkout_of(options: ProofOptions) -> Path | None:
    found = options.checkout or Path()
    return found.absolute() if _is_checkout(found) else None


def _is_checkout(folder: Path) -> bool:
    return (folder / "tests" / "gpu").is_dir() and (folder / "tests" / "stand_in_driver").is_dir()


main = CommandGroup(
    "gpu-proof",
    "Prove motorVAE on this machine's GPU, or read such a proof.",
    {
        "run": Command(ProofOptions, _run, "Run each step; leave one JSON and one page."),
        "page": Command(PageOptions, _page, "Draw the page of a proof.json anew."),
        "table": Command(TableOptions, _table, "Print its cells of the platform table."),
    },
    hints={"--bundle": "the bundle is --model in every command"},
)
