"""motorvae-encode, and what it shows on a terminal."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from .bulk.cluster.ray_pool import TASK_IMAGES, ClusterRequest, RayPool
from .bulk.encoder_pool import EncoderPool, PoolRequest
from .bulk.inputs import Inputs, shown_text
from .bulk.listings import TABLE_SUFFIX
from .bulk.parts import Job, PartFacts, Parts, begun, model_hash, set_aside_complete
from .bulk.run import (
    PART_IMAGES,
    DataRequest,
    Progress,
    encode_to_parts,
    finish,
    parts_of,
    refuse_nothing,
)
from .bundle.load import Bundle, load_bundle
from .core.command import Command, print_remarks, print_sentence, stderr_console
from .core.errors import ConfigError, OutputError, SourceError, UsageError
from .core.spec import Matrix
from .core.system.locks import output_locked
from .core.system.renames import rename_new
from .engines.open import EngineRequest
from .engines.select import Rebuild
from .ood.detector import OOD_ABOVE
from .pixels.picture import MAX_PICTURE, limit_for

_LINE_EACH_S = 60.0
"""Of progress, where no terminal is."""
_MOST_NUMBERS = (1 << 31) - 1


@dataclass(frozen=True)
class EncodeOptions:
    """Options of motorvae-encode."""

    data: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="DATA ...", help_behavior_hint="(also: --data DATA)"),
    ] = ()
    """Folders of images, searched recursively, images, patterns, videos, lists of paths (.txt, or a
    column of .parquet), tar shards, or addresses of these."""
    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    output: Path = Path("latents.npz")
    """Where rows go: an .npz file, or a .parquet folder, which also has a row for each image that
    does not decode. An earlier one is kept under a number."""
    every: int = 1
    """Of a video take each frame whose number is a multiple of this."""
    column: str = "path"
    """The column of Parquet listings that names the images."""
    ood: Annotated[bool, tyro.conf.arg(help_behavior_hint="(default: measured)")] = True
    """Do without ood_score and is_ood, which say how far an image is from what the model knows."""
    ood_above: float = OOD_ABOVE
    """The percentile of known images past which is_ood says so."""
    batch_size: int | None = None
    """Images in each run of the encoder; by default what a trial at the start shows to be best."""
    workers: int | None = None
    """Threads that read and decode; by default one for each core. On a cluster those of each of its
    workers, of which there are as many as there is room for."""
    part_images: int = PART_IMAGES
    """Images in each part that is written as the run goes on: what is lost when it is killed."""
    restart: bool = False
    """Delete what a run that was cut off has left. By default it goes on from there."""
    retry_failures: bool = False
    """Of an earlier run of the same command, finished or cut off, try again what could not be read,
    such as addresses of a server that was away. The rows take their places."""
    matrix: Matrix | None = None
    """Which matrix video has that names none. auto: BT.709 from 1280 pixels across or more than
    576 down, and BT.601 below. By default as the model was trained."""
    track: int | None = None
    """Read this video track of a file or stream, counted from 1 without covers and thumbnails. By
    default the default one; of several, or without one, that of the largest picture."""
    max_picture: float = MAX_PICTURE
    """Megapixels that an image file may have; a larger one is skipped and is not decoded."""
    run_by: Annotated[Literal["local", "ray"], tyro.conf.arg(name="engine")] = "local"
    """local: this machine alone. ray: the machines of a Ray cluster."""
    address: str | None = None
    """HOST:PORT of the cluster's head, or auto for the one that this machine is a node of; by
    default that of RAY_ADDRESS, or else one that is started on this machine for this run."""
    engine: EngineRequest = field(default_factory=EngineRequest)
    """Which engine runs."""

    def request(self) -> DataRequest:
        """Return what is to be encoded; ConfigError for a value out of range."""
        request = DataRequest(
            data=self.data,
            every=self.every,
            column=self.column,
            matrix=self.matrix,
            track=self.track,
            max_picture=self.max_picture,
            batch_size=self.batch_size,
            part_images=self.part_images,
            workers=self.workers,
        )
        request.check(self.output)
        if self.address is not None and self.run_by != "ray":
            raise ConfigError(f"--address {self.address} is of a cluster: add --engine ray")
        if self.restart and self.retry_failures:
            raise ConfigError("restart=True and retry_failures=True: take one of them")
        if not 0 < self.ood_above <= 100:
            raise ConfigError(
                f"ood_above={self.ood_above} is out of range: take a percentile above 0 and up to "
                "100"
            )
        return request

    def check_parts(self, bundle: Bundle) -> None:
        """Raise a ConfigError where a part would have more numbers than a Parquet list counts.

        Its offsets are int32: https://arrow.apache.org/docs/format/Columnar.html
        """
        most = _MOST_NUMBERS // bundle.spec.latent_size
        if self.output.suffix == TABLE_SUFFIX and self.part_images > most:
            raise ConfigError(
                f"part_images={self.part_images} with latents of {bundle.spec.latent_size} numbers "
                f"is more than a file of Parquet holds: take up to {most}"
            )

    def pool(self, bundle: Bundle, rebuild: Rebuild | None) -> EncoderPool | RayPool:
        """Open the engines, here or on a cluster."""
        request = PoolRequest(
            self.engine,
            limit_for(bundle.spec, self.max_picture),
            self.workers,
            self.ood_above if self.ood else None,
        )
        if self.run_by == "ray":
            task = min(self.part_images, TASK_IMAGES)
            cluster = ClusterRequest(self.address, task, partial(print_sentence, stderr_console()))
            return RayPool(bundle, request, cluster)
        return EncoderPool(bundle, request, rebuild)

    def job(self, bundle: Bundle, pool: EncoderPool | RayPool) -> Job:
        """Return what this run is of, with the batch size that is asked for or the best one."""
        return Job(
            weights_sha256=bundle.manifest.weights_sha256,
            model=model_hash(bundle, pool.choice.precision, is_scored=self.ood),
            data=tuple(map(shown_text, self.data)),  # it stays on the disk
            every=self.every,
            column=self.column,
            matrix=self.matrix,
            track=self.track,
            max_picture=self.max_picture,
            precision=pool.choice.precision,
            engines=(pool.engine,),
            ood_above=self.ood_above if self.ood else None,
            part_images=self.part_images,
            batch_size=self.batch_size or pool.best_batch_size(),
        )


def _encode(options: EncodeOptions, *_: object, rebuild: Rebuild | None = None) -> None:
    if not options.data:
        raise UsageError("no data: name a folder, a pattern, a list, shards or a video")
    request = options.request()
    console = stderr_console()
    bundle = load_bundle(options.model, hash_all=False)
    options.check_parts(bundle)
    parts = parts_of(options.output, bundle)
    inputs = request.inputs(bundle)
    with output_locked(options.output), options.pool(bundle, rebuild) as pool:
        retries = options.retry_failures
        aside = set_aside_complete(parts, options.output, restart=options.restart, retries=retries)
        job = begun(
            parts,
            options.job(bundle, pool),
            restart=options.restart,
            is_size_asked=options.batch_size is not None,
            retries=retries,
        )
        printed = len(pool.notes)
        _print_beginning(console, options, inputs, pool, job)
        print_remarks(console, bundle.folder, bundle.manifest.remarks)
        progress = Progress()
        try:
            if not job.is_complete:
                parts.begin(job)
            with _bar(console, progress):
                found = encode_to_parts(inputs, pool, parts, job, progress, retries=retries)
            if not (job.is_complete or any(part.count > part.failed for part in found)):
                parts.clear()
            refuse_nothing(inputs, found, progress)
            gained = progress.count - progress.failed > progress.resumed_latents
            if gained or not (job.is_complete and options.output.exists()):
                aside = finish(parts, job, found, options.output, bundle) or aside
        except BaseException:
            _say_what_is_kept(console, parts, job)
            _put_back(console, aside, options.output)
            raise
        notes = pool.notes[printed:]
    for note in notes:
        console.print(note)
    _print_result(console, options, inputs, found, progress)
    if aside is not None:
        console.print(f"the earlier {options.output} is kept as {aside}")
    for line in (*inputs.remarks, *progress.remarks):
        console.print(line, style="yellow")
    for name, reason in progress.failures:
        console.print(
            f"skipped {name}: {reason}", style="yellow", soft_wrap=not console.is_terminal
        )
    if progress.failed:
        shown = len(progress.failures)
        if progress.failed > shown:
            console.print(f"and {progress.failed - shown} more", style="yellow")
        unread = sum(part.unread for part in found)
        again = f"; --retry-failures tries {unread} again that could not be read" if unread else ""
        raise SourceError(
            f"{progress.failed} of {progress.count} did not decode and have no latent; the others "
            f"are in {options.output}{again}"
        )


def _print_beginning(
    console: Console,
    options: EncodeOptions,
    inputs: Inputs,
    pool: EncoderPool | RayPool,
    job: Job,
) -> None:
    engines = f"{pool.layout}, batches of {job.batch_size}"
    what = f"{inputs.name} -> {pool.choice.chosen} -> {options.output}; {engines}"
    print_sentence(console, what + pool.choice.remarks)
    if len(job.engines) > 1:
        made = f"what is there was encoded by {' and by '.join(job.engines[:-1])}"
        print_sentence(console, f"{made}: {job.precision} latents are equal within the gate")
    if pool.ood_remark:
        print_sentence(console, pool.ood_remark)


def _print_result(
    console: Console,
    options: EncodeOptions,
    inputs: Inputs,
    found: list[PartFacts],
    progress: Progress,
) -> None:
    latents = sum(part.count - part.failed for part in found)
    before = progress.resumed_latents
    earlier = f", {before} of them by an earlier run" if before else ""
    console.print(f"{latents} latents of {inputs.name} in {options.output}{earlier}")


def _say_what_is_kept(console: Console, parts: Parts, job: Job) -> None:
    """Say in a line what a run that is cut off has done, or leave nothing behind.

    A finished result, whose failures were tried again, stays as it is.
    """
    if job.is_complete:
        return
    if done := sum(part.count for part in parts.finished()):
        console.print(f"{done} images are kept in {parts.folder}: the same command goes on there")
    else:
        with contextlib.suppress(OutputError):
            parts.clear()


def _put_back(console: Console, aside: Path | None, output: Path) -> None:
    """Give an earlier result its name again, where nothing took its place; or say which it has."""
    if aside is None:
        return
    try:
        rename_new(aside, output)
    except OSError:
        console.print(f"the earlier {output} is kept as {aside}")


def _bar(console: Console, progress: Progress) -> Bar:
    """Show how many images are done, how many in a second, and how many of them failed.

    Where no terminal is, that is a line each minute.
    """
    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("0 images", total=None)
    began_s = said_s = time.monotonic()

    def changed() -> None:
        nonlocal said_s
        now_s = time.monotonic()
        text = f"{progress.count} image{'' if progress.count == 1 else 's'}"
        done = progress.count - progress.resumed
        if done and now_s - began_s > 1:
            text += f", {done / (now_s - began_s):.0f} a second"
        if progress.failed:
            text += f", {progress.failed} failed"
        if console.is_terminal:
            bar.update(task, description=text)
        elif now_s - said_s >= _LINE_EACH_S:
            said_s = now_s
            console.print(text)

    progress.changed = changed
    return bar


encode_main = Command(
    EncodeOptions,
    _encode,
    "Encode images and videos, however many, to an .npz file or Parquet files.",
    prog="motorvae-encode",
    positional=("--data", "--source"),
    hints={
        "--bundle": "the bundle is named with --model",
        "--device": "where the encoder runs is chosen with --backend or --provider",
        "--resume": "a run that was cut off goes on by itself; --restart begins anew",
    },
)
"""It cannot `--rebuild` an engine; `motorvae.commands` gives it the function that does."""
