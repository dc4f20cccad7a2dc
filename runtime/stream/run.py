"""Stream: encoder, cameras and sinks opened, run and closed in order, as an iterator of rows."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from ..bundle.load import Bundle
from ..core.errors import ConfigError, MotorVAEError, OutputError, SourceError
from ..core.lifecycle import Closing
from ..core.row import Row, RunFacts
from ..core.spec import ModelSpec
from ..engines.opencv_threads import opencv_kept_single
from ..engines.select import Rebuild, select_engine
from ..ood.detector import OODDetector, usable_detector
from ..sinks.fanout import SinkFanout, SinkReport
from ..sinks.open import SinkClass, check_output, check_view, locked_outputs, open_sinks
from ..sources.base import FrameSource
from ..sources.open import open_source
from ..sources.spec import SourceSpec
from .capture_thread import CaptureThread
from .encode_loop import LatentStream, Reconstruction
from .mailbox import Mailbox, Mailboxes
from .opening import EncoderOpening
from .options import StreamOptions, check_stream_options
from .stats import StreamStats, StreamSummary

FRAMES_WAITING = 64
"""How many frames of a live source may wait under the policy `every`. Of others one does: to decode
a recording further ahead of the encoder would only make its frames older."""


class Stream(Closing, Iterator[Row]):
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
        view: What opens the view that the options ask for, in place of the usual one.
        opening: The encoder, where it is being opened already; it is closed with the stream.

    Attributes:
        cameras: Names of the sources; `Row.camera` is one of them.
        engine: What encodes: precision, engine, version and device.
        notes: Why no other engine runs, what to know of this one, and what out-of-distribution
            detection recognises, a clause each.
        expected: How many frames will be handled, or None where that is not known.
        outputs: Names of the outputs.
        set_aside: Name of an output and where the earlier one was moved.
        summary: What the run did; None before its end.

    Raises:
        MotorVAEError: An option is out of range, or something does not open.
    """

    _is_open = _is_capturing = False

    def __init__(
        self,
        bundle: Bundle,
        options: StreamOptions,
        *,
        outputs: Sequence[str] = (),
        rebuild: Rebuild | None = None,
        view: SinkClass | None = None,
        opening: EncoderOpening | None = None,
    ) -> None:
        check_stream_options(options)
        if len({*outputs}) < len(outputs):
            raise ConfigError(f"output={', '.join(outputs)}: take each output once")
        for output in outputs:
            check_output(output)
        if options.view is not None:
            check_view(options.view)
        self.summary: StreamSummary | None = None
        self._max_age_ms = options.max_age_ms or math.inf
        self._turn = threading.RLock()
        spec = bundle.spec
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked_outputs(outputs, options.view))
            stack.enter_context(opencv_kept_single())
            if opening is None:
                specs = [options.source_spec(text) for text in options.camera]
                opening = EncoderOpening(bundle, options, specs, rebuild)
            stack.enter_context(opening)
            self._cores = cores = opening.cores
            self._mailboxes = Mailboxes(batch_wait_s=options.batch_wait_ms / 1e3)
            self._captures: list[CaptureThread] = []
            self._sources = sources = list[FrameSource]()
            with contextlib.ExitStack() as cameras:
                try:
                    ood, remarks = None, []
                    if options.ood != "none":
                        ood, remark = usable_detector(bundle, ood_above=options.ood_above)
                        remarks.append(remark)
                    # Before a camera delivers what nobody would read: it may be built first.
                    reconstruction = _reconstruction(stack, bundle, options, rebuild, ood)
                    for source_spec in opening.specs:
                        cameras.enter_context(self._opened_camera(source_spec, options, spec))
                except MotorVAEError:
                    opening.check()  # of two errors that of the encoder is named, as ever
                    raise
                choice = opening.result()
                backend = stack.enter_context(choice.backend)
                stack.enter_context(cameras.pop_all())  # cameras are released before the encoder
            self._encoder = LatentStream(
                backend,
                spec,
                len(opening.specs),
                ood=ood,
                reconstruction=reconstruction,
                max_age_ms=options.max_age_ms,
                pictures=options.view is not None,
                cores=cores,
            )
            facts = RunFacts(
                model=spec,
                cameras=tuple(box.name for box in self._mailboxes.boxes),
                weights_sha256=bundle.manifest.weights_sha256,
                backend=choice.chosen,
                lossless=not any(source.live for source in sources),
            )
            sinks = open_sinks(outputs, options.view, facts, view)
            self._fanout = stack.enter_context(SinkFanout(sinks, facts))
            self._stack = stack.pop_all()
        self._rows = self._encoder.rows(self._mailboxes, max_frames=options.max_frames)
        self._is_open = True
        self.cameras, self.engine = facts.cameras, facts.backend
        self.notes = (*choice.clauses, *remarks, *([cores.note] if cores.note else []))
        frames = [math.inf if one.expected is None else one.expected for one in sources]
        expected = min(sum(frames), options.max_frames or math.inf)
        self.expected = None if expected == math.inf else int(expected)
        self.outputs = tuple(sink.name for sink in sinks)
        self.set_aside = tuple((one.name, one.set_aside_as) for one in sinks if one.set_aside_as)

    def _opened_camera(
        self, source_spec: SourceSpec, options: StreamOptions, spec: ModelSpec
    ) -> CaptureThread:
        """Open a camera and note it; the thread that reads it closes it."""
        source = open_source(source_spec, replace(options.capture_request, spec=spec))
        self._sources.append(source)
        freeze_after_s = options.freeze_after_s(can_reconnect=source.can_reconnect)
        mailbox = _mailbox(self._mailboxes, source, options)
        self._captures.append(
            CaptureThread(source, mailbox, spec, freeze_after_s=freeze_after_s, cores=self._cores)
        )
        return self._captures[-1]

    @property
    def stats(self) -> StreamStats:
        """What has been counted so far."""
        return self._encoder.stats

    @property
    def remarks(self) -> list[str]:
        """What to know of what was read so far, of what was not taken, and of threads; lines."""
        note = self._cores.note
        of_cores = [note] if note is not None and note not in self.notes else []
        return [*of_cores, *(line for source in self._sources for line in source.remarks)]

    @property
    def reports(self) -> list[SinkReport]:
        """What became of each output's rows."""
        return self._fanout.reports

    def __next__(self) -> Row:
        with self._turn:
            if not self._is_open:
                raise StopIteration
            if self.summary is not None:
                self._release()
                self._raise_what_failed()
                raise StopIteration
            try:
                if not (self._is_capturing or self._mailboxes.interrupted):
                    self._is_capturing = True
                    for capture in self._captures:
                        capture.start()
                row = next(self._rows, None)
                if row is None:
                    return self._end()
                self._fanout.put(row)
            except KeyboardInterrupt:
                self._finish()
                raise
            except BaseException:
                self._release()
                raise
            return row

    def stop(self) -> None:
        """Let the iterator end after the row it is at; safe in signal handlers and other threads.

        What waits in outputs is still written, and the last row still comes.
        """
        self._mailboxes.stop()
        self._fanout.interrupt()

    def close(self) -> None:
        """Stop, and wait until cameras, engines and outputs are released. Once is enough.

        Raises:
            OutputError: An output failed.
        """
        self.stop()
        with self._turn:
            self._finish()
            self._raise_output_failure()

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except MotorVAEError:
            if error[0] is None:  # else what ended the block is the news
                raise

    def __del__(self) -> None:
        # No thread and no generator holds a stream, so dropping it comes here at once.
        if self._is_open:
            self._finish()

    def _finish(self) -> None:
        """End early: what is left of the encoder's last run still goes to the outputs."""
        try:
            if self._is_open and self.summary is None:
                self.stop()
                for row in self._rows:
                    self._fanout.put(row)
                self._end()
        finally:
            self._release()

    def _end(self) -> Row:
        """Stop the cameras, give the outputs their last row, and close them."""
        for capture in self._captures:  # all at once: each may have to wait for what it reads
            capture.stop()
        self.summary = self._summarized()
        summary = {**asdict(self.summary), "sinks": [asdict(report) for report in self.reports]}
        last = Row(self.summary.rows, time.time_ns(), None, 0, "end", summary=summary)
        self._fanout.put_last(last)
        self._fanout.close()
        return last

    def _summarized(self) -> StreamSummary:
        failures = [box.failure for box in self._mailboxes.boxes if box.failure is not None]
        return self.stats.summary(failures)

    def _release(self) -> None:
        self._is_open = False
        try:
            if self.summary is None:  # the encoder or an output failed
                self._rows.close()  # which counts the frames that nobody took
                self.summary = self._summarized()
        finally:
            self._stack.close()

    def _raise_output_failure(self) -> None:
        for report in self.reports:
            if report.failure is not None:
                raise OutputError(report.failure)

    def _raise_what_failed(self) -> None:
        """Raise in one line what did not go well, if anything did not.

        A live source that was lost and came back is in the rows; a recording that was damaged
        stays damaged.
        """
        summary = self.summary
        assert summary is not None  # noqa: S101  # for the type checker
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
                f"all {summary.stale} frames were older than max_age_ms={self._max_age_ms:g} when "
                "they could have become a latent: allow more, or use a faster engine"
            )
        raise SourceError(f"{', '.join(summary.cameras)} holds no frame: name another source")


def _reconstruction(
    stack: contextlib.ExitStack,
    bundle: Bundle,
    options: StreamOptions,
    rebuild: Rebuild | None,
    ood: OODDetector | None,
) -> Reconstruction | None:
    """Open the decoder where the options ask for reconstructions; `stack` closes it."""
    every = options.every()
    if every is None:
        return None
    decoder = select_engine(bundle, "decoder", options.engine, rebuild).backend
    stack.enter_context(decoder)
    size, pictures = bundle.spec.latent_size, options.view is not None
    return Reconstruction(decoder, every, size, ood, pictures=pictures)


def _mailbox(mailboxes: Mailboxes, source: FrameSource, options: StreamOptions) -> Mailbox:
    """Add a source's mailbox, under a name of its own: addresses may differ in what is secret."""
    taken = {box.name for box in mailboxes.boxes}
    names = itertools.chain([source.name], (f"{source.name} #{n}" for n in itertools.count(2)))
    is_every = options.policy == "every" or (options.policy is None and not source.live)
    return mailboxes.add(
        next(name for name in names if name not in taken),
        keep=FRAMES_WAITING if is_every and source.live else 1,
        waits=is_every and not source.live,
        timeout_s=max(options.timeout, source.silence_s) if source.can_reconnect else math.inf,
        give_up_s=options.give_up_after if source.can_reconnect else math.inf,
    )
