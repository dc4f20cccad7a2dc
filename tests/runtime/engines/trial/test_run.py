"""Graphs tried in real processes, with the real engines and with ones that hang and crash."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from motorvae.export.bundle import add_to_bundle
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import BackendError, BundleError
from motorvae.runtime.engines.base import CpuRunner
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.engines.open_graph import library_of
from motorvae.runtime.engines.trial import run
from motorvae.runtime.engines.trial.records import Opened
from motorvae.runtime.engines.trial.run import Limits, check_opening

ENCODER = GraphKey("encoder")
NOTHING = Limits(60, 1)
"""No engine opens a graph within these: who passes was not tried."""
STAND_IN = """
import ctypes, os, time
__version__ = "9.9"
class SessionOptions:
    def add_session_config_entry(self, *_):
        pass
def get_available_providers():
    return ["CPUExecutionProvider"]
class InferenceSession:
    def __init__(self, *_, **__):
        {}
"""


@pytest.fixture(autouse=True)
def _knows_no_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "_PASSED", set())


@pytest.fixture
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let new processes, and not this one, have an ONNX Runtime that does this with a graph."""

    def plant(body: str) -> None:
        package = tmp_path / "planted" / "onnxruntime"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(STAND_IN.format(body))
        paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    library_of("onnx")  # this process has the real one
    return plant


def tried(bundle: Bundle, limits: Limits, runner: CpuRunner = "onnx") -> str | None:
    entry = bundle.entry(ENCODER)
    return check_opening(bundle.path(entry), entry, runner, limits)


def test_a_graph_is_tried_once_on_a_machine(bundle: Bundle) -> None:
    enough = Limits.of(bundle.entry(ENCODER), bundle.spec)
    assert tried(bundle, enough) is None
    assert tried(bundle, NOTHING) is None  # remembered in this process
    run._PASSED.clear()
    assert tried(bundle, NOTHING) is None  # remembered in the user's cache
    with pytest.raises(BundleError):
        tried(bundle, NOTHING, "openvino")  # which never opened it
    assert tried(bundle, enough, "openvino") is None


def test_what_takes_too_much_memory_is_refused_and_not_remembered(bundle: Bundle) -> None:
    for _ in range(2):
        with pytest.raises(BundleError, match="is not opened: in a process of its own, ONNX Runt"):
            tried(bundle, NOTHING)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("time.sleep(600)", r"did not open and run it within 0\.2 s"),
        ("while True: pass", r"did not open and run it within 0\.2 s"),
        ("os.abort()", "was ended by SIGABRT"),
        ("ctypes.string_at(0)", "was ended by SIGSEGV"),
        ("os._exit(7)", "ended with exit code 7"),
        ("raise ValueError('bad allocation')", "took more than 700 MB of memory for it"),
        ("bytearray(1 << 40)", "took more than 700 MB of memory for it"),
        (
            "raise RuntimeError('error code: 12 error msg: Cannot allocate memory')",
            "took more than 700 MB of memory for it",
        ),
        ("os.write(1, b'noise' * 99999), os.write(2, b'noise' * 99999), os.abort()", "SIGABRT"),
    ],
)
def test_an_engine_that_hangs_or_crashes_does_so_elsewhere(
    bundle: Bundle, stand_in: Callable[[str], None], body: str, said: str
) -> None:
    stand_in(body)
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(BundleError, match=rf"encoder\.onnx is not opened: .* {said}.*; .* --trust"):
        tried(bundle, Limits(0.2 if "within" in said else 60, 700))
    assert {child.pid for child in psutil.Process().children()} == before


def test_what_an_engine_refuses_is_refused_in_its_words(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    facts = {"sha256": sha256_of(path), "size_bytes": path.stat().st_size}
    entry = bundle.entry(ENCODER).model_copy(update=facts)
    enough = Limits.of(bundle.entry(ENCODER), bundle.spec)
    with pytest.raises(BackendError, match=r"^ONNX Runtime cannot open .*broken\.onnx: .*again$"):
        check_opening(path, entry, "onnx", enough)


def test_what_was_swapped_after_the_check_is_refused_and_not_remembered(
    bundle_copy: Path,
) -> None:
    bundle = load_bundle(bundle_copy)
    entry, twin = bundle.entry(ENCODER), bundle.entry(GraphKey("decoder"))
    path = bundle.path(entry)
    enough = Limits.of(entry, bundle.spec)
    for content in (bundle.content(twin), path.read_bytes() + b"\0", b""):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"encoder\.onnx was altered while it was opened"):
            check_opening(path, entry, "onnx", enough)
    assert not Opened(entry.sha256, library_of("onnx"), entry.precision).is_known()


def test_trust_opens_it_untried_and_by_default_it_is_tried(
    bundle: Bundle, stand_in: Callable[[str], None]
) -> None:
    stand_in("os.abort()")
    open_engine(bundle, ENCODER, EngineRequest(backend="onnx", trust=True)).close()
    with pytest.raises(BundleError, match="SIGABRT"):
        open_engine(bundle, ENCODER, EngineRequest(backend="onnx"))


def test_where_no_process_starts_a_note_says_so(
    bundle: Bundle, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("pass")
    (Path(os.environ["PYTHONPATH"].split(os.pathsep)[0]) / "numpy.py").write_text(
        "raise SystemExit"
    )
    with open_engine(bundle, ENCODER) as backend:
        assert backend.notes == (
            "encoder.onnx was not tried in a process of its own, which did not start",
        )
    monkeypatch.setattr(sys, "executable", "")
    with open_engine(bundle, ENCODER) as backend:
        assert "this Python does not know its own program" in backend.notes[0]


def test_a_cache_that_cannot_be_written_costs_a_trial_in_each_process(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    assert tried(bundle, Limits.of(bundle.entry(ENCODER), bundle.spec)) is None
    assert tried(bundle, NOTHING) is None
    run._PASSED.clear()
    with pytest.raises(BundleError):
        tried(bundle, NOTHING)


def test_two_threads_at_once_both_pass(bundle: Bundle) -> None:
    enough = Limits.of(bundle.entry(ENCODER), bundle.spec)
    found: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(tried(bundle, enough))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [None, None]


def test_an_export_remembers_what_it_verified(bundle_copy: Path) -> None:
    add_to_bundle(load_bundle(bundle_copy), ["bf16"], on_reports=lambda *_: None)
    entries = [one for one in load_bundle(bundle_copy).manifest.graphs if one.precision == "bf16"]
    assert entries
    for one in entries:
        assert Opened(one.sha256, library_of("openvino"), "bf16").is_known()
        assert not Opened(one.sha256, library_of("openvino"), "fp32").is_known()


def test_a_stream_tries_a_bundle_that_it_does_not_know(
    bundle: Bundle, small_bundle: Path, tmp_path: Path, stand_in: Callable[[str], None]
) -> None:
    command = [
        str(Path(sys.executable).with_name("motorvae-stream")),
        *("synthetic", "--backend", "onnx", "--max-frames", "2", "--model", str(small_bundle)),
        *("--output", str(tmp_path / "rows.jsonl")),
    ]

    def streamed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    done = streamed()
    assert done.returncode == 0, done.stderr
    leanest = bundle.leanest(GraphKey("encoder", target="onnx"), ("mu",))
    records = list((tmp_path / "cache" / "motorvae" / "opened").iterdir())
    assert [leanest.sha256 in record.read_text() for record in records] == [True]
    stand_in("os.abort()")  # of another version, for the stream itself, too
    done = streamed()
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert re.match(
        r"motorvae-stream: \S+\.onnx is not opened: .* ONNX Runtime 9\.9 was ended", last
    )


def test_a_trial_that_nobody_needs_any_more_ends_at_once() -> None:
    ended: list[tuple[int | None, bytes]] = []
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    thread = threading.Thread(target=lambda: ended.append(run._ended(command, 60)))
    thread.start()
    while thread.is_alive() and thread.ident not in run._running:
        thread.join(0.01)
    run.end_trial_of(thread.ident or 0)
    thread.join(30)
    assert ended == [(-signal.SIGKILL, b"")]
    run.end_trial_of(thread.ident or 0)  # there is none any more
