"""motorvae-bench: run, compare and report."""

from __future__ import annotations

import contextlib
import datetime as dt
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..runtime.core.atomic_files import check_writable, replaced_folder, set_aside
from ..runtime.core.command import Command, CommandGroup, PlainConsole, stderr_console
from ..runtime.core.documents import save_new_document
from ..runtime.core.errors import ConfigError, needed_for, next_command
from ..runtime.core.lifecycle import loading
from ..runtime.core.system.locks import output_locked
from .options import RunOptions, check_output


@dataclass(frozen=True)
class CompareOptions:
    """Decide for each case of two results whether the second is faster, slower or the same.

    Exit code 1 where a case is slower beyond the tolerance with all of its confidence interval,
    or where the two results do not come from the same machine under the same conditions; what
    differs is named.
    """

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE")]
    """The result that the other is compared with, a .json or .json.gz of motorvae-bench run."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AFTER")]
    """The result that is judged."""
    tolerance: float | None = None
    """How much slower a case may be, as a share of the time before, or lower a ratio; where one is
    so beyond it, the exit code is 1. By default 0.05, and 0.35 with --ratios."""
    ratios: bool = False
    """Compare no times but how many times as fast one case is as another of its own result, such as
    INT8 as float32, ours as torch and the plain recipe. A machine that is busy or slower has the
    same; on another processor a precision's ratio counts by the processor's own matrix rates.
    Conditions may differ, and what one result alone has measured is named and left out."""
    expect: tuple[str, ...] = ()
    """With --ratios: precisions such as int8 whose ratios of the first result must be in the
    second, too, wherever both have measured that kind of work at that batch size."""

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 <= self.tolerance < 1:
            raise ConfigError(f"--tolerance {self.tolerance:g}: take 0 or more, and less than 1")
        if self.expect and not self.ratios:
            raise ConfigError(f"--expect {' '.join(self.expect)}: give --ratios, too")


@dataclass(frozen=True)
class ReportOptions:
    """Draw a result as one HTML page that needs nothing else, and as a picture beside it."""

    result: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULT")] = Path(
        "bench.json"
    )
    """What motorvae-bench run left."""
    output: Path = Path("report.html")
    """Where the page goes, a .html file; its picture goes beside it, as .png."""


def _run(options: RunOptions, args: Sequence[str]) -> None:
    command = shlex.join(("motorvae-bench", "run", *args))
    check_output(options.output, ".json")
    picture = options.output.with_suffix(".png")
    check_writable(picture)
    with needed_for("benchmarking", extra="train,export,bench,cpu"), loading():
        from .loadgen.run import require_loadgen  # noqa: PLC0415
        from .report.energy import print_energy  # noqa: PLC0415
        from .report.loadgen import print_loadgen  # noqa: PLC0415
        from .report.plots import save_picture  # noqa: PLC0415  # with matplotlib
        from .report.tables import print_verdict  # noqa: PLC0415
        from .run import run_benchmark  # noqa: PLC0415  # with torch: --help must not need it

    console = stderr_console()
    if options.loadgen:
        require_loadgen()
    # Plain lines: a progress bar's thread would run beside what is timed.
    with output_locked(options.output), contextlib.ExitStack() as stack:
        logs = kept_logs = None
        if options.loadgen:
            # By its time, as an earlier result keeps its logs when it gets a number.
            stamp = dt.datetime.now(dt.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
            kept_logs = options.output.with_suffix(f".loadgen-{stamp}")
            logs = stack.enter_context(replaced_folder(kept_logs))
        result = run_benchmark(
            options, command, lambda text: console.print(f"measuring: {text}"), logs=logs
        )
        if kept_logs is not None:
            result = result.model_copy(update={"loadgen_logs": kept_logs.name})
        kept = save_new_document(options.output, result)
        set_aside(picture)
        save_picture(picture, result)
    print_verdict(console, result)
    print_energy(console, result)
    print_loadgen(console, result)
    console.print(f"every sample in {options.output}, those of the fastest in {picture}")
    report = next_command("motorvae-bench", "report", options.output)
    console.print(f"every table and figure: {report}")
    if kept is not None:
        compare = next_command("motorvae-bench", "compare", kept, options.output)
        console.print(f"the earlier one is kept as {kept}; next: {compare}")


def _compare(options: CompareOptions, *_: object) -> None:
    with needed_for("benchmarking", extra="bench"):
        from .compare import check_regressions, compare_results, print_comparison  # noqa: PLC0415
        from .measure.result import load_result  # noqa: PLC0415  # with psutil
        from .report.ratios import check_gains, compare_gains, gains_of, print_gains  # noqa: PLC0415
    before, after = load_result(options.before), load_result(options.after)
    if options.ratios:
        tolerance = 0.35 if options.tolerance is None else options.tolerance
        gains = compare_gains(before, after, tolerance, expect=options.expect)
        print_gains(PlainConsole(), gains, gains_of(before))
        check_gains(gains, tolerance)
        return
    tolerance = 0.05 if options.tolerance is None else options.tolerance
    found = compare_results(before, after, tolerance)
    # Unlike a run's tables, this is what was asked for, so that it goes to standard output.
    print_comparison(PlainConsole(), found)
    check_regressions(found)


def _report(options: ReportOptions, *_: object) -> None:
    check_output(options.output, ".html")
    with needed_for("benchmarking", extra="bench"):
        from .measure.result import load_result  # noqa: PLC0415
        from .report.page import save_report  # noqa: PLC0415  # with matplotlib
    picture = options.output.with_suffix(".png")
    with output_locked(options.output):
        save_report(options.output, picture, load_result(options.result))
    stderr_console().print(f"page in {options.output}, picture in {picture}")


main = CommandGroup(
    "motorvae-bench",
    "Measure this machine, compare two such results, or draw one.",
    {
        "run": Command(
            RunOptions, _run, "Time every engine, and the path from a frame to its latent."
        ),
        "compare": Command(
            CompareOptions, _compare, "Decide for each case of two results which is the faster one."
        ),
        "report": Command(
            ReportOptions, _report, "Draw a result as one HTML page that needs nothing else."
        ),
    },
    hints={
        "--bundle": "the bundle is --model in every command",
        "--device": "every engine that this machine has is timed, and none is chosen here",
    },
)
