from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.pixels.convert import fitted, input_from_pixels, luma_from_image
from motorvae.runtime.pixels.files.image_files import luma_from_file

Rows = list[dict[str, Any]]
ReadRows = Callable[[Path], Rows]

STREAM = "from motorvae.runtime.cli import stream_main\nraise SystemExit(stream_main())"
ENCODE = "from motorvae.runtime.encode_cli import encode_main\nraise SystemExit(encode_main())"
SMALL_FILES_ONLY = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
WITHOUT_HEAVY = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        heavy = {"torch", "lightning", "pytorch_lightning", "onnx", "onnx_ir", "onnxscript",
                 "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "matplotlib", "safetensors"}
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "latents.jsonl"


def status_of(rows: Rows) -> list[str]:
    return [row["status"] for row in rows]


# What a run writes


def test_a_video_becomes_one_row_a_frame_and_an_end(
    stream: Callable[..., Any], clips: dict[str, Path], output: Path, read_rows: ReadRows
) -> None:
    done = stream("--camera", clips["h264.mp4"], "--output", output)
    assert done.code == 0
    assert done.stdout == ""
    rows = read_rows(output)
    assert status_of(rows) == ["ok"] * 24 + ["end"]
    assert [row["index"] for row in rows] == list(range(25))
    assert all(row["dropped"] == 0 for row in rows)
    assert "24 latents, 0 dropped, 0 lost" in done.stderr
    for words in ("capture", "convert", "encode", "age", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        assert words in done.stderr


def test_the_latents_are_those_of_the_images(
    stream: Callable[..., Any],
    image_folder: Path,
    small_bundle: Path,
    output: Path,
    read_rows: ReadRows,
) -> None:
    assert stream("--camera", image_folder, "--output", output).code == 0
    rows = read_rows(output)[:-1]
    bundle = load_bundle(small_bundle)
    with open_engine(bundle, GraphKey("encoder")) as encoder:
        for row in rows:
            luma = luma_from_file(image_folder / row["name"])
            batch = input_from_pixels(fitted(luma_from_image(luma), bundle.spec))[None, None]
            assert np.array_equal(np.asarray(row["mu"], np.float32), encoder.run(batch)["mu"][0])
    assert len(rows) == 12


@pytest.mark.parametrize("name", ["h264.mp4", "mjpeg.avi"])
def test_the_same_file_gives_the_same_latents_to_the_byte(
    stream: Callable[..., Any], clips: dict[str, Path], tmp_path: Path, name: str
) -> None:
    latents = []
    for run in ("one", "two"):
        path = tmp_path / f"{run}.jsonl"
        assert stream("--camera", clips[name], "--output", path).code == 0
        latents.append(re.findall(rb'"mu":\[[^]]*\]', path.read_bytes()))
    assert len(latents[0]) == 24
    assert latents[0] == latents[1]


def test_fp16_is_another_encoder(
    stream: Callable[..., Any], image_folder: Path, tmp_path: Path, read_rows: ReadRows
) -> None:
    mu = {}
    for precision in ("fp32", "fp16"):
        path = tmp_path / f"{precision}.jsonl"
        done = stream("--camera", image_folder, "--output", path, "--precision", precision)
        assert done.code == 0
        assert f"-> {precision} mu only ONNX Runtime" in done.stderr
        mu[precision] = np.array([row["mu"] for row in read_rows(path)[:-1]])
    assert not np.array_equal(mu["fp32"], mu["fp16"])
    assert np.allclose(mu["fp32"], mu["fp16"], atol=0.05 * mu["fp32"].std())


def test_max_frames_ends_the_run(
    stream: Callable[..., Any], clips: dict[str, Path], output: Path, read_rows: ReadRows
) -> None:
    done = stream("--camera", clips["mjpeg.avi"], "--output", output, "--max-frames", 5)
    assert done.code == 0
    assert status_of(read_rows(output)) == ["ok"] * 5 + ["end"]


def test_max_frames_ends_a_live_source(
    stream: Callable[..., Any], output: Path, read_rows: ReadRows
) -> None:
    done = stream("--camera", "synthetic", "--output", output, "--max-frames", 4)
    assert done.code == 0
    rows = read_rows(output)
    assert status_of(rows) == ["ok"] * 4 + ["end"]
    indices = [row["index"] for row in rows[:-1]]
    assert indices == sorted(set(indices))
    assert sum(row["dropped"] for row in rows) == indices[-1] - 3


def test_an_image_that_does_not_decode_is_a_lost_row_and_code_1(
    stream: Callable[..., Any],
    image_folder: Path,
    tmp_path: Path,
    output: Path,
    read_rows: ReadRows,
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    (folder / "frame3.png").write_bytes(b"no picture")
    done = stream("--camera", folder, "--output", output)
    assert done.code == 1
    rows = read_rows(output)
    assert status_of(rows) == ["ok"] * 3 + ["lost"] + ["ok"] * 8 + ["end"]
    assert (rows[3]["name"], rows[3]["mu"]) == ("frame3.png", None)
    assert done.stderr.splitlines()[-1].startswith(f"motorvae-stream: {folder}: frames lost: 1")


def test_a_video_with_a_cut_tail_ends_in_a_lost_row_and_code_1(
    stream: Callable[..., Any],
    clips: dict[str, Path],
    tmp_path: Path,
    output: Path,
    read_rows: ReadRows,
) -> None:
    data = clips["faststart.mp4"].read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * 0.8)])
    done = stream("--camera", cut, "--output", output)
    assert done.code == 1
    rows = read_rows(output)
    assert status_of(rows)[-2:] == ["lost", "end"]
    assert rows[0]["status"] == "ok"
    assert "the file announces 24 frames and ends after" in rows[-2]["reason"]


def test_a_name_that_is_no_utf8_makes_a_valid_row(
    stream: Callable[..., Any],
    image_folder: Path,
    tmp_path: Path,
    output: Path,
    read_rows: ReadRows,
    undecodable_name: str,
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copyfile(image_folder / "frame0.png", folder / undecodable_name)
    (folder / f"bad{undecodable_name}").write_bytes(b"no picture")
    assert stream("--camera", folder, "--output", output).code == 1
    assert [row["name"] for row in read_rows(output)[:-1]] == [
        r"badcaf\udce9.png",
        r"caf\udce9.png",
    ]


# Drops


def test_every_frame_of_a_recording_is_encoded_even_at_its_own_rate(
    stream: Callable[..., Any], clips: dict[str, Path], output: Path, read_rows: ReadRows
) -> None:
    done = stream(
        *("--camera", clips["mjpeg.avi"], "--output", output),
        *("--realtime", "--policy", "every", "--max-frames", 4),
    )
    assert done.code == 0
    rows = read_rows(output)
    assert [row["index"] for row in rows[:-1]] == [0, 1, 2, 3]
    assert all(row["dropped"] == 0 for row in rows)
    # Four frames at 10 a second span three tenths, however fast the machine is.
    assert rows[3]["captured_ns"] - rows[0]["captured_ns"] == pytest.approx(3e8, abs=1.5e8)


def test_realtime_plays_like_a_camera(
    stream: Callable[..., Any], clips: dict[str, Path], output: Path, read_rows: ReadRows
) -> None:
    done = stream("--camera", clips["h264.mp4"], "--output", output, "--realtime")
    assert done.code == 0
    rows = read_rows(output)
    *frames, end = rows
    assert frames[-1]["index"] == 23
    assert len(frames) + sum(row["dropped"] for row in frames) == 24
    assert end["summary"]["dropped"] == sum(row["dropped"] for row in frames)


def test_an_encoder_slower_than_the_source_drops_under_latest_only(
    hand_fed: Any, frame_at: Callable, small_bundle: Path, small_spec: Any
) -> None:
    """While the encoder deals with one frame, the source delivers three."""
    from motorvae.runtime.stream.capture_thread import CaptureThread
    from motorvae.runtime.stream.encode_loop import LatentStream
    from motorvae.runtime.stream.mailbox import Mailboxes

    rows = []

    def emit(row: Any) -> None:
        rows.append(row)
        if row.index < 9:
            for _ in range(3):
                hand_fed.give(frame_at(next(numbers)))
        else:
            boxes.stop()

    numbers = iter(range(1, 100))
    boxes = Mailboxes()
    box = boxes.add("hand-fed", keep=1, waits=False)
    with (
        open_engine(load_bundle(small_bundle), GraphKey("encoder")) as encoder,
        CaptureThread(hand_fed, box, small_spec) as capture,
    ):
        stream = LatentStream(encoder, small_spec)
        capture.start()
        hand_fed.wait_until_asked()
        hand_fed.give(frame_at(0))
        for row in stream.rows(boxes):
            emit(row)
        summary = stream.stats.summary([])
        hand_fed.end()
    assert [row.index for row in rows] == [0, 3, 6, 9]
    assert [row.dropped for row in rows] == [0, 2, 2, 2]
    assert (summary.frames, summary.dropped, summary.lost) == (4, 6, 0)


# Where rows go


def test_an_earlier_output_is_kept(
    stream: Callable[..., Any], image_folder: Path, output: Path, read_rows: ReadRows
) -> None:
    output.write_text("earlier\n")
    for _ in range(2):
        assert stream("--camera", image_folder, "--output", output).code == 0
    assert output.with_name("latents.1.jsonl").read_text() == "earlier\n"
    assert len(read_rows(output.with_name("latents.2.jsonl"))) == 13
    assert len(read_rows(output)) == 13


def test_standard_output_holds_nothing_but_rows(
    python: Callable[..., Any], small_bundle: Path, image_folder: Path
) -> None:
    args = ("--model", small_bundle, "--camera", image_folder, "--output", "-")
    done = python(STREAM, *args)
    assert done.code == 0
    rows = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert status_of(rows) == ["ok"] * 12 + ["end"]
    assert "12 latents" in done.stderr


def test_rows_for_a_closed_standard_output_are_refused(
    small_bundle: Path, script: Callable[[str], str]
) -> None:
    done = subprocess.run(
        [script("motorvae-stream"), "synthetic", "--output", "-", "--model", str(small_bundle)],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: os.close(1),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("motorvae-stream: standard output is closed: ")


def test_a_reader_that_leaves_ends_the_run_without_a_traceback(
    small_bundle: Path, script: Callable[[str], str], tmp_path: Path
) -> None:
    command = [script("motorvae-stream"), "--camera", "synthetic", "--output", "-"]
    with (tmp_path / "err").open("w+") as errors:
        writer = subprocess.Popen(
            [*command, "--model", str(small_bundle)], stdout=subprocess.PIPE, stderr=errors
        )
        with writer:
            assert writer.stdout is not None
            assert orjson.loads(writer.stdout.readline())["status"] == "ok"
            writer.stdout.close()
            assert writer.wait(60) == 1
        errors.seek(0)
        text = errors.read()
    assert "Traceback" not in text
    last = text.splitlines()[-1]
    assert last.startswith("motorvae-stream: cannot write standard output: Broken pipe")


def assert_rows_are_whole(output: Path, code: int, stderr: str, read_rows: ReadRows) -> None:
    assert code == 1
    assert "Traceback" not in stderr
    rows = read_rows(output)
    assert rows
    assert status_of(rows) == ["ok"] * len(rows)
    assert output.read_bytes().endswith(b"\n")
    line = stderr.splitlines()[-1]
    assert line.startswith(f"motorvae-stream: cannot write {output}: ")
    assert f"the {len(rows)} rows before it are whole; make room" in line


def test_a_limit_on_the_file_size_leaves_whole_rows(
    python: Callable[..., Any],
    small_bundle: Path,
    clips: dict[str, Path],
    output: Path,
    read_rows: ReadRows,
) -> None:
    args = ("--model", small_bundle, "--camera", clips["mjpeg.avi"], "--output", output)
    done = python(SMALL_FILES_ONLY + STREAM, *args)
    assert_rows_are_whole(output, done.code, done.stderr, read_rows)
    assert output.stat().st_size <= 5000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs Linux and mount")
    command = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_whole_rows(
    stream: Callable[..., Any], clips: dict[str, Path], small_disk: Path, read_rows: ReadRows
) -> None:
    output = small_disk / "latents.jsonl"
    done = stream("--camera", clips["mjpeg.avi"], "--output", output)
    assert_rows_are_whole(output, done.code, done.stderr, read_rows)
    assert "No space left on device" in done.stderr


# What is refused, in one line, with nothing written


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--camera", "987"], "cannot open camera 987: /dev/video987 does not exist; cameras f"),
        (["--camera", "/dev/video987"], "no such source: '/dev/video987'; name an existing file"),
        (["--camera", "nowhere.mp4"], "no such source: 'nowhere.mp4'; name an existing file"),
        (["--camera", ""], "no such source: ''"),
        (["--camera", "a" * 300], "no such source: 'aaaa"),
        (["--camera", "http://user:secret@127.0.0.1:9/x"], "open http://***@127.0.0.1:9/x: Conn"),
        (["--camera", "synthetic", "--model", "none"], "no bundle at none: run motorvae-export"),
        (["--camera", "synthetic", "--max-frames", "0"], "--max-frames=0: take 1 or more"),
        (["--camera", "synthetic", "--max-frames", "-1"], "--max-frames=-1: take 1 or more"),
        (["--camera", "synthetic", "--threads", "0"], "threads=0 is out of range"),
        (["--camera", "synthetic", "--provider", "warp"], "provider 'warp' is not in this ONNX"),
        (["--camera", "synthetic", "--output", "x.txt"], "output='x.txt': name a file ending in"),
        (["--camera", "synthetic", "--reconstruct", "5"], "--reconstruct 5: write every=N"),
        (["--camera", "synthetic?fsp=3"], "fsp"),
        (["--camera", "synthetic", "--output", "/proc/x.jsonl"], "cannot write /proc/x.jsonl"),
        (["--camera", "."], "no image in .: put files there such as .png"),
    ],
)
def test_it_is_refused_in_one_line_and_nothing_is_written(
    stream: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = stream(*args).error
    assert line.startswith("motorvae-stream: ")
    assert words in line
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_camera_0_without_a_camera_says_what_was_tried_and_touches_nothing(
    small_bundle: Path, script: Callable[[str], str], tmp_path: Path
) -> None:
    if Path("/dev/video0").exists():
        pytest.skip("this machine has a camera")
    shutil.copytree(small_bundle, tmp_path / "bundle")
    earlier = tmp_path / "latents.jsonl"
    earlier.write_text("earlier\n")
    done = subprocess.run(
        [script("motorvae-stream"), "--camera", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(
        r"motorvae-stream: cannot open camera 0: /dev/video0 does not exist; cameras found: .*; "
        r"plug one in, or use --camera with a file, a URL or synthetic\n",
        done.stderr,
    )
    assert earlier.read_text() == "earlier\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "latents.jsonl"]


@pytest.mark.parametrize("args", [[], ["--policy", "newest"], ["--max-frames", "few"], ["--x"]])
def test_a_wrong_command_line_exits_with_2(args: list[str]) -> None:
    from motorvae.runtime.cli import stream_main

    try:
        code = stream_main(args)
    except SystemExit as caught:
        code = caught.code
    assert code == 2


def test_an_altered_bundle_is_refused_before_anything_is_written(
    in_process: Callable[..., Any], bundle_copy: Path, output: Path
) -> None:
    from motorvae.runtime.cli import stream_main

    path = bundle_copy / "encoder.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    args = ("--camera", "synthetic", "--model", bundle_copy, "--output", output)
    args += ("--ood", "both")  # by default another form of the encoder runs
    assert "encoder.onnx was altered: sha256" in in_process(stream_main, *args).error
    assert not output.exists()


# Live sources


def test_a_camera_on_the_network_that_ends_is_lost_and_comes_back(
    stream: Callable[..., Any], server: Any, output: Path, read_rows: ReadRows
) -> None:
    url = server.url.replace("//", "//user:secret@") + "/mjpeg?token=secret"
    done = stream("--camera", url, "--output", output, "--policy", "every", "--max-frames", 30)
    assert done.code == 0
    rows = read_rows(output)
    assert status_of(rows) == ["ok"] * 24 + ["lost"] + ["ok"] * 6 + ["end"]
    assert rows[24]["mu"] is None
    assert rows[24]["reason"]
    assert rows[25]["gap_ms"] > 0
    assert [row["index"] for row in rows[:-1]] == list(range(31))
    assert "http://***@127." in done.stderr
    assert "secret" not in done.stderr + output.read_text()


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_with_all_rows_and_an_end(
    small_bundle: Path, script: Callable[[str], str], number: signal.Signals
) -> None:
    command = [script("motorvae-stream"), "--camera", "synthetic", "--output", "-"]
    with subprocess.Popen(
        [*command, "--model", str(small_bundle)],
        bufsize=0,  # what a buffer holds is lost to `communicate`
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    rows = [orjson.loads(line) for line in (*lines, *rest.splitlines())]
    assert status_of(rows) == ["ok"] * (len(rows) - 1) + ["end"]
    assert rows[-1]["summary"]["frames"] == len(rows) - 1
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
)
def test_a_second_signal_ends_at_once(
    small_bundle: Path,
    script: Callable[[str], str],
    server: Any,
    first: signal.Signals,
    second: signal.Signals,
) -> None:
    """The camera has fallen silent, so an orderly end has to wait for its time-out."""
    command = [script("motorvae-stream"), "--camera", server.url + "/mjpeg-stall"]
    with subprocess.Popen(
        [*command, "--model", str(small_bundle), "--output", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        row = orjson.loads(process.stdout.readline())
        while row["index"] < 20:
            row = orjson.loads(process.stdout.readline())
        process.send_signal(first)
        while row["status"] == "ok":
            row = orjson.loads(process.stdout.readline())
        assert row["status"] == "end"
        while process.poll() is None:  # the first may count as the same signal, sent twice
            process.send_signal(second)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        assert process.returncode == -second


def test_a_signal_that_is_sent_twice_at_once_still_ends_cleanly(
    small_bundle: Path, script: Callable[[str], str]
) -> None:
    """As timeout and other supervisors do, to a process and to its group."""
    command = [script("motorvae-stream"), "--camera", "synthetic", "--output", "-"]
    with subprocess.Popen(
        [*command, "--model", str(small_bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    assert orjson.loads(rest.splitlines()[-1])["status"] == "end"


def test_nohup_outlives_its_terminal(small_bundle: Path, script: Callable[[str], str]) -> None:
    command = ["nohup", script("motorvae-stream"), "synthetic?fps=50", "--output", "-"]
    with subprocess.Popen(
        [*command, "--model", str(small_bundle)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        after = [orjson.loads(process.stdout.readline())["status"] for _ in range(50)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert "end" not in after


# Without the packages that only training and export need


def test_importing_the_runtime_needs_nothing_heavy(python: Callable[..., Any]) -> None:
    source = WITHOUT_HEAVY + (
        "import importlib, pathlib, motorvae.runtime\n"
        "root = pathlib.Path(motorvae.runtime.__file__).parent\n"
        "for path in root.rglob('*.py'):\n"
        "    if path.parent.name == 'api': continue  # which is the package motorvae\n"
        "    if path.stem not in ('__init__', 'pycuda_layer', 'bindings', 'graph'):\n"
        "        name = '.'.join(path.relative_to(root).with_suffix('').parts)\n"
        "        importlib.import_module(f'motorvae.runtime.{name}')\n"
        "print('done')"
    )
    done = python(source)
    assert (done.code, done.stdout, done.stderr) == (0, "done\n", "")


def test_streaming_needs_nothing_heavy(
    python: Callable[..., Any],
    small_bundle: Path,
    clips: dict[str, Path],
    output: Path,
    read_rows: ReadRows,
) -> None:
    args = ("--model", small_bundle, "--camera", clips["h264.mp4"], "--output", output)
    done = python(WITHOUT_HEAVY + STREAM, *args)
    assert done.code == 0, done.stderr
    assert len(read_rows(output)) == 25


def test_encoding_needs_nothing_heavy(
    python: Callable[..., Any], small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latents.npz"
    args = (image_folder, "--model", small_bundle, "--output", output)
    done = python(WITHOUT_HEAVY + ENCODE, *args)
    assert done.code == 0, done.stderr
    with np.load(output) as saved:
        assert len(saved["mu"]) == 12


def test_a_video_without_a_frame_is_an_error(
    small_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.y4m"
    empty.write_bytes(b"YUV4MPEG2 W32 H32 F25:1 Ip A1:1 C420jpeg\n")
    output = tmp_path / "rows.jsonl"
    args = ["--camera", str(empty), "--model", str(small_bundle), "--output", str(output)]
    from motorvae.runtime.cli import stream_main

    assert stream_main(args) == 1
    assert "empty.y4m holds no frame: name another source" in capfd.readouterr().err
