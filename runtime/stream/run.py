"""Stream: encoder, cameras and sinks opened, run and closed in order, as an iterator of rows."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import cast

from typing_extensions import Self

from ..bundle.load import Bundle
from ..core.errors import ConfigError, MotorVAEError, OutputError, SourceError
from ..core.row import Row, RunFacts
from ..engines.cpu_threads import opencv_kept_single
from ..engines.select import Rebuild, SelectedEngine, autotuned_engine, select_engine
from ..sinks.base import Sink
from ..sinks.fanout import SinkFanout, SinkReport
from ..sinks.open import check_output, open_sink
from ..sources.base import FrameSource
from ..sources.open import open_source
from ..sources.spec import SourceSpec
from .capture_thread import CaptureThread
from .encode_loop import Extras, LatentStream, end_row
from .mailbox import LivenessTimeouts, Mailboxes
from .ood import usable_detector
from .options import StreamOptions, check_stream_options
from .reconstruct import Reconstruction
from .stats import StreamStats, StreamSummary

FRAMES_WAITING = 64
"""How many frames of a live source may wait under the policy `every`."""
FRAMES_AHEAD = 1
"""How far a recording is decoded ahead of the encoder: more would only make frames older."""


class Stream:
    """Latent rows of cameras, as they come. An iterator; close it, or use it in a `with` block.

    All is opened here; frames are captured from the first row on. While nobody asks for the next
    row nothing is encoded: live frames that come meanwhile are overtaken by the newest and counted
    in its row's `dropped`, so that a row is fresh whenever it is asked for. Rows that one run of
    the encoder gave for several cameras follow each other.

    The last row has the status `end` and holds the summary; whatever failed for good, such as a
    camera that was given up, is raised after it. Closing earlier, or dropping the iterator, stops
    the threads, releases cameras and engines, and ends outputs as they should end.

    Args:
        bundle: A checked bundle.
        options: What is streamed and how; `model` and `output` are not read.
        outputs: Where rows go as well.
        rebuild: What `rebuild` in the options calls; see `select_engine`.

    Attributes:
        cameras: Names of the sources; `Row.camera` is one of them.
        engine: What encodes: precision, engine, version and device.
        notes: Why no other engine runs, what to know of this one, and what out-of-distribution
            detection can tell, a clause each.
        expected: How many latents will come, or None where that is not known.
        outputs: Names of the outputs.
        set_aside: Name of an output and where the earlier one was moved.
        stats: What has been counted so far.
        summary: What the run did; None before its end.
        reports: What became of each output's rows.

    Raises:
        MotorVAEError: An option is out of range, or something does not open.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: StreamOptions,
        *,
        outputs: Sequence[str] = (),
        rebuild: Rebuild | None = None,
    ) -> None:
        check_stream_options(options)
        if len({*outputs}) < len(outputs):
            raise ConfigError(f"output={', '.join(outputs)}: take each output once")
        for output in outputs:
            check_output(output)
        _check_view(options)
        self._run = _Run(bundle, options, outputs, rebuild)
        self._rows = self._run.rows()  # holds the run and not this: dropping this ends it
        next(self._rows)  # a generator that was never started would end nothing when it is dropped
        self._turn = threading.RLock()
        self.cameras = self._run.facts.cameras
        self.engine = self._run.facts.backend
        self.notes = self._run.notes
        self.expected = self._run.expected
        self.outputs = tuple(sink.name for sink in self._run.sinks)
        self.set_aside = tuple(
            (sink.name, sink.set_aside_as) for sink in self._run.sinks if sink.set_aside_as
        )

    @property
    def stats(self) -> StreamStats:
        """What has been counted so far."""
        return self._run.encoder.stats

    @property
    def summary(self) -> StreamSummary | None:
        """What the run did; None before its end."""
        return self._run.summary

    @property
    def reports(self) -> list[SinkReport]:
        """What became of each output's rows."""
        return self._run.fanout.reports

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        with self._turn:
            return cast("Row", next(self._rows))

    def stop(self) -> None:
        """Let the iterator end after the row it is at; safe in signal handlers and other threads.

        What waits in outputs is still written, and the last row still comes.
        """
        self._run.stop()

    def close(self) -> None:
        """Stop, and wait until cameras, engines and outputs are released. Once is enough.

        Raises:
            OutputError: An output failed.
        """
        self.stop()
        with self._turn:
            self._rows.close()
            self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except MotorVAEError:
            if error is None:
                raise


class _Run:
    """What one stream holds open. It knows nothing of its iterator, so that no circle keeps it."""

    def __init__(
        self,
        bundle: Bundle,
        options: StreamOptions,
        outputs: Sequence[str],
        rebuild: Rebuild | None,
    ) -> None:
        self._max_frames = options.max_frames
        self.summary: StreamSummary | None = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(opencv_kept_single())
            specs = [
                SourceSpec.parse(text, realtime=options.realtime, fps=options.fps)
                for text in options.camera
            ]
            choice = _encoder(options, bundle, specs, rebuild)
            backend = stack.enter_context(choice.backend)
            extras, remarks = _extras(options, bundle, stack, rebuild)
            self.encoder = LatentStream(backend, bundle.spec, len(options.camera), extras)
            self._mailboxes, self._captures, sources = _captures(options, bundle, specs, stack)
            self.expected = _expected(sources, options.max_frames)
            self.facts = RunFacts(
                latent_size=bundle.spec.latent_size,
                image_size=bundle.spec.image_size,
                cameras=tuple(box.name for box in self._mailboxes.boxes),
                weights_sha256=bundle.manifest.weights_sha256,
                backend=choice.chosen,
                lossless=not any(source.live for source in sources),
            )
            self.notes = (*choice.clauses, *remarks)
            self.sinks = _sinks(options, outputs, self.facts)
            self.fanout = stack.enter_context(SinkFanout(self.sinks, self.facts))
            self._stack = stack.pop_all()

    def rows(self) -> Generator[Row | None, None, None]:
        """Yield None, then every row, the last one included, and release everything."""
        rows: Iterator[Row] = iter(())
        with self._stack:
            try:
                yield None
                if not self._mailboxes.interrupted:
                    for capture in self._captures:
                        capture.start()
                rows = self.encoder.rows(self._mailboxes, max_frames=self._max_frames)
                for row in rows:
                    self.fanout.put(row)
                    yield row
            except (GeneratorExit, KeyboardInterrupt):
                self.stop()
                for row in rows:  # what is left of the encoder's last run, for the outputs
                    self.fanout.put(row)
                self._finish()
                raise
            yield self._finish()
            self._judge()

    def stop(self) -> None:
        """Let `rows` end soon."""
        self._mailboxes.stop()
        self.fanout.interrupt()

    def close(self) -> None:
        """Release what is still held, and raise what an output met."""
        if self.summary is None:
            self._finish()
        self._stack.close()
        self._raise_output_failure()

    def _finish(self) -> Row:
        """Stop the cameras, give the outputs their last row, and close them."""
        for capture in self._captures:  # all at once: each may have to wait for what it reads
            capture.stop()
        failures = [box.failure for box in self._mailboxes.boxes if box.failure is not None]
        self.summary = self.encoder.stats.summary(failures)
        last = end_row(self.summary, self.fanout.reports)
        self.fanout.put_last(last)
        self.fanout.close()
        return last

    def _raise_output_failure(self) -> None:
        for report in self.fanout.reports:
            if report.failure is not None:
                raise OutputError(report.failure)

    def _judge(self) -> None:
        """Say in one line what did not go well, if anything did not.

        A live source that was lost and came back has said so in its rows; a recording that was
        damaged stays damaged.

        Raises:
            OutputError: A sink failed.
            SourceError: A camera was given up, a recording is damaged, or nothing became a latent.
        """
        summary = self.summary
        assert summary is not None  # noqa: S101  # for the type checker
        for box in self._mailboxes.boxes:
            if box.error is not None:
                raise box.error
        self._raise_output_failure()
        if summary.failure:
            raise SourceError(f"{summary.failure}; check the source and start again")
        counts = summary.cameras.items()
        for capture, (name, count) in zip(self._captures, counts, strict=True):
            if count.lost and not capture.can_reconnect:
                raise SourceError(
                    f"{name}: frames lost: {count.lost}, each with its reason in a row of status "
                    "lost; the other rows are valid: repair the source and run again"
                )
        if summary.frames or self._mailboxes.interrupted:
            return
        if summary.stale:
            raise SourceError(
                f"all {summary.stale} frames were older than --max-age-ms when they could have "
                "become a latent: allow more, or use a faster engine"
            )
        raise SourceError(f"{', '.join(summary.cameras)} holds no frame: name another source")


def _check_view(options: StreamOptions) -> None:
    if options.view is not None:
        from ..sinks.rerun.open import check_view  # noqa: PLC0415  # a module about an optional package

        check_view(options.view_file)


def _encoder(
    options: StreamOptions, bundle: Bundle, specs: Sequence[SourceSpec], rebuild: Rebuild | None
) -> SelectedEngine:
    """Open the encoder; where frames come with pauses, with the threads that suit those."""
    request = replace(options.engine, outputs=options.encoder_outputs)

    def open_with(threads: int | None) -> SelectedEngine:
        return select_engine(bundle, "encoder", replace(request, threads=threads), rebuild)

    if request.threads is not None or not any(spec.live for spec in specs):
        return open_with(request.threads)
    side = bundle.spec.image_size
    return autotuned_engine(open_with, (len(options.camera), 1, side, side))


def _extras(
    options: StreamOptions,
    bundle: Bundle,
    stack: contextlib.ExitStack,
    rebuild: Rebuild | None,
) -> tuple[Extras, list[str]]:
    """Open what rows are to say beyond the latent; also return what to remark of it."""
    known, remarks = None, []
    if options.ood != "none":
        known, remark = usable_detector(bundle, ood_above=options.ood_above)
        remarks.append(remark)
    reconstruction = None
    if options.every is not None:
        selected = select_engine(bundle, "decoder", options.engine, rebuild)
        decoder = stack.enter_context(selected.backend)
        reconstruction = Reconstruction(
            decoder,
            options.every,
            bundle.spec.latent_size,
            known,
            pictures=options.view is not None,
        )
    extras = Extras(
        ood=known,
        reconstruction=reconstruction,
        max_age_ms=options.max_age_ms,
        pictures=options.view is not None,
    )
    return extras, remarks


def _captures(
    options: StreamOptions,
    bundle: Bundle,
    specs: Sequence[SourceSpec],
    stack: contextlib.ExitStack,
) -> tuple[Mailboxes, list[CaptureThread], list[FrameSource]]:
    """Open every camera, each with its mailbox and a thread that owns it and is not yet started."""
    mailboxes = Mailboxes(batch_wait_s=options.batch_wait_ms / 1e3)
    captures: list[CaptureThread] = []
    sources: list[FrameSource] = []
    request = replace(options.capture_request, spec=bundle.spec)
    for spec in specs:
        source = open_source(spec, request)
        policy = options.policy or ("latest" if source.live else "every")
        mailbox = mailboxes.add(
            _unique(source.name, [box.name for box in mailboxes.boxes]),
            keep=_keep(policy, live=source.live),
            waits=not source.live and policy == "every",
            limits=LivenessTimeouts(options.timeout, options.give_up_after)
            if source.can_reconnect
            else None,
        )
        freeze_after_s = options.freeze_after_s(can_reconnect=source.can_reconnect)
        capture = CaptureThread(source, mailbox, bundle.spec, freeze_after_s=freeze_after_s)
        captures.append(stack.enter_context(capture))
        sources.append(source)
    return mailboxes, captures, sources


def _expected(sources: Sequence[FrameSource], max_frames: int | None) -> int | None:
    """Return how many latents will come, where every source says it or a limit does."""
    frames = [source.expected for source in sources]
    known = [sum(filter(None, frames))] if all(count is not None for count in frames) else []
    return min([*known, *([max_frames] if max_frames else [])], default=None)


def _keep(policy: str, *, live: bool) -> int:
    if policy == "latest":
        return 1
    return FRAMES_WAITING if live else FRAMES_AHEAD


def _unique(name: str, taken: Sequence[str]) -> str:
    """Tell cameras of one name apart: their addresses may differ in what must not be printed."""
    candidates = itertools.chain([name], (f"{name} #{n}" for n in itertools.count(2)))
    return next(free for free in candidates if free not in taken)


def _sinks(options: StreamOptions, outputs: Sequence[str], facts: RunFacts) -> list[Sink]:
    with contextlib.ExitStack() as opening:  # what opened before one that fails is closed
        sinks = [opening.enter_context(open_sink(output, facts)) for output in outputs]
        if options.view is not None:
            from ..sinks.rerun.open import open_view  # noqa: PLC0415  # a module about an optional package

            sinks.append(opening.enter_context(open_view(options.view_file, facts)))
        opening.pop_all()  # from here on the sinks own them
    return sinks
