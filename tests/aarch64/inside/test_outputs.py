"""Every output of a stream, the doctor, and TensorRT's bindings."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from .conftest import Running

TRT_API = Path(__file__).parents[2] / "trt_api"
BINDINGS = Path("/work/bindings")
FRAMES = 8
LATENTS = 128


def rows_in(path: Path) -> list[Any]:
    """Return the latents that a file holds, read by another package than wrote it."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row["mu"] for row in rows if row["status"] == "ok"]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
        return [[row[name] for name in row if name.startswith("mu")] for row in rows]
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as held:
            return [
                mu for mu, status in zip(held["mu"], held["status"], strict=True) if status == "ok"
            ]
    if path.suffix == ".mcap":
        from mcap.reader import make_reader

        with path.open("rb") as file:
            rows = [json.loads(message.data) for _, _, message in make_reader(file).iter_messages()]
        return [row["mu"] for row in rows if row["status"] == "ok"]
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    return [row["mu"] for row in rows if row["status"] == "ok"]


@pytest.mark.parametrize("output", ["rows.csv", "rows.npz", "rows.mcap", "rows.parquet"])
def test_an_output_has_a_row_for_each_frame(
    expected: Path, tmp_path: Path, motorvae: Running, output: str
) -> None:
    words = ("stream", expected / "street.mjpeg.avi", "--model", expected / "bundle")
    motorvae(*words, "--output", output)
    rows = rows_in(tmp_path / output)
    assert len(rows) == FRAMES
    assert all(len(row) == LATENTS for row in rows)


def test_rows_arrive_by_udp(expected: Path, motorvae: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        target = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        words = ("stream", expected / "street.mjpeg.avi", "--model", expected / "bundle")
        motorvae(*words, "--output", target)
        first = receiver.recv(1 << 16)
    assert len(first) >= 4 * LATENTS


def test_rows_arrive_by_zeromq(expected: Path, tmp_path: Path) -> None:
    """From a camera without an end: what was sent before a subscriber came is gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "motorvae", "stream", "synthetic?fps=2"]
    options = ["--model", str(expected / "bundle"), "--output", f"zmq://{target}"]
    with zmq.Context() as context, context.socket(zmq.SUB) as receiver:
        receiver.subscribe(b"")
        receiver.setsockopt(zmq.RCVTIMEO, 120_000)
        receiver.connect(f"tcp://{target}")
        with subprocess.Popen([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE) as stream:
            try:
                parts = receiver.recv_multipart()
            finally:
                stream.terminate()
                stream.communicate(timeout=120)
    assert len(b"".join(parts)) >= 4 * LATENTS


def test_a_recording_for_rerun_is_written(
    expected: Path, tmp_path: Path, motorvae: Running
) -> None:
    words = ("stream", expected / "street.mjpeg.avi", "--model", expected / "bundle")
    motorvae(*words, "--output", "rows.jsonl", "--view", "street.rrd")
    content = (tmp_path / "street.rrd").read_bytes()
    assert content.startswith(b"RRF2")
    assert len(content) > 10_000


def test_the_doctor_finds_nothing_wrong(expected: Path, motorvae: Running) -> None:
    done = motorvae("doctor", "screen", "--json", "--model", expected / "bundle")
    rows = json.loads(done.stdout)["findings"]
    status = {row["what"]: row["verdict"] for row in rows}
    assert "FAILED" not in status.values(), rows
    for title in ("Python", "packages", "ONNX Runtime", "OpenCV", "PyAV"):
        assert status[title] == "ok", rows


@pytest.mark.parametrize("release", ["10.5", "10.16", "11.4"])
def test_tensorrt_bindings_have_the_names_that_they_have_on_x86(
    release: str, expected: Path, note: Callable[..., None]
) -> None:
    """So that what `make test-trt-api` says of our calls holds here as well."""
    if not BINDINGS.exists():
        pytest.skip("the bindings are unpacked beside an emulated root")
    found = list(BINDINGS.glob(f"*=={release}.*"))
    said = expected / f"tensorrt-{release}.json"
    if not found or not said.exists():
        pytest.skip("there is no wheel of them for this Python, or for that of x86-64")
    (folder,) = found
    package = folder / "tensorrt_bindings"
    source = TRT_API / "stub_library.c"
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        library = f"lib{name}.so.{release.partition('.')[0]}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", str(source)]
        subprocess.run([*command, "-o", str(package / library)], check=True)
    done = subprocess.run(
        [sys.executable, str(TRT_API / "list_names.py"), "tensorrt_bindings"],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = json.loads(done.stdout)
    theirs = json.loads(said.read_text())
    assert ours["version"] == theirs["version"]
    # Names with two underscores are Python's own, and differ from one to the next.
    for one in (ours, theirs):
        for owner, held in one["names"].items():
            one["names"][owner] = sorted(name for name in held if not name.startswith("__"))
    assert ours["names"] == theirs["names"]
    note("tensorrt", release=ours["version"], classes=len(theirs["names"]))
