"""motorvae-stream put together: encoder, cameras and sinks, opened, run and closed in order."""

from __future__ import annotations

import contextlib
import gc
import itertools
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

from rich.console import Console

from ..bundle.load import Bundle, load_bundle
from ..core.command import print_remarks, stderr_console
from ..core.errors import OutputError, SourceError
from ..core.latency import table_of
from ..core.row import RunFacts
from ..core.spec import ModelSpec
from ..engines.autotune_threads import autotuned_engine
from ..engines.cpu_threads import keep_opencv_single
from ..engines.select import Rebuild, SelectedEngine, select_engine
from ..sinks.base import Sink
from ..sinks.fanout import SinkFanout, SinkReport
from ..sinks.open import check_output, open_sink
from ..sources.base import FrameSource
from ..sources.open import open_source
from ..sources.paced import Paced
from .capture_thread import CaptureThread
from .encode_loop import Extras, LatentStream, end_row
from .mailbox import LivenessTimeouts
from .mailboxes import Mailboxes
from .ood import usable_detector
from .options import StreamOptions, check_stream_options
from .reconstruct import Reconstruction
from .stats import StreamSummary

FRAMES_WAITING = 64
"""How many frames of a live source may wait under the policy `every`."""
FRAMES_AHEAD = 1
"""How far a recording is decoded ahead of the encoder: more would only make frames older."""
SAME_SIGNAL_S = 0.1
"""A second signal within this time of the first is the same one, sent twice."""


def stream(options: StreamOptions, rebuild: Rebuild | None = None) -> None:
    """Run motorvae-stream.

    Args:
        options: Its options.
        rebuild: What `--rebuild` calls; see `select_engine`.

    Raises:
        MotorVAEError: What could not be opened, failed, or was lost for good.
    """
    check_stream_options(options)
    keep_opencv_single()
    for output in options.outputs:
        check_output(output)
    _check_view(options)
    console = stderr_console()
    bundle = load_bundle(options.model, hash_all=False)
    with contextlib.ExitStack() as stack:
        choice = _encoder(options, bundle, rebuild)
        backend = stack.enter_context(choice.backend)
        extras, remarks = _extras(options, bundle, stack, rebuild)
        encoder = LatentStream(backend, bundle.spec, len(options.camera), extras)
        mailboxes, captures, lossless = _captures(options, bundle, stack)
        facts = RunFacts(
            latent_size=bundle.spec.latent_size,
            image_size=bundle.spec.image_size,
            cameras=tuple(box.name for box in mailboxes.boxes),
            weights_sha256=bundle.manifest.weights_sha256,
            backend=choice.chosen,
            lossless=lossless,
        )
        sinks = _sinks(options, facts)
        fanout = stack.enter_context(SinkFanout(sinks, facts))
        targets = ", ".join(sink.name for sink in sinks)
        console.print(
            f"{', '.join(facts.cameras)} -> {choice.chosen} -> {targets}{choice.remarks}{remarks}"
        )
        print_remarks(console, bundle.folder, bundle.manifest.remarks)
        for sink in sinks:
            if sink.set_aside_as:
                console.print(f"the earlier {sink.name} is kept as {sink.set_aside_as}")
        _stop_on_signals(mailboxes, fanout)
        # Everything that stays is there by now: no later collection needs to look at it.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        for capture in captures:
            capture.start()
        summary = encoder.run(mailboxes, fanout.put, max_frames=options.max_frames)
        for capture in captures:  # all at once: each may have to wait for what it reads
            capture.stop()
        fanout.put_last(end_row(summary, fanout.reports))
        fanout.close()
        _print_summary(console, summary, fanout.reports)
        for box in mailboxes.boxes:
            if box.error is not None:
                raise box.error
        _judge(summary, captures, fanout.reports, stopped=mailboxes.interrupted)


def _check_view(options: StreamOptions) -> None:
    if options.view is not None:
        from ..sinks.rerun.open import check_view  # noqa: PLC0415  # a module about an optional package

        check_view(options.view_file)


def _encoder(options: StreamOptions, bundle: Bundle, rebuild: Rebuild | None) -> SelectedEngine:
    """Open the encoder; where frames come with pauses, with the threads that suit those."""
    request = replace(options.engine, outputs=options.encoder_outputs)

    def open_with(threads: int | None) -> SelectedEngine:
        return select_engine(bundle, "encoder", replace(request, threads=threads), rebuild)

    if request.threads is not None or not options.is_paced:
        return open_with(request.threads)
    side = bundle.spec.image_size
    return autotuned_engine(open_with, (len(options.camera), 1, side, side))


def _extras(
    options: StreamOptions,
    bundle: Bundle,
    stack: contextlib.ExitStack,
    rebuild: Rebuild | None,
) -> tuple[Extras, str]:
    """Open what rows are to say beyond the latent; also return what to remark in the first line."""
    known, remark = None, ""
    if options.ood != "none":
        known, remark = usable_detector(bundle, ood_above=options.ood_above)
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
    return extras, f"; {remark}" if remark else ""


def _opened(text: str, options: StreamOptions, spec: ModelSpec) -> FrameSource:
    """Open a source for a model, at the pace asked for."""
    source = open_source(text, replace(options.capture_request, spec=spec))
    return Paced(source) if options.realtime and not source.live else source


def _captures(
    options: StreamOptions, bundle: Bundle, stack: contextlib.ExitStack
) -> tuple[Mailboxes, list[CaptureThread], bool]:
    """Open every camera, each with its mailbox and a thread that owns it and is not yet started.

    Returns:
        The mailboxes, the threads, and whether rows may wait, as no source is live.
    """
    mailboxes = Mailboxes(batch_wait_s=options.batch_wait_ms / 1e3)
    captures, lossless = [], True
    for text in options.camera:
        source = _opened(text, options, bundle.spec)
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
        lossless &= not source.live
    return mailboxes, captures, lossless


def _keep(policy: str, *, live: bool) -> int:
    if policy == "latest":
        return 1
    return FRAMES_WAITING if live else FRAMES_AHEAD


def _unique(name: str, taken: Sequence[str]) -> str:
    """Tell cameras of one name apart: their addresses may differ in what must not be printed."""
    candidates = itertools.chain([name], (f"{name} #{n}" for n in itertools.count(2)))
    return next(free for free in candidates if free not in taken)


def _sinks(options: StreamOptions, facts: RunFacts) -> list[Sink]:
    with contextlib.ExitStack() as opening:  # what opened before one that fails is closed
        sinks = [opening.enter_context(open_sink(output, facts)) for output in options.outputs]
        if options.view is not None:
            from ..sinks.rerun.open import open_view  # noqa: PLC0415  # a module about an optional package

            sinks.append(opening.enter_context(open_view(options.view_file, facts)))
        opening.pop_all()  # from here on the sinks own them
    return sinks


def _stop_on_signals(mailboxes: Mailboxes, fanout: SinkFanout) -> None:
    """End cleanly on the first SIGINT or SIGTERM, and at once on the second.

    The handler runs between two steps of the main thread, so that it takes no lock that the
    main thread may hold; capture threads are stopped where the run has ended. Supervisors such
    as timeout signal a process and its group: what follows at once is still the first.
    """
    first_s: list[float] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if not first_s:
            first_s.append(time.monotonic())
            mailboxes.stop()  # its lock may be taken twice by one thread
            fanout.interrupt()
        elif time.monotonic() - first_s[0] > SAME_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)


def _print_summary(console: Console, summary: StreamSummary, reports: Sequence[SinkReport]) -> None:
    rate = f"{summary.fps:.1f} fps" if summary.fps else "no rate"
    counts = [
        f"{summary.frames} latents",
        f"{summary.dropped} dropped",
        f"{summary.lost} lost",
        *(f"{count} {what}" for count, what in _unusual(summary) if count),
        rate,
    ]
    console.print(", ".join(counts))
    for report in reports:
        unwritten = f", {report.dropped} not taken" if report.dropped else ""
        console.print(f"{report.rows} rows in {report.name}{unwritten}")
    if summary.stages:
        console.print(table_of(summary.stages))


def _unusual(summary: StreamSummary) -> list[tuple[int, str]]:
    return [
        (summary.stale, "stale"),
        (summary.unread, "unread at the end"),
        (summary.duplicates, "duplicates"),
        (summary.ood, "out of distribution"),
    ]


def _judge(
    summary: StreamSummary,
    captures: Sequence[CaptureThread],
    reports: Sequence[SinkReport],
    *,
    stopped: bool,
) -> None:
    """Say in one line what did not go well, if anything did not.

    A live source that was lost and came back has said so in its rows; a recording that was
    damaged stays damaged.

    Raises:
        OutputError: A sink failed.
        SourceError: A camera was given up, a recording is damaged, or nothing became a latent.
    """
    for report in reports:
        if report.failure is not None:
            raise OutputError(report.failure)
    if summary.failure:
        raise SourceError(f"{summary.failure}; check the source and start again")
    counts = summary.cameras.items()
    for capture, (name, count) in zip(captures, counts, strict=True):
        if count.lost and not capture.can_reconnect:
            raise SourceError(
                f"{name}: frames lost: {count.lost}, each with its reason in a row of status lost; "
                "the other rows are valid: repair the source and run again"
            )
    if summary.frames or stopped:
        return
    if summary.stale:
        raise SourceError(
            f"all {summary.stale} frames were older than --max-age-ms when they could have become "
            "a latent: allow more, or use a faster engine"
        )
    raise SourceError(f"{', '.join(summary.cameras)} holds no frame: name another source")
