"""The whole check on recorded boards, on machines that are none, and on damaged trees."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from motorvae.runtime.doctor.board.check import check_board, on_jetson
from motorvae.runtime.doctor.finding import Finding
from motorvae.runtime.doctor.screen import Screen, findings_of, print_screen

from .conftest import NAMES, RECONSTRUCTED, Unpack, recording_of, unpack_into

NOWHERE = Path("nowhere")
EXPECTED: dict[str, dict[str, tuple[str, str, str | None]]] = {
    "orin-nano-jp6": {
        "Jetson": ("ok", "Orin Nano Engineering Reference Developer Kit Super (tegra234)", None),
        "JetPack": ("ok", "6.2.2 (L4T 36.5.0), TensorRT 10.3.0.30, CUDA 12.6; this", None),
        "power mode": ("ok", "MAXN_SUPER (2), the fastest of 15W (0), 25W (1), MAXN_", None),
        "clocks": ("ok", "locked: CPU 1728 MHz, GPU 1020 MHz, memory up to 3199 MHz", None),
        "temperature": (
            "ok",
            "not throttled; tj-thermal 47.0 degrees C; throttles from 99.0; shuts down at 104.5; "
            "no answer from cv0-thermal, cv1-thermal, cv2-thermal",
            None,
        ),
        "supply": ("ok", "never throttled since the boot; VDD_IN 9.3 W", None),
        "swap": ("ok", "1.3 GB of zram, 0.0 GB used", None),
        "CSI cameras": ("ok", "sensors: imx219; plug-in and daemon are there, for csi://0", None),
    },
    "orin-nano-oc3": {
        "supply": (
            "warn",
            "throttled since the boot: 27,390 x instantaneous over-current; VDD_IN 9.1 W",
            "cat /sys/class/hwmon/hwmon3/oc*_event_cnt",
        ),
        "power mode": ("ok", "MAXN_SUPER (2)", None),
    },
    "orin-nano-jp72-15w": {
        "JetPack": (
            "warn",
            "7.2 (L4T 39.2.0), no TensorRT package; engines need it",
            "sudo apt-get install nvidia-jetpack",
        ),
        "power mode": (
            "warn",
            "15W (0), the fastest of 15W (0), 7W (1); MAXN_SUPER is in "
            "/etc/nvpmodel/nvpmodel_p3767_0003_super.conf",
            "grep COMPATIBLE_SPEC /etc/nv_boot_control.conf",
        ),
        "clocks": ("optional", "free: CPU 730 to 1510 MHz (schedutil), GPU 306 to 625", "sudo jet"),
        "swap": ("optional", "none; a build may", "sudo fallocate -l 4G /swapfile"),
        "CSI cameras": ("optional", "no nvarguscamerasrc", "sudo apt-get install nvidia-l4t-gst"),
    },
    "orin-nano-jp721-25w": {
        "JetPack": ("ok", "7.2.1 (L4T 39.2.1), TensorRT 10.16.2.10, CUDA 13.2", None),
        "power mode": ("warn", "25W (1); MAXN_SUPER (2) is the fastest", "sudo nvpmodel -m 2"),
        "clocks": ("optional", "GPU 306 to 918 MHz (nvhost_podgov)", "sudo jetson_clocks"),
    },
    "orin-nano-container": {
        "Jetson": ("ok", "Orin Nano Engineering Reference Developer Kit Super", None),
        "JetPack": (
            "warn",
            "6 by the kernel, no TensorRT package; this container's image has none",
            "docker build -f containers/jetpack6.Dockerfile .",
        ),
        "container": (
            "optional",
            "made by Docker; /etc/nv_tegra_release is not mounted; /tmp/argus_socket is not "
            "mounted; /dev/shm has 64 MiB",
            "docker run --runtime nvidia -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro "
            "-v /tmp/argus_socket:/tmp/argus_socket --shm-size 1g",
        ),
        "power mode": ("optional", "not visible in this container", "sudo nvpmodel -q"),
        "clocks": ("ok", "locked: CPU 1728 MHz", None),
        "CSI cameras": ("warn", "sensors: imx219; the camera daemon has no", "docker run -v /tmp"),
    },
    "agx-orin-jp62": {
        "JetPack": ("ok", "6.2.1 (L4T 36.4.7), TensorRT 10.3.0.30, CUDA 12.6", None),
        "power mode": ("ok", "MAXN (0), the fastest of MAXN (0), MODE_15W (1)", None),
        "clocks": ("optional", "memory's clock not readable as this user", "sudo jetson_clocks"),
        "supply": ("ok", "VDD_GPU_SOC 9.8 W; VDD_CPU_CV 4.9 W; VIN_SYS_5V0 8.0 W", None),
        "swap": ("ok", "32.9 GB of zram, 0.0 GB used", None),
        "CSI cameras": ("optional", "plug-in and daemon are there, and no sensor is", None),
    },
    "agx-orin-30w": {
        "power mode": ("warn", "MODE_30W (2); MAXN (0) is the fastest of", "sudo nvpmodel -m 0"),
        "CPU cores": ("warn", "8 of 12 run; off: 8, 9, 10, 11", "sudo nvpmodel -m 0"),
        "clocks": ("optional", "free: CPU 730 to 1728 MHz (schedutil), GPU 306 to 612", "sudo jet"),
    },
    "agx-thor-jp71": {
        "Jetson": ("ok", "NVIDIA Jetson AGX Thor Developer Kit (tegra264)", None),
        "JetPack": ("ok", "7.1 (L4T 38.4.0), TensorRT 10.13.3.9, CUDA 13.0", None),
        "power mode": ("ok", "MAXN (0), the fastest of", None),
        "clocks": ("ok", "locked: CPU 2601 MHz, GPU 1575 MHz, memory 4266 MHz", None),
        "temperature": (
            "ok",
            "not throttled; soc012-thermal 55.1 degrees C; shuts down at 114.5; no answer from "
            "gpu-thermal",
            None,
        ),
        "swap": ("optional", "none", None),
    },
    "agx-thor-throttled": {
        "power mode": ("warn", "120W (1); MAXN (0) is the fastest", "sudo nvpmodel -m 0"),
        "temperature": (
            "warn",
            "throttled now (gpu-throttle-alert, devfreq-gpu-gpc-0); tj-thermal 108.9 degrees C",
            "sudo jetson_clocks --fan",
        ),
    },
}
"""Of some rows of each board: the verdict, a part of what is found, the start of the command."""


def rows_of(root: Path) -> dict[str, Finding]:
    found = list(check_board(NOWHERE, root))
    rows = {finding.what: finding for finding in found}
    assert len(rows) == len(found)
    return rows


def test_every_recorded_board_is_expected_something_of() -> None:
    assert sorted(EXPECTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_board_is_told_as_its_owner_saw_it(name: str, unpack: Unpack) -> None:
    rows = rows_of(unpack(name))
    for what, (verdict, part, command) in EXPECTED[name].items():
        row = rows[what]
        assert (what, row.verdict) == (what, verdict)
        assert part in row.found
        assert (row.next_command or "").startswith(command or ""), row
        assert (row.next_command is None) == (command is None), row
    assert "container" not in rows or "container" in EXPECTED[name]
    assert "CPU cores" not in rows or "CPU cores" in EXPECTED[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_a_recording_has_a_source_or_is_called_reconstructed(name: str) -> None:
    recording = recording_of(name)
    assert {entry.source for entry in recording.entries} - {RECONSTRUCTED} == set(recording.sources)
    assert recording.entries


@pytest.mark.parametrize("name", NAMES)
def test_what_is_told_names_no_serial_number(name: str, unpack: Unpack) -> None:
    """The device tree has one beside the model; people share the screen."""
    root = unpack(name)
    for place in ("proc/device-tree/serial-number", "sys/devices/soc0/serial_number"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_text("1421234567890\0", encoding="utf-8")
    assert "1421234567890" not in str(rows_of(root))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (None, ""),
        ("proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0"),
        ("sys/devices/soc0/family", "Freescale i.MX\n"),
        ("etc/nv_tegra_release", "# R36 (release), REVISION: 4.7, GCID: 1\n"),
    ],
)
def test_a_machine_that_is_no_jetson_gets_no_line(
    path: str | None, text: str, tmp_path: Path
) -> None:
    """An image of NVIDIA's on another computer has the release file, too."""
    for folder in ("sys/class/thermal/thermal_zone0", "sys/devices/system/cpu"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text("99000", encoding="utf-8")
    if path:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    assert list(check_board(NOWHERE, tmp_path)) == []
    assert not on_jetson(tmp_path)


def test_the_guide_shows_what_is_printed_for_a_recorded_board(
    unpack: Unpack, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = tuple(check_board(NOWHERE, unpack("orin-nano-jp721-25w")))
    screen = Screen(producer="a test", created="now", findings=findings)
    print_screen(Console(width=80, highlight=False, markup=False, emoji=False), screen)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:-1]]
    page = (Path(__file__).parents[4] / "docs/jetson.md").read_text(encoding="utf-8")
    shown = page.partition("```text\n")[2].partition("```")[0].splitlines()
    assert shown == printed


def test_this_machines_screen_has_a_line_of_it_on_a_jetson_only() -> None:
    """Found here from the files' own words, so that a board seen everywhere, or nowhere, fails."""
    places = ("/proc/device-tree/compatible", "/sys/devices/soc0/family")
    texts = [Path(place).read_text("utf-8") for place in places if Path(place).is_file()]
    is_jetson = any("tegra" in text.lower() for text in texts)
    found = findings_of(("board",), NOWHERE, 60)["board"]
    assert [row.what for row in found][:1] == (["Jetson"] if is_jetson else [])
    assert on_jetson() == is_jetson


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """Be one who may read no file without permissions: anybody but root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_of_another_user_are_told_as_such() -> None:
    """The temperature, the counters and the mode are root's alone, and so is a rail."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = unpack_into("orin-nano-jp6", Path(folder) / "root")
        for pattern in ("thermal_zone*/temp", "../hwmon/hwmon3/oc*", "../hwmon/hwmon1/curr1_input"):
            for path in (root / "sys/class/thermal").glob(pattern):
                path.chmod(0)
        (root / "var/lib/nvpmodel/status").chmod(0)
        with another_user():
            rows = rows_of(root)
    assert rows["temperature"].found == "not readable as this user"
    assert rows["supply"].found == "counters are not readable as this user"
    assert rows["power mode"].found.startswith(
        "not known: /var/lib/nvpmodel/status is not readable as this user; there are 15W (0)"
    )
    assert {rows[what].verdict for what in ("temperature", "supply", "power mode")} == {"optional"}


def paths_of_boards() -> list[str]:
    """Every file that some board has and some that none has, without their leading slash."""
    listed = {entry.path.lstrip("/") for name in NAMES for entry in recording_of(name).entries}
    return sorted(listed | {"run/.containerenv", "sys/class/devfreq", "sys/class/hwmon", "proc"})


CONTENTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")),
    st.integers(-(10**30), 10**30).map(lambda number: str(number).encode()),
    st.sampled_from(
        (
            b"",
            b"\0",
            b"nan",
            b"-",
            b"0x10",
            "\u0663\u0664".encode(),
            b"1" * 70_000,
            b"9" * 5000,
            b"pmode:99999",
            b"< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n" * 50,
            b"< POWER_MODEL ID= NAME= >",
            b"# R99999 (release), REVISION: 99999.99999.9",
            b"Package: libnvinfer10\nStatus: install ok installed\nVersion: \xff\n",
            b"Package: libnvinfer10\nStatus: install ok installed\nVersion: 99999999999999999999\n",
            b"Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 0\n",
            b"Filename Type\n/dev/zram0 partition 99999999999999999999 -1 5\n/x\n",
            b"0-999999999999",
            b"5-2,,7-",
            b"shm /dev/shm tmpfs size=99999999999999999999k 0 0",
            b"MemTotal: 0 kB",
            b"vi-output, \x1b[31m",
        )
    ),
)
KINDS = st.one_of(
    CONTENTS, st.sampled_from(("folder", "fifo", "socket", "loop", "dangling", "forbidden", "gone"))
)


@contextlib.contextmanager
def damaged(path: Path, content: bytes | str) -> Iterator[None]:
    """Put something at a path, whatever lies there, and what was there back in the end."""
    missing = [folder for folder in path.parents if not os.path.lexists(folder)]
    is_folder = path.is_dir() and not path.is_symlink()
    if is_folder or not all(folder.is_dir() for folder in path.parents if folder not in missing):
        yield  # in the way of other files, or below one that was damaged before
        return
    kept = None
    if os.path.lexists(path):
        kept = path.with_name(f"{path.name}.kept")
        while os.path.lexists(kept):  # a link may lead to what was damaged by its own name before
            kept = kept.with_name(f"{kept.name}.kept")
        path.rename(kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, content)
    try:
        yield
    finally:
        if content == "folder":
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        if kept:
            kept.rename(path)
        for folder in missing:
            folder.rmdir()


def put(path: Path, content: bytes | str) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "fifo":
        os.mkfifo(path)
    elif content == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif content == "loop":
        path.symlink_to(path.name)
    elif content == "dangling":
        path.symlink_to("/nowhere/at/all")
    elif content == "forbidden":
        path.touch(mode=0o000)


@pytest.fixture(scope="module")
def whole_boards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each board once, unpacked; who changes one puts it right again."""
    folder = tmp_path_factory.mktemp("boards")
    return {name: unpack_into(name, folder / name) for name in NAMES}


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    damages=st.dictionaries(st.sampled_from(paths_of_boards()), KINDS, max_size=25),
)
def test_no_damage_of_files_breaks_the_check(
    whole_boards: dict[str, Path], name: str, damages: dict[str, bytes | str]
) -> None:
    root = whole_boards[name]
    with contextlib.ExitStack() as stack:
        for path, content in damages.items():
            stack.enter_context(damaged(root / path, content))
        rows = rows_of(root)
    for row in rows.values():
        assert len(row.found) < 4000
        assert not {unicodedata.category(letter) for letter in row.found} & {"Cc", "Cs", "Zl", "Zp"}
    if rows:
        assert {"Jetson", "JetPack", "power mode", "clocks", "temperature", "supply"} <= set(rows)


@pytest.mark.parametrize("name", NAMES)
def test_the_damage_above_is_undone(
    name: str, whole_boards: dict[str, Path], unpack: Unpack
) -> None:
    """Or later examples of the test above were of something else."""
    whole, fresh = whole_boards[name], unpack(name)
    listed = [
        sorted((path.relative_to(root), path.is_symlink()) for path in root.rglob("*"))
        for root in (whole, fresh)
    ]
    assert listed[0] == listed[1]
    assert rows_of(whole) == rows_of(fresh)


def broken(root: Path) -> Iterator[tuple[str, Path]]:
    """Each file of a tree, damaged alone."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(root).as_posix(), path


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"7" * 70_000])
def test_each_file_alone_may_be_garbled_empty_or_enormous(content: bytes, unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    whole = rows_of(root)
    for name, path in broken(root):
        before = path.read_bytes()
        path.write_bytes(content)
        rows = rows_of(root)
        path.write_bytes(before)
        assert rows.keys() >= whole.keys() - {"CPU cores"}, name
        assert all(row.verdict != "FAILED" for row in rows.values()), name
