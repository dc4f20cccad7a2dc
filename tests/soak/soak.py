"""The soak: a million frames through motorvae-stream, watched from outside for what grows."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import psutil  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from pydantic import Field
from rich.console import Console
from rich.progress import Progress

from motorvae.benchmarks.measure.result import Environment, environment_now, load_now
from motorvae.runtime.core.atomic_files import check_writable, replaced_file
from motorvae.runtime.core.command import Command, stderr_console
from motorvae.runtime.core.errors import ConfigError, MeasurementError
from motorvae.runtime.core.spec import ModelSpec, StrictModel

WARM_UP = 0.1
"""The first tenth of the time is warm-up: allocators and caches fill."""
WINDOW = 0.1
"""Growth is that of the last tenth over the tenth after the warm-up."""
MOST_GROWTH = 0.02
LEAST_SAMPLES = 20


@dataclass(frozen=True)
class SoakOptions:
    """Stream synthetic frames as fast as they go, and see whether anything grows."""

    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    frames: int = 1_000_000
    """How many frames."""
    output: Path = Path("soak.json")
    """Where the samples go, a .json file; the plot lies beside it as .png."""
    every_s: float = 1.0
    """Seconds between two looks at the process."""


class Sample(StrictModel):
    """The process at one moment.

    Attributes:
        seconds: Since it was started.
        written_bytes: Size of the file of rows.
        rss_bytes: Resident memory.
        threads: Its threads.
        descriptors: Its open file descriptors.
    """

    seconds: float
    written_bytes: int
    rss_bytes: int
    threads: int
    descriptors: int


class Soak(StrictModel):
    """What a soak leaves: every sample, and what is said of them.

    Attributes:
        frames: Asked for.
        rows_ok: Rows of status `ok` in the file.
        rows_other: All others but the last, which is `end`.
        in_order: Whether the rows' indices count from 0 without a gap.
        rss_growth: Median of the last tenth over that of the tenth after the warm-up, minus 1.
        thread_growth: Difference of their largest counts.
        descriptor_growth: Likewise.
        seconds: The whole process.
        summary: Of its last row.
    """

    schema_version: Literal[1] = 1
    environment: Environment
    model: ModelSpec
    arguments: tuple[str, ...]
    frames: int
    rows_ok: int
    rows_other: int
    in_order: bool
    rss_growth: float
    thread_growth: int
    descriptor_growth: int
    seconds: float
    summary: dict[str, Any]
    samples: tuple[Sample, ...] = Field(min_length=LEAST_SAMPLES)

    @property
    def failures(self) -> list[str]:
        """What grew or went missing, as clauses."""
        clauses = {
            f"{self.rows_ok} rows for {self.frames} frames": self.rows_ok != self.frames,
            f"{self.rows_other} rows that are not ok": self.rows_other > 0,
            "rows out of order": not self.in_order,
            f"memory grew by {self.rss_growth:.2%}": self.rss_growth > MOST_GROWTH,
            f"{self.thread_growth} more threads": self.thread_growth > 0,
            f"{self.descriptor_growth} more descriptors": self.descriptor_growth > 0,
        }
        return [clause for clause, failed in clauses.items() if failed]


def _soak(options: SoakOptions, *_: object) -> int:
    if options.frames < 1 or options.every_s <= 0 or options.output.suffix != ".json":
        raise ConfigError(
            f"frames={options.frames}, every_s={options.every_s}, output={options.output}: take 1 "
            "frame or more, more than 0 seconds, and a file ending in .json"
        )
    picture = options.output.with_suffix(".png")
    for path in (options.output, picture):
        check_writable(path)
    console = stderr_console()
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=".soak-") as folder:
        soak = soaked(options, Path(folder) / "rows.jsonl", console)
    with replaced_file(options.output) as path:
        path.write_bytes(orjson.dumps(soak.model_dump(mode="json")) + b"\n")
    with replaced_file(picture) as path:
        draw(soak, path)
    console.print(
        f"{soak.rows_ok} rows for {soak.frames} frames in {soak.seconds:.0f} s; after the warm-up "
        f"memory {soak.rss_growth:+.2%}, threads {soak.thread_growth:+d}, descriptors "
        f"{soak.descriptor_growth:+d}; {options.output} and {picture}"
    )
    if soak.failures:
        raise MeasurementError(f"the soak failed: {'; '.join(soak.failures)}; see {picture}")
    return 0


def soaked(options: SoakOptions, rows: Path, console: Console) -> Soak:
    """Run the stream to its end and look at it from outside.

    Args:
        options: What to run.
        rows: Where its rows go, a path that does not exist yet.
        console: For the progress bar.

    Raises:
        MeasurementError: The stream failed, or was too short to say anything.
    """
    load_start = load_now()
    arguments = ("--camera", f"synthetic?fps=max&frames={options.frames}", "--output", str(rows))
    command = [str(Path(sys.executable).with_name("motorvae-stream")), *arguments]
    started_s = time.monotonic()
    with subprocess.Popen(
        [*command, "--model", str(options.model)], stderr=subprocess.PIPE, text=True
    ) as process:
        samples = _watched(psutil.Process(process.pid), process, rows, options, console)
        said = process.stderr.read() if process.stderr else ""
    seconds = time.monotonic() - started_s
    if process.returncode:
        raise MeasurementError(f"motorvae-stream failed: {said.strip().splitlines()[-1]}")
    if len(samples) < LEAST_SAMPLES:
        raise MeasurementError(
            f"only {len(samples)} samples in {seconds:.1f} s: take more --frames, or look oftener"
        )
    statuses, in_order, summary = _counted(rows)
    first, last = _windows(samples)
    return Soak(
        environment=environment_now(threads={}, load_start=load_start),
        model=ModelSpec.model_validate_json(
            orjson.dumps(orjson.loads((options.model / "manifest.json").read_bytes())["model"])
        ),
        arguments=arguments[:2],
        frames=options.frames,
        rows_ok=statuses.pop("ok", 0),
        rows_other=sum(statuses.values()) - statuses.get("end", 0),
        in_order=in_order,
        rss_growth=_median(last) / _median(first) - 1,
        thread_growth=max(s.threads for s in last) - max(s.threads for s in first),
        descriptor_growth=max(s.descriptors for s in last) - max(s.descriptors for s in first),
        seconds=seconds,
        summary=summary,
        samples=tuple(samples),
    )


def _watched(
    watched: psutil.Process,
    process: subprocess.Popen[str],
    rows: Path,
    options: SoakOptions,
    console: Console,
) -> list[Sample]:
    samples: list[Sample] = []
    started_s = time.monotonic()
    with Progress(console=console) as progress:
        task = progress.add_task("soaking", total=None)
        while True:
            try:
                process.wait(timeout=options.every_s)
            except subprocess.TimeoutExpired:
                pass
            else:
                return samples
            try:
                with watched.oneshot():
                    sample = Sample(
                        seconds=time.monotonic() - started_s,
                        written_bytes=rows.stat().st_size if rows.exists() else 0,
                        rss_bytes=watched.memory_info().rss,
                        threads=watched.num_threads(),
                        descriptors=watched.num_fds(),
                    )
            except psutil.Error:  # it ended just now
                continue
            # Before its first row it still loads; without memory it is on its way out.
            if sample.written_bytes and sample.rss_bytes and sample.descriptors:
                samples.append(sample)
            progress.update(task, description=f"{sample.written_bytes / 1e6:.0f} MB of rows")


def _counted(rows: Path) -> tuple[dict[str, int], bool, dict[str, Any]]:
    """Read the rows back: how many of each status, whether in order, and the last one's summary."""
    statuses: dict[str, int] = {}
    in_order, last = True, {}
    with rows.open("rb") as lines:
        for number, line in enumerate(lines):
            last = orjson.loads(line)
            status = last["status"]
            statuses[status] = statuses.get(status, 0) + 1
            in_order &= last["index"] == number
    return statuses, in_order, dict(last.get("summary", {}))


def _windows(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    count = len(samples)
    width = max(1, round(WINDOW * count))
    start = round(WARM_UP * count)
    return samples[start : start + width], samples[-width:]


def _median(samples: Sequence[Sample]) -> float:
    return float(np.median([sample.rss_bytes for sample in samples]))


def draw(soak: Soak, path: Path) -> None:
    """Draw memory, threads, descriptors and rows over the time."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    minutes = [sample.seconds / 60 for sample in soak.samples]
    memory, counts, written = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    memory.plot(minutes, [sample.rss_bytes / 2**20 for sample in soak.samples], color="#0072b2")
    memory.axvspan(0, minutes[-1] * WARM_UP, color="#dddddd", label="warm-up")
    largest = max(sample.rss_bytes for sample in soak.samples) / 2**20
    memory.set(ylabel="resident memory, MiB", ylim=(0, 1.2 * largest))
    memory.legend(loc="lower right")
    memory.set_title(
        f"{soak.rows_ok:,} rows for {soak.frames:,} frames in {soak.seconds / 60:.0f} minutes; "
        f"memory after the warm-up {soak.rss_growth:+.2%}"
    )
    for name, colour in (("threads", "#d55e00"), ("descriptors", "#009e73")):
        counts.plot(minutes, [getattr(s, name) for s in soak.samples], label=name, color=colour)
    counts.set(
        ylabel="count", ylim=(0, 1.3 * max(max(s.threads, s.descriptors) for s in soak.samples))
    )
    counts.legend(loc="lower right")
    written.plot(
        minutes, [sample.written_bytes / 2**20 for sample in soak.samples], color="#444444"
    )
    written.set(ylabel="rows, MiB", xlabel="minutes")
    figure.savefig(path, dpi=110, format="png")


main = Command(
    SoakOptions,
    _soak,
    "A million frames through motorvae-stream: does anything grow?",
    prog="python tests/soak/soak.py",
)

if __name__ == "__main__":
    sys.exit(main())
