from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.core.errors import ConfigError, OutputError
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sinks.open import check_view, open_view
from motorvae.runtime.sinks.rerun_viewer import Viewer

rr = pytest.importorskip("rerun")
reading = pytest.importorskip("rerun.chunk")

SIDE, LATENTS = 32, 8
START_NS = 1_780_000_000_123_456_789
PERIOD_NS = 33_333_333
FACTS = RunFacts(
    ModelSpec(image_size=SIDE, latent_size=LATENTS),
    ("/dev/front", "rtsp://rear/1"),
    "ab" * 32,
    "ORT cpu",
    True,
)
VULKAN_IN_SOFTWARE = [*Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json")]

Events = dict[str, list[dict[str, Any]]]

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rerun":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.sinks.open import check_view
try:
    check_view(sys.argv[1:])
except MotorVAEError as error:
    print(f"{type(error).__name__}: {error}")
"""
RECORD = """
import os, resource, signal, sys, time
import numpy as np
from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.sinks.open import open_view
path, limit = sys.argv[1], int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
model = ModelSpec(image_size=64, latent_size=8)
sink = open_view([path], RunFacts(model, ("front",), "ab" * 32, "ORT cpu", True))
noise = np.random.default_rng(0)
try:
    for index in range(1_000_000):
        luma = noise.integers(0, 256, (64, 64), np.uint8)
        mu = np.full(8, index, np.float32)
        sink.write(Row(index, time.time_ns(), 1.0, 0, "ok", mu, "front", picture=luma))
        sink.flush()
        print(index, time.monotonic(), flush=True)
except OutputError as error:
    print(f"failed {sink.rows} {error}", flush=True)
"""


def luma_at(index: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(index).integers(0, 256, (SIDE, SIDE), np.uint8)


def row_at(index: int, camera: int = 0, **facts: Any) -> Row:
    mu = np.random.default_rng(100 + index).normal(size=LATENTS).astype(np.float32)
    return Row(
        **{
            "index": index,
            "captured_ns": START_NS + index * PERIOD_NS + camera,
            "age_ms": 5.0 + index,
            "dropped": index % 3,
            "status": "ok",
            "mu": mu,
            "camera": FACTS.cameras[camera],
            "picture": luma_at(index),
            **facts,
        }
    )


def without_latent(index: int, status: str, reason: str) -> Row:
    return row_at(index, status=status, reason=reason, age_ms=None, mu=None, picture=None)


def record(path: Path, *rows: Row) -> None:
    with open_view([str(path)], FACTS) as sink:
        for row in rows:
            sink.write(row)
        assert sink.rows == len(rows)


def events_of(path: Path) -> Events:
    """What was logged to each entity, in the order of its times; no static data."""
    events: Events = defaultdict(list)
    for chunk in reading.RrdReader(path).stream():
        if chunk.is_static:
            continue
        batch = chunk.to_record_batch()
        captured = batch.column("captured").cast("int64")
        batch = batch.set_column(batch.schema.get_field_index("captured"), "captured", captured)
        batch = batch.drop_columns(["rerun.controls.RowId", "log_time"])
        events[chunk.entity_path] += batch.to_pylist()
    for entity in events.values():
        entity.sort(key=lambda event: event["captured"])
    return events


def panels_of(path: Path) -> list[str]:
    """Names of all views and pages in the fullest layout; each that is sent adds to the last."""
    reader = reading.RrdReader(path)
    layouts = []
    for blueprint in reader.blueprints():
        batches = [chunk.to_record_batch() for chunk in reader.stream(store=blueprint)]
        columns = [
            batch.column(name).to_pylist()
            for batch in batches
            for name in batch.schema.names
            if name.endswith(":display_name")
        ]
        layouts.append(sorted(name for column in columns for names in column for name in names))
    return max(layouts, key=len)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view.rrd"


def test_every_latent_is_there_at_both_its_times(path: Path) -> None:
    rows = [row_at(index, camera=index % 2) for index in range(20)]
    record(path, *rows)
    events = events_of(path)
    for camera in range(2):
        mine = rows[camera::2]
        base = f"/camera-{camera + 1}"
        lines = events[f"{base}/latents/over_time"]
        assert [event["frame"] for event in lines] == [row.index for row in mine]
        assert [event["captured"] for event in lines] == [row.captured_ns for row in mine]
        for row, line, bar, picture in zip(
            mine, lines, events[f"{base}/latents/bars"], events[f"{base}/image"], strict=True
        ):
            assert row.mu is not None
            assert row.picture is not None
            assert line["Scalars:scalars"] == row.mu.tolist()
            assert bar["BarChart:values"][0]["buffer"] == row.mu.tolist()
            assert bytes(picture["Image:buffer"][0]) == row.picture.tobytes()
            assert picture["Image:format"][0]["width"] == SIDE
        for entity, values in {
            "age_ms": [row.age_ms for row in mine],
            "dropped": [row.dropped for row in mine],
        }.items():
            found = [event["Scalars:scalars"] for event in events[f"{base}/{entity}"]]
            assert found == [[value] for value in values]


def test_a_reconstruction_says_which_frame_it_is_of(path: Path) -> None:
    drawn = np.linspace(0, 1, SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    record(path, row_at(0), row_at(1, reconstruction=drawn), row_at(2))
    events = events_of(path)
    (picture,) = events["/camera-1/reconstruction"]
    expected = np.rint(drawn.astype(np.float64) * 255).astype(np.uint8)
    assert bytes(picture["Image:buffer"][0]) == expected.tobytes()
    (of,) = events["/camera-1/reconstruction/of"]
    assert (of["frame"], of["Points2D:labels"]) == (1, ["frame 1"])


def test_a_camera_without_a_frame_shows_no_picture_but_the_reason(path: Path) -> None:
    drawn = np.zeros((SIDE, SIDE), np.float32)
    record(
        path,
        row_at(0, reconstruction=drawn, mahalanobis=9.0),
        without_latent(1, "lost", "no frame for 5 s"),
        without_latent(2, "lost", "no frame for 5 s"),
        row_at(3, gap_ms=1500.0),
        without_latent(4, "stale", "421 ms old"),
        row_at(5, camera=1),
    )
    events = events_of(path)
    taken_down = ["image", "reconstruction", "latents", "age_ms", "mahalanobis"]
    for entity in taken_down:
        clears = [
            event["frame"]
            for event in events[f"/camera-1/{entity}"]
            if event.get("Clear:is_recursive") == [True]
        ]
        assert clears == [1, 4], entity
        assert not any("Clear:is_recursive" in e for e in events[f"/camera-2/{entity}"])
    notices = {
        event["frame"]: event["Points2D:labels"][0]
        for event in events["/camera-1/image/notice/text"]
    }
    assert notices == {1: "lost: no frame for 5 s", 4: "stale: 421 ms old"}
    boxes = [e["frame"] for e in events["/camera-1/image/notice"] if e.get("Boxes2D:colors")]
    back = [e["frame"] for e in events["/camera-1/image/notice"] if e.get("Clear:is_recursive")]
    assert (boxes, back) == ([1, 4], [0, 3])
    assert [e["frame"] for e in events["/camera-1/dropped"]] == [0, 1, 2, 3, 4]


def test_the_log_has_each_change_once_and_the_end(path: Path) -> None:
    record(
        path,
        row_at(0),
        *(without_latent(index, "lost", "unplugged") for index in range(1, 5)),
        without_latent(5, "lost", "cannot be opened"),
        row_at(6, gap_ms=2345.0),
        without_latent(7, "stale", "old"),
        row_at(8),
        Row(9, START_NS + 9 * PERIOD_NS, None, 0, "end", reason="stopped by SIGINT"),
    )
    lines: dict[str, list[tuple[int, str, str]]] = {
        entity: [(e["frame"], e["TextLog:level"][0], e["TextLog:text"][0]) for e in found]
        for entity, found in events_of(path).items()
        if entity in {"/camera-1/status", "/camera-2/status", "/run"}
    }
    assert lines == {
        "/camera-1/status": [
            (1, "ERROR", "front: lost: unplugged"),
            (5, "ERROR", "front: lost: cannot be opened"),
            (6, "INFO", "front: ok again after 2.3 s"),
            (7, "WARN", "front: stale: old"),
            (8, "INFO", "front: ok again"),
        ],
        "/run": [(9, "INFO", "end: stopped by SIGINT")],
    }


def test_foreign_rows_are_marked_where_they_are(path: Path) -> None:
    distances = [9.0, 31.0, 9.5]
    record(
        path,
        *(
            row_at(index, mahalanobis=distance, is_ood=distance > 30)
            for index, distance in enumerate(distances)
        ),
        row_at(3, unwritten=7),
    )
    events = events_of(path)
    found = [event["Scalars:scalars"][0] for event in events["/camera-1/mahalanobis"]]
    assert found == distances
    (mark,) = events["/camera-1/mahalanobis/ood"]
    assert (mark["frame"], mark["Scalars:scalars"]) == (1, [31.0])
    (missed,) = events["/camera-1/unwritten"]
    assert (missed["frame"], missed["Scalars:scalars"]) == (3, [7.0])


def test_the_layout_has_a_page_for_each_camera_and_nothing_empty(path: Path) -> None:
    record(path, row_at(0))
    always = [
        *("Latents", "Latents over time", "Age, ms", "Drops") * 2,
        *("front", "front", "front, as encoded"),
        *("rtsp://rear/1", "rtsp://rear/1", "rtsp://rear/1, as encoded"),
        *("All cameras", "Losses and returns"),
    ]
    assert panels_of(path) == sorted(always)
    drawn = np.zeros((SIDE, SIDE), np.float32)
    more = row_at(0, mahalanobis=9.0, reconstruction=drawn, reconstruction_error=0.1)
    record(path, row_at(0, camera=1), more, row_at(1, camera=1))
    assert panels_of(path) == sorted(
        [
            *always,
            "Reconstruction",
            "Reconstruction error, red: out of distribution",
            "Distance from the training images, red: out of distribution",
        ]
    )


def test_the_facts_of_the_run_are_properties_of_the_recording(path: Path) -> None:
    record(path, row_at(0))
    facts: dict[str, Any] = {}
    for chunk in reading.RrdReader(path).stream():
        if chunk.entity_path == "/__properties/motorvae":
            facts |= chunk.to_record_batch().to_pylist()[0]
    assert facts["cameras"] == list(FACTS.cameras)
    assert facts["weights_sha256"] == [FACTS.weights_sha256]
    assert facts["backend"] == [FACTS.backend]
    assert facts["schema"] == [2]


def test_closing_completes_the_file_and_may_come_twice(path: Path) -> None:
    sink = open_view([str(path)], FACTS)
    sink.write(row_at(0))
    sink.close()
    size = path.stat().st_size
    sink.close()
    assert path.stat().st_size == size
    # Only a file with an index at its end opens as a store.
    assert "/camera-1/image" in reading.RrdReader(path).store().summary()


def test_an_earlier_recording_is_kept_under_a_number(tmp_path: Path) -> None:
    path = tmp_path / "new" / "view.rrd"
    record(path, row_at(0))
    earlier = path.read_bytes()
    with open_view([str(path)], FACTS) as sink:
        assert sink.set_aside_as == tmp_path / "new" / "view.1.rrd"
        assert sink.name == str(path)
    assert (tmp_path / "new" / "view.1.rrd").read_bytes() == earlier


@pytest.mark.parametrize("name", ["view", "view.mcap", ".rrd", "view.RRD"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    for function in (check_view, lambda view: open_view(view, FACTS)):
        with pytest.raises(
            ConfigError, match=r"--view .*: name a file ending in \.rrd, or nothing"
        ):
            function([str(tmp_path / name)])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_place_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "view.rrd").mkdir()
    with pytest.raises(OutputError, match="exists and is not a file"):
        check_view([str(tmp_path / "view.rrd")])
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file/view\.rrd: Not a directory"):
        check_view([str(tmp_path / "file" / "view.rrd")])


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_view([str(tmp_path / "deep" / "view.rrd")])
    assert list(tmp_path.iterdir()) == []


def test_rerun_switched_off_is_an_error_and_not_an_empty_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERUN", "off")
    with pytest.raises(ConfigError, match="RERUN=off is set in the environment: unset it"):
        open_view([str(path)], FACTS)


def test_without_a_display_the_way_round_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"no display .*: record with --view file\.rrd"):
        check_view([])


def test_without_rerun_the_install_command_is_named(path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(path)], capture_output=True, text=True, check=True
    )
    assert said.stderr == ""
    assert said.stdout == (
        "MissingDependencyError: --view needs the package rerun-sdk, which is not installed: "
        "pip install 'motorvae[view]', or leave --view out\n"
    )


def test_a_kill_leaves_a_file_whose_rows_load_but_the_last_ones(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RECORD, str(path), "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        since: list[tuple[int, float]] = []
        for line in process.stdout:
            index, at_s = line.split()
            since.append((int(index), float(at_s)))
            if since[-1][1] - since[0][1] > 2.5:
                break
        process.kill()
        assert process.wait() == -signal.SIGKILL
    with pytest.warns(rr.error_utils.RerunWarning, match="no footer"):
        events = events_of(path)
    found = [event["frame"] for event in events["/camera-1/latents/over_time"]]
    # Flushes are a second apart, and each was over before the row after it was printed.
    certain = [index for index, at_s in since if at_s < since[-1][1] - 1.5]
    assert len(certain) > 1
    assert found[: len(certain)] == certain
    assert found == list(range(len(found)))


def test_a_full_disk_is_one_error_and_the_rows_before_it_count(path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", RECORD, str(path), "400000"],
        capture_output=True,
        text=True,
        check=True,
    )
    failed, rows, message = said.stdout.splitlines()[-1].split(maxsplit=2)
    assert failed == "failed"
    assert message.startswith(f"cannot write {path}: ")
    assert message.endswith("; make room there or name another place")
    assert int(rows) < len(said.stdout.splitlines()) - 1
    assert "Traceback" not in said.stderr


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A screen in memory, drawn on without a GPU, and no settings of a user's."""
    if not VULKAN_IN_SOFTWARE:
        pytest.skip("mesa-vulkan-drivers is not installed")
    read, write = os.pipe()
    try:
        server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        os.close(read)
        os.close(write)
        pytest.skip("xvfb is not installed")
    os.close(write)
    with os.fdopen(read) as numbers, server:
        name = f":{numbers.readline().strip()}"
        monkeypatch.setenv("DISPLAY", name)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        yield name
        server.terminate()


def listening(pid: int) -> set[str]:
    """Addresses that a process listens at, as the kernel writes them."""
    sockets, found = set(), set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            sockets.add(str(file.readlink()))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


def test_the_viewer_listens_on_loopback_tells_nobody_and_stays(
    display: str, tmp_path: Path
) -> None:
    assert display
    check_view([])
    sink = open_view([], FACTS)
    viewer = sink._viewer
    assert viewer is not None
    try:
        assert listening(viewer.process.pid) == {"0100007F"}
        settings = tmp_path / "cache" / "motorvae" / "rerun-viewer"
        analytics = json.loads((settings / "config" / "rerun" / "analytics.json").read_bytes())
        assert analytics["analytics_enabled"] is False
        options = (settings / "data" / "rerun" / "app.ron").read_text()
        assert "check_for_updates_on_startup:false" in options
        assert not (tmp_path / "home").exists()
        for index in range(10):
            sink.write(row_at(index))
        sink.close()
        assert viewer.process.poll() is None
    finally:
        viewer.process.kill()
        viewer.process.wait()
        viewer.leave()


def test_the_port_is_chosen_after_telemetry_is_disabled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Chosen before, it could be taken by another process while that one runs."""
    viewer, disabled = tmp_path / "rerun_cli" / "rerun", tmp_path / "disabled"
    viewer.parent.mkdir()
    (viewer.parent / "__init__.py").touch()
    viewer.write_text(f'#!/bin/sh\n[ "$1" = analytics ] || exit 3\ntouch {disabled}\n')
    viewer.chmod(0o755)
    monkeypatch.delitem(sys.modules, "rerun_cli", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bound_after: list[bool] = []

    class Probe(socket.socket):
        def bind(self, address: Any) -> None:
            bound_after.append(disabled.exists())
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Probe)
    with pytest.raises(OutputError, match="the Rerun viewer ended with 3"):
        Viewer()
    assert bound_after == [True]


def test_a_viewer_that_ends_is_an_error_of_the_next_row(display: str) -> None:
    assert display
    with open_view([], FACTS) as sink:
        viewer = sink._viewer
        assert viewer is not None
        sink.write(row_at(0))
        viewer.process.kill()
        viewer.process.wait()
        with pytest.raises(OutputError, match=r"the Rerun viewer was ended by signal 9; start aga"):
            sink.write(row_at(1))


def test_a_viewer_that_cannot_draw_is_one_line_with_the_way_round(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DISPLAY", f"{tmp_path}/nothing:0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def show_one_row() -> None:
        with open_view([], FACTS) as sink:
            # It may listen before it finds that it cannot draw; then the next row finds it gone.
            assert sink._viewer is not None
            sink._viewer.process.wait()
            sink.write(row_at(0))

    with pytest.raises(OutputError, match=r"ended with 1: .*record with --view file\.rrd") as said:
        show_one_row()
    assert "\n" not in str(said.value)
