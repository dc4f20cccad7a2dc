"""Stream: encoder, cameras and sinks opened, run and closed in order, as an iterator of rows."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from ..bundle.graph_key import OUTPUTS
from ..bundle.load import Bundle
from ..core.errors import ConfigError, MotorVAEError, OutputError, SourceError
from ..core.lifecycle import Closing
from ..core.row import Row, RunFacts
from ..engines.cpu_threads import opencv_kept_single
from ..engines.select import Rebuild, SelectedEngine, autotuned_engine, select_engine
from ..ood.detector import usable_detector
from ..sinks.fanout import SinkFanout, SinkReport
from ..sinks.open import SinkClass, check_output, check_view, locked_outputs, open_sinks
from ..sources.base import FrameSource
from ..sources.open import open_source
from ..sources.spec import SourceSpec
from .capture_thread import CaptureThread
from .cores import Cores
from .encode_loop import LatentStream, Reconstruction
from .mailbox import Mailbox, Mailboxes
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
            source_specs = [options.source_spec(text) for text in options.camera]
            choice, cores = _encoder(options, bundle, source_specs, rebuild)
            backend = stack.enter_context(choice.backend)
            ood, remarks = None, []
            if options.ood != "none":
                ood, remark = usable_detector(bundle, ood_above=options.ood_above)
                remarks.append(remark)
            reconstruction, pictures = None, options.view is not None
            if (every := options.every()) is not None:
                selected = select_engine(bundle, "decoder", options.engine, rebuild)
                decoder = stack.enter_context(selected.backend)
                size = spec.latent_size
                reconstruction = Reconstruction(decoder, every, size, ood, pictures=pictures)
            self._encoder = LatentStream(
                backend,
                spec,
                len(source_specs),
                ood=ood,
                reconstruction=reconstruction,
                max_age_ms=options.max_age_ms,
                pictures=pictures,
                cores=cores,
            )
            self._mailboxes = Mailboxes(batch_wait_s=options.batch_wait_ms / 1e3)
            self._captures: list[CaptureThread] = []
            self._sources = sources = list[FrameSource]()
            for source_spec in source_specs:
                source = open_source(source_spec, replace(options.capture_request, spec=spec))
                sources.append(source)
                mailbox = _mailbox(self._mailboxes, source, options)
                freeze_after_s = options.freeze_after_s(can_reconnect=source.can_reconnect)
                capture = CaptureThread(
                    source, mailbox, spec, freeze_after_s=freeze_after_s, cores=cores
                )
                self._captures.append(stack.enter_context(capture))
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

    @property
    def stats(self) -> StreamStats:
        """What has been counted so far."""
        return self._encoder.stats

    @property
    def remarks(self) -> list[str]:
        """What to know of what was read so far, and of what was not taken; a line each."""
        return [line for source in self._sources for line in source.remarks]

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


def _encoder(
    options: StreamOptions, bundle: Bundle, specs: Sequence[SourceSpec], rebuild: Rebuild | None
) -> tuple[SelectedEngine, Cores]:
    """Open the encoder; where frames come with pauses, with the threads that suit those."""
    needed = OUTPUTS["encoder"] if options.ood == "both" else ("mu",)
    request = replace(options.engine, outputs=needed)
    is_paced = any(spec.live for spec in specs)
    # Of several cameras, threads that run first would keep all cores from everybody else.
    is_first = is_paced and options.latency == "lowest" and len(specs) == 1
    cores = Cores(first=is_first)

    def open_with(threads: int | None) -> SelectedEngine:
        return select_engine(bundle, "encoder", replace(request, threads=threads), rebuild)

    def open_placed(threads: int | None) -> SelectedEngine:
        with cores.placing():
            return open_with(threads)

    if not is_paced:
        return open_with(request.threads), cores
    if options.latency == "economy":
        opened = open_with(request.threads)
        if request.threads is None and (opened.backend.threads or 1) > 1:
            opened.backend.close()
            opened = open_with(1)
        return opened, cores
    if request.threads is not None:
        return open_placed(request.threads), cores
    cores.bind()
    try:
        shape = (len(options.camera), *bundle.spec.input_shape)
        chosen = autotuned_engine(open_placed, shape)
    finally:
        cores.release()
    if chosen.backend.threads == 1:
        cores.place_nothing()
    return chosen, cores


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
