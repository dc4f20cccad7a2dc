"""stream, encode and export from Python, against the commands that do the same."""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
import signal
import subprocess
import sys
import threading
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pytest

import motorvae as mv
from motorvae.export.compare.options import VerifyOptions
from motorvae.export.importing.options import ImportOptions
from motorvae.export.options import ExportOptions
from motorvae.keywords import (
    EngineKeywords,
    ExportKeywords,
    ImportKeywords,
    StreamKeywords,
    VerifyKeywords,
)
from motorvae.runtime.core.errors import (
    BackendError,
    BundleError,
    ConfigError,
    OutputError,
    SourceError,
)
from motorvae.runtime.core.row import json_from_row
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.stream.options import StreamOptions

PER_RUN = {"captured_ns", "age_ms", "capture_ms", "convert_ms", "wait_ms", "encode_ms", "emit_ms"}


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def capture_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.split()[0] in {"capture", "sink"}]


def facts(line: bytes) -> dict[str, Any]:
    """A row without what the clock puts into it."""
    row: dict[str, Any] = orjson.loads(line)
    if row["status"] == "end":
        return {"status": "end", "frames": row["summary"]["frames"]}
    return {key: value for key, value in row.items() if key not in PER_RUN}


# stream


def test_rows_are_those_of_the_command(
    small_bundle: Path, stream: Callable[..., Any], clips: dict[str, Path], tmp_path: Path
) -> None:
    clip, output = str(clips["h264.mp4"]), tmp_path / "rows.jsonl"
    assert stream("--camera", clip, "--output", output).code == 0
    rows = list(mv.stream(mv.load(small_bundle), clip))
    assert all(isinstance(row, mv.Row) for row in rows)
    found = [facts(json_from_row(row)) for row in rows]
    assert found == [facts(line) for line in output.read_bytes().splitlines()]
    assert [row.status for row in rows] == ["ok"] * 24 + ["end"]
    assert capture_threads() == []


def test_several_cameras_and_an_output_beside_the_iterator(
    small_bundle: Path, clips: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    cameras = [clips["h264.mp4"], str(clips["mjpeg.avi"])]
    with mv.stream(small_bundle, cameras, output=output, max_frames=10) as found:
        assert found.cameras == tuple(map(str, cameras))
        assert found.engine.startswith("fp32 mu only ONNX Runtime")
        assert found.outputs == (str(output),)
        assert found.summary is None
        rows = list(found)
    assert found.summary is not None
    assert found.summary.frames == 10
    assert found.reports[0].rows == len(rows) == len(output.read_bytes().splitlines())
    assert {row.camera for row in rows[:-1]} == set(found.cameras)


def test_options_that_may_have_a_value_are_given_as_python_has_them(
    small_bundle: Path, tmp_path: Path
) -> None:
    rows = list(mv.stream(small_bundle, "synthetic?frames=6", reconstruct=2, policy="every"))
    decoded = [row.reconstruction_error is not None for row in rows[:-1]]
    assert decoded == [True, False, True, False, True, False]
    with pytest.raises(mv.MotorVAEError, match=r"rerun|\.rrd"):
        mv.stream(small_bundle, "synthetic", view=str(tmp_path / "view.txt"))


def test_leaving_early_releases_all_and_ends_the_output(
    small_bundle: Path, tmp_path: Path, read_rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    output = tmp_path / "rows.jsonl"
    with mv.stream(small_bundle, "synthetic?fps=100", output=str(output)) as found:
        first = next(found)
        assert first.status == "ok"
        assert capture_threads() != []
    assert capture_threads() == []
    *rows, end = read_rows(output)
    assert end["status"] == "end"
    assert end["summary"]["frames"] == len(rows) == 1
    found.close()  # once more does nothing
    with pytest.raises(StopIteration):
        next(found)


def test_an_encoder_that_fails_leaves_the_summary_of_what_it_did(
    small_bundle: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, _batch: object) -> None:
            raise BackendError("the encoder broke")

    with mv.stream(small_bundle, clips["h264.mp4"]) as found:
        for _ in range(8):
            assert next(found).status == "ok"
        monkeypatch.setattr(found._encoder, "_backend", Broken())
        with pytest.raises(BackendError, match="the encoder broke"):
            next(found)
    assert capture_threads() == []
    assert found.summary is not None
    assert (found.summary.frames, found.summary.rows) == (8, 8)


def test_an_output_that_fails_leaves_the_summary_with_the_frames_that_nobody_took(
    small_bundle: Path, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_row: object) -> None:
        raise OutputError("no room")

    with mv.stream(small_bundle, clips["h264.mp4"]) as found:
        next(found)
        monkeypatch.setattr(found._fanout, "put", refuse)
        with pytest.raises(OutputError, match="no room"):
            next(found)
        assert found.summary is not None
        assert found.summary.frames == 2
        with pytest.raises(StopIteration):
            next(found._rows)  # ended: it has counted what waited


def test_dropping_the_iterator_is_enough(small_bundle: Path) -> None:
    for row in mv.stream(small_bundle, ["synthetic?fps=100", "synthetic?fps=90&seed=1"]):
        assert row.status == "ok"
        break
    assert capture_threads() == []


def test_a_stream_that_was_never_asked_releases_too(small_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    mv.stream(small_bundle, "synthetic", output=output).close()
    assert [facts(line)["status"] for line in output.read_bytes().splitlines()] == ["end"]
    assert capture_threads() == []


def test_dropping_one_that_was_never_asked_is_enough(small_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    found = mv.stream(small_bundle, "synthetic", output=output)
    del found
    assert [facts(line)["status"] for line in output.read_bytes().splitlines()] == ["end"]
    assert [name for name in names_of_threads() if name.startswith("sink")] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policy": "newest"}, "policy='newest': take 'latest' or 'every'"),
        ({"ood": "banana"}, "ood='banana': take 'both', 'mu' or 'none'"),
        ({"backend": "onyx"}, "backend='onyx': take 'auto'"),
        ({"max_frames": "many"}, "max_frames='many': take"),
        ({"nonsense": 1}, "nonsense: no such option, take some of accept_mode, "),
        ({"output": ["a.jsonl", "a.jsonl"]}, "take each output once"),
    ],
)
def test_options_are_held_against_their_types(
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        mv.stream(small_bundle, "synthetic", **options)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_export_is_asked_is_held_against_its_types(tmp_path: Path) -> None:
    for options in ({"weights": "worst"}, {"engine": "trt"}, {"fp17": True}):
        with pytest.raises(ConfigError, match="take "):
            mv.export(tmp_path / "run", tmp_path / "bundle", **options)  # type: ignore[misc]


def test_a_row_is_fresh_however_late_it_is_asked_for(small_bundle: Path) -> None:
    """What came meanwhile was overtaken by the newest, and is counted."""
    with mv.stream(small_bundle, "synthetic?fps=200") as found:
        before = next(found)
        threading.Event().wait(0.5)  # a slow consumer
        next(found)  # may have waited in the mailbox
        row = next(found)
        assert row.age_ms is not None
        assert row.age_ms < 400
        assert row.index - before.index > 20
        summary_dropped = found.stats.summary([]).dropped
    assert summary_dropped > 20


def test_another_thread_may_iterate_and_another_may_stop(small_bundle: Path) -> None:
    rows: list[mv.Row] = []
    found = mv.stream(small_bundle, "synthetic?fps=100")
    enough = threading.Event()

    def consume() -> None:
        for row in found:
            rows.append(row)
            if len(rows) == 5:
                enough.set()

    thread = threading.Thread(target=consume)
    thread.start()
    assert enough.wait(60)
    found.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert rows[-1].status == "end"
    assert capture_threads() == []


def test_no_signal_handler_is_set_and_ctrl_c_works(small_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    source = (
        "import os, signal, sys, threading, motorvae as mv\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]\n"
        "try:\n"
        "    for row in mv.stream(sys.argv[1], 'synthetic?fps=50', output=sys.argv[2]):\n"
        "        if row.index > 5: os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    pass\n"
        "after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]\n"
        "print(before == after, [t.name for t in threading.enumerate()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(small_bundle), str(output)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout) == (0, "True ['MainThread']\n"), done.stderr
    assert orjson.loads(output.read_bytes().splitlines()[-1])["status"] == "end"


def test_what_does_not_open_is_raised_at_once_and_leaves_nothing(
    small_bundle: Path, tmp_path: Path
) -> None:
    for camera, options, error, words in (
        ("nowhere.mp4", {}, SourceError, "no such source"),
        (("synthetic", "nowhere.mp4"), {}, SourceError, "no such source"),
        ("synthetic", {"max_age_ms": -1}, ConfigError, "max_age_ms=-1"),
        ("synthetic", {"precision": "int8", "backend": "onnx"}, BundleError, "has no encoder"),
        ("synthetic", {"output": tmp_path}, ConfigError, "name a file ending in"),
        ((), {}, ConfigError, "name a camera"),
    ):
        with pytest.raises(error, match=words):
            mv.stream(small_bundle, camera, **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_frame: no such option"):
        mv.stream(small_bundle, "synthetic", max_frame=1)  # type: ignore[call-arg]
    assert capture_threads() == []


def test_what_failed_for_good_is_raised_after_the_last_row(
    small_bundle: Path, tmp_path: Path
) -> None:
    rows: list[str] = []
    found = mv.stream(small_bundle, "synthetic?frames=9", max_age_ms=0.001)
    with pytest.raises(SourceError, match=r"were older than max_age_ms=0\.001 when"):
        rows.extend(row.status for row in found)
    assert rows[-1] == "end"
    assert set(rows[:-1]) == {"stale"}
    link = tmp_path / "rows.jsonl"
    link.symlink_to("/dev/null")
    with pytest.raises(OutputError, match="is not a file"):
        mv.stream(small_bundle, "synthetic", output=link)


# encode


def test_encode_gives_and_writes_what_the_command_writes(
    small_bundle: Path, encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "of_the_command.npz"
    assert encode(image_folder, "--output", path).code == 0
    for output in (None, tmp_path / "mine.npz"):
        found = mv.encode(mv.load(small_bundle), image_folder, output, batch_size=5)
        with np.load(path) as saved:
            assert found.names == saved["names"].tolist()
            assert np.allclose(found.mu, saved["mu"], atol=1e-6)
            assert np.allclose(found.log_var, saved["log_var"], atol=1e-6)
    with np.load(tmp_path / "mine.npz") as saved:
        assert np.array_equal(saved["mu"], found.mu)


def test_encode_says_what_did_not_decode_and_keeps_an_earlier_file(
    small_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "good.png"), np.zeros((9, 9), np.uint8))
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    output = tmp_path / "latents.npz"
    output.write_bytes(b"earlier")
    found = mv.encode(small_bundle, folder, output)
    assert found.names == ["good.png"]
    assert [gap.name for gap in found.gaps] == ["torn.jpg"]
    assert (tmp_path / "latents.1.npz").read_bytes() == b"earlier"
    with pytest.raises(ConfigError, match="live and has no end"):
        mv.encode(small_bundle, "synthetic")
    with pytest.raises(ConfigError, match=r"ending in \.npz"):
        mv.encode(small_bundle, folder, tmp_path / "latents.txt")


# export


def test_export_is_the_package_and_the_function() -> None:
    """Whatever was imported first, both `motorvae.export.cli` and `motorvae.export(...)` work."""
    for first in ("import motorvae.export.cli", "import motorvae", "from motorvae import export"):
        source = (
            f"{first}\nimport motorvae as mv, motorvae.export.options\n"
            "assert callable(mv.export) and mv.export.options.ExportOptions\n"
            "try: mv.export('/nowhere', '/tmp/bundle-of-nowhere')\n"
            "except mv.MotorVAEError as error: print(type(error).__name__)"
        )
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=False
        )
        assert done.stdout == "CheckpointError\n", done.stderr


# verify


def test_two_graphs_are_verified_and_a_failure_raises_nothing(
    small_bundle: Path, image_folder: Path
) -> None:
    one, half = (small_bundle / name for name in ("encoder.onnx", "encoder.fp16.onnx"))
    result = mv.verify(one, str(half), image_folder)
    assert isinstance(result, mv.VerifyResult)
    assert (result.passed, result.precision, result.images) == (True, "fp16", 12)
    assert [output.kind for output in result.outputs] == ["mu", "log_var"]
    assert not mv.verify(one, half, image_folder, precision="fp32").passed


def test_what_verify_refuses_is_spelled_for_python(small_bundle: Path, image_folder: Path) -> None:
    graph = small_bundle / "encoder.onnx"
    with pytest.raises(ConfigError, match="sizes: no such option, take some of batch_sizes, "):
        mv.verify(graph, graph, image_folder, sizes=(1,))  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"color rgb: .* leave color out"):
        mv.verify(graph, graph, image_folder, color="rgb")
    with pytest.raises(ConfigError, match="color='red'"):
        mv.verify(graph, graph, image_folder, color="red")  # type: ignore[arg-type]


# What the signatures promise


def test_keywords_are_the_options_of_the_commands() -> None:
    def names(options: type) -> set[str]:
        return {field.name for field in dataclasses.fields(options)}

    engine = set(typing.get_type_hints(EngineKeywords))
    assert engine == names(EngineRequest) - {"rebuild", "outputs"}
    given = {"camera", "model", "output", "engine"}
    assert set(typing.get_type_hints(StreamKeywords)) == (names(StreamOptions) - given) | engine
    given = {"checkpoint", "output", "model", "whole_frame"}  # the last is of a bundle
    assert set(typing.get_type_hints(ExportKeywords)) == names(ExportOptions) - given
    given = {"what", "images", "output"}
    assert set(typing.get_type_hints(ImportKeywords)) == names(ImportOptions) - given
    given = {"reference", "candidate", "images", "json"}
    assert set(typing.get_type_hints(VerifyKeywords)) == names(VerifyOptions) - given


ENGINE = "precision=None, backend='auto', provider=None, threads=None, cuda_graph=True, trust=False"
SNAPSHOT = {
    "Bundle": "(folder, manifest, unread=<factory>)",
    "Bundle.decoder": f"(self, *, {ENGINE})",
    "Bundle.encoder": f"(self, *, ood_above=99.9, {ENGINE})",
    "Decoder": "(selected, spec, *notes)",
    "Decoder.__call__": "(self, latents)",
    "Encoded": "(names, mu, log_var, gaps, remarks, latent_shape, weights_sha256='', "
    "sha256=<factory>, numbers=<factory>)",
    "Encoded.save": "(self, path)",
    "Encoder": "(selected, spec, detector, note)",
    "Encoder.__call__": "(self, images, *, max_picture=200.0)",
    "Latent": "(mu, log_var, is_ood)",
    "Latents": "(mu, log_var, is_ood)",
    "Stream": "(bundle, options, *, outputs=(), rebuild=None, view=None, opening=None)",
    "Stream.close": "(self)",
    "Stream.stop": "(self)",
    "encode": "(bundle, data, output=None, *, every=1, batch_size=None, workers=None, ood=True, "
    f"matrix=None, track=None, max_picture=200.0, {ENGINE})",
    "export": "(run='runs/latest', output='bundle', *, replace=False, anyway=False, fp16=False, "
    "keep_float32=False, bf16=False, int8=False, calibration='held-out', prune_channels=False, "
    "engine='auto', batch='1,1,8', workspace_mib=None, tune=False, tune_minutes=None, "
    "use_dla_core=None, allow_gpu_fallback=False, external_data=True, weights='best', "
    "pretrained=None, "
    "triton=None, triton_platform='onnxruntime', triton_precision=None, triton_name='motorvae', "
    "triton_version=1, triton_batch=None, triton_delay_us=0, triton_instances=1, "
    "triton_device='auto')",
    "load": "(folder='bundle')",
    "stream": f"(bundle, camera, *, output=(), {ENGINE}, max_frames=None, policy=None, "
    "realtime=False, live=None, rtsp_transport='auto', allow_hosts=(), max_age_ms=None, "
    "latency='balanced', timeout=5.0, freeze_after=None, give_up_after=60.0, "
    "batch_wait_ms=2.0, width=None, "
    "height=None, fps=None, fourcc=None, accept_mode=False, matrix=None, track=None, "
    "max_picture=200.0, reconstruct=None, ood='mu', ood_above=99.9, view=False)",
}


def test_help_shows_what_export_takes() -> None:
    shown = pydoc.render_doc(mv.export)
    assert "fp16: bool = False" in shown
    assert "VerificationError: A graph drifted" in shown


def test_errors_name_keywords_and_not_options(small_bundle: Path) -> None:
    bundle = mv.load(small_bundle)
    for run, words in (
        (lambda: mv.stream(bundle, "synthetic", max_frames=0), "max_frames=0: take 1 or more"),
        (lambda: mv.stream(bundle, "synthetic", ood_above=0), "ood_above=0"),
        (
            lambda: bundle.encoder(precision="bf16", backend="onnx"),
            "use backend='openvino', or another precision",
        ),
        (
            lambda: mv.encode(bundle, "photos", provider="cpu", backend="openvino"),
            "provider is for ONNX Runtime, and backend='openvino' was asked for",
        ),
        (
            lambda: bundle.encoder(precision="int8", backend="onnx"),
            f"run motorvae-export --model {small_bundle} --int8 onnx",
        ),
    ):
        with pytest.raises(mv.MotorVAEError) as caught:
            run()
        assert words in str(caught.value)


def test_the_public_names_and_signatures_are_these() -> None:
    import motorvae.functions

    assert sorted(mv.__all__) == [
        "Bundle",
        "Decoder",
        "Encoded",
        "Encoder",
        "Image",
        "Latent",
        "Latents",
        "MotorVAEError",
        "Row",
        "Stream",
        "VerifyResult",
        "__version__",
        "encode",
        "explore",
        "export",
        "hub",
        "import_weights",
        "load",
        "stream",
        "verify",
    ]
    for path, expected in SNAPSHOT.items():
        found: Any = motorvae
        for name in path.split("."):
            found = getattr(found, name)
        signature = inspect.signature(found)
        plain = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
        shown = str(inspect.Signature(plain))
        assert (path, shown) == (path, expected)


@pytest.mark.parametrize("workers", [0, -1])
def test_encode_refuses_a_number_of_threads_as_the_command_does(
    small_bundle: Path, image_folder: Path, workers: int
) -> None:
    with pytest.raises(ConfigError, match=f"workers={workers} is out of range: take 1 to 1024"):
        mv.encode(small_bundle, image_folder, workers=workers)
