"""EncoderOpening: the encoder is opened in a thread of its own, while cameras are opened."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from ..bundle.graph_key import OUTPUTS
from ..bundle.load import Bundle
from ..core.lifecycle import Closing
from ..engines.select import Rebuild, SelectedEngine, is_for_cpu, select_engine
from ..engines.trial.run import end_trial_of
from ..engines.trial.threads import EarlierTrial, ThreadTrial
from ..sources.spec import SourceSpec
from .cores import Cores
from .options import StreamOptions


class EncoderOpening(Closing):
    """The encoder of a stream, while it is opened; whoever takes the result closes that.

    Engines read and compile a graph without Python's lock, so that cameras can be opened, and
    modules loaded, beside them. Where a GPU may be used or an engine is to be built, the encoder
    is opened before this returns: contexts of a GPU belong to threads.

    Args:
        bundle: A checked bundle.
        options: Checked options of the stream.
        specs: What its cameras are.
        rebuild: As of `select_engine`.

    Attributes:
        cores: Where its threads are placed, as far as the options ask for it.
    """

    def __init__(
        self,
        bundle: Bundle,
        options: StreamOptions,
        specs: Sequence[SourceSpec],
        rebuild: Rebuild | None = None,
    ) -> None:
        self.specs = tuple(specs)
        self._is_paced = any(spec.live for spec in specs)
        # Of several cameras, threads that run first would keep all cores from everybody else.
        is_first = self._is_paced and options.latency == "lowest" and len(self.specs) == 1
        self.cores = Cores(first=is_first)
        self._bundle, self._options, self._rebuild = bundle, options, rebuild
        self._opened: ThreadTrial | None = None
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        if opens_beside(options):
            self._thread = threading.Thread(target=self._open, name="open encoder", daemon=True)
            self._thread.start()
        else:
            self._open()
            self.check()

    def check(self) -> None:
        """Wait until the encoder is open, or raise why it is not, as `select_engine` does."""
        self._wait()
        if self._error is not None:
            raise self._error

    def result(self) -> SelectedEngine:
        """Wait for the encoder and return it, once; it may be tried with one thread first.

        The trial is here and not beside anything else, which would decide it.
        """
        self.check()
        opened, self._opened = self._opened, None
        assert opened is not None  # noqa: S101  # for the type checker
        self.cores.bind()  # as when frames are encoded
        try:
            chosen = opened.faster()
        finally:
            self.cores.release()
        if chosen.backend.threads == 1:
            self.cores.place_nothing()
        return chosen

    def close(self) -> None:
        """Release what was opened and not taken; waits until the engine has let go of the graph."""
        if self._thread is not None and self._thread.ident is not None:
            end_trial_of(self._thread.ident)
        self._wait()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()
        self.cores.close()

    def _wait(self) -> None:
        if self._thread is not None:
            # A join that Ctrl-C ends takes a thread that runs for ended (Python 3.10 to 3.12).
            self._done.wait()
            self._thread.join()

    def _open(self) -> None:
        try:
            self._opened = self._encoder()
        except Exception as error:  # noqa: BLE001  # `check` raises it
            self._error = error
        finally:
            self._done.set()

    def _encoder(self) -> ThreadTrial:
        """Open the encoder; where frames come with pauses, with the threads that suit those."""
        options = self._options
        needed = OUTPUTS["encoder"] if options.ood == "both" else ("mu",)
        shape = len(options.camera), *self._bundle.spec.input_shape
        earlier = None if options.engine.threads else EarlierTrial(images=shape[0])
        request = replace(options.engine, outputs=needed)

        def open_with(threads: int | None, known: EarlierTrial | None = None) -> SelectedEngine:
            asked = replace(request, threads=threads)
            rebuild = self._rebuild
            return select_engine(self._bundle, "encoder", asked, rebuild, known_threads=known)

        def open_placed(threads: int | None) -> SelectedEngine:
            found: list[SelectedEngine] = []
            # OpenVINO has places of its own, and lets the thread that runs it do the most.
            with self.cores.placing(lambda: found[0].backend.name.startswith("ONNX Runtime")):
                found.append(open_with(threads, earlier))
            return found[0]

        if not self._is_paced:
            return ThreadTrial(open_with(request.threads))
        if options.latency == "economy":
            takes_one = request.threads is None and is_for_cpu(options.engine)
            return ThreadTrial(open_with(1 if takes_one else request.threads))
        if request.threads is not None:
            return ThreadTrial(open_placed(request.threads))
        return ThreadTrial.opened(open_placed, shape, earlier)


def opens_beside(options: StreamOptions) -> bool:
    """Whether the encoder of a stream may be opened in another thread than the one that runs it."""
    return not options.engine.rebuild and is_for_cpu(options.engine)
