"""motorvae-bench: run, compare and report."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from ..runtime.core.atomic_files import check_replaceable_file, check_writable, set_aside
from ..runtime.core.command import Subcommand, run_subcommands, stderr_console
from ..runtime.core.documents import save_document
from ..runtime.core.errors import (
    ConfigError,
    MissingDependencyError,
    missing_dependency,
    next_command,
)
from .options import RunOptions, batches_of_run, checked_samples, spec_of_run

_EXTRAS = "train,export,bench,cpu"
_QUICK_IMAGES = 32
"""Of the bundle's verification images."""


@dataclass(frozen=True)
class CompareOptions:
    """Tell for each case of two results whether the second is faster, slower or the same.

    Exit code 1 where a case is slower beyond the tolerance with all of its confidence interval,
    or where the two results do not come from the same machine and settings.
    """

    before: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BEFORE")]
    """The result that the other is held against, a .json file of motorvae-bench run."""
    after: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AFTER")]
    """The result that is judged."""
    tolerance: float = 0.05
    """How much slower a case may be, as a share of the time before; where one is slower beyond it,
    the exit code is 1."""


@dataclass(frozen=True)
class ReportOptions:
    """Draw a result as one HTML page that needs nothing else, and as a picture beside it."""

    result: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULT")] = Path(
        "bench.json"
    )
    """What motorvae-bench run left."""
    output: Path = Path("report.html")
    """Where the page goes, a .html file; its picture goes beside it, as .png."""


def main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-bench; return its exit code."""
    given = list(sys.argv[1:] if args is None else args)
    command = shlex.join(("motorvae-bench", *([] if given[:1] == ["run"] else ["run"]), *given))
    return run_subcommands(
        {
            "run": Subcommand(
                "Time every engine, and the path from a frame to its latent.",
                RunOptions,
                lambda options: _run(options, command),
            ),
            "compare": Subcommand(
                "Tell for each case of two results which is the faster one.",
                CompareOptions,
                _compare,
            ),
            "report": Subcommand(
                "Draw a result as one HTML page that needs nothing else.",
                ReportOptions,
                _report,
            ),
        },
        prog="motorvae-bench",
        description="Measure this machine, compare two such results, or draw one.",
        args=given,
        hints={
            "--bundle": "the bundle is --model in every command",
            "--device": "every engine that this machine has is timed, and none is chosen here",
        },
    )


def _run(options: RunOptions, command: str) -> None:
    samples = checked_samples(options)
    spec = spec_of_run(options)
    for output in (options.output, options.output.with_suffix(".png")):
        check_replaceable_file(output)
    check_writable(options.output)
    try:
        from .measure.rounds import RoundPlan  # noqa: PLC0415  # with torch: --help must not need it
        from .report.plots import save_picture  # noqa: PLC0415
        from .report.screen import print_verdict  # noqa: PLC0415
        from .run import Plan, run_benchmark  # noqa: PLC0415
        from .under_test.model_under_test import model_from_files, untrained_model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error, extra=_EXTRAS) from error

    console = stderr_console()
    plan = Plan(
        samples=samples,
        batches=batches_of_run(options),
        only=options.only,
        quick=options.quick,
        seed=options.seed,
        threads=options.threads,
        skip_compile=options.skip_compile or options.quick,
        training=(
            RoundPlan(samples=options.training_steps, warmup=0, settle=0, turn=1),
            options.training_batch,
        )
        if options.training
        else None,
        command=command,
    )
    with contextlib.ExitStack() as stack:
        if spec is not None:
            tested = stack.enter_context(untrained_model(spec, options.seed))
        else:
            tested = model_from_files(
                options.model or Path("bundle"),
                options.checkpoint or Path("runs/latest"),
                images=_QUICK_IMAGES if options.quick else None,
            )
        # Plain lines: a progress bar's thread would run beside what is timed.
        result = run_benchmark(tested, plan, lambda text: console.print(f"measuring: {text}"))
    picture = options.output.with_suffix(".png")
    kept = set_aside(options.output)
    set_aside(picture)
    save_document(options.output, result)
    save_picture(picture, result)
    print_verdict(console, result)
    console.print(f"every sample in {options.output}, those of the fastest in {picture}")
    report = next_command("motorvae-bench", "report", options.output)
    console.print(f"every table and figure: {report}", soft_wrap=True)
    if kept is not None:
        console.print(
            f"the earlier one is kept as {kept}; next: "
            f"{next_command('motorvae-bench', 'compare', kept, options.output)}",
            soft_wrap=True,
        )


def _compare(options: CompareOptions) -> None:
    if not 0 <= options.tolerance < 1:
        raise ConfigError(f"--tolerance {options.tolerance:g}: take 0 or more, and less than 1")
    try:
        from .compare import check_regressions, compare_results  # noqa: PLC0415  # with psutil
        from .measure.result import load_result  # noqa: PLC0415
        from .report.screen import print_comparison  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error, extra="bench") from error
    before, after = load_result(options.before), load_result(options.after)
    found = compare_results(before, after, options.tolerance)
    # Unlike a run's tables, this is what was asked for, so that it goes to standard output.
    print_comparison(Console(highlight=False, markup=False, emoji=False), found)
    check_regressions(found)


def _report(options: ReportOptions) -> None:
    if options.output.suffix != ".html" or options.output.is_dir():
        raise ConfigError(f"--output {options.output}: name a file that ends in .html")
    check_writable(options.output)
    try:
        from .measure.result import load_result  # noqa: PLC0415
        from .report.page import save_report  # noqa: PLC0415  # with matplotlib
    except ModuleNotFoundError as error:
        raise _missing(error, extra="bench") from error
    result = load_result(options.result)
    picture = options.output.with_suffix(".png")
    save_report(options.output, picture, result)
    stderr_console().print(f"page in {options.output}, picture in {picture}")


def _missing(error: ModuleNotFoundError, *, extra: str) -> MissingDependencyError:
    package = (error.name or "a package").partition(".")[0].replace("_", "-")
    return missing_dependency("benchmarking", package, extra=extra)
