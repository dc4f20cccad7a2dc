from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.doctor.board.container import (
    check_container,
    container_of,
    shared_memory_bytes,
)
from motorvae.runtime.doctor.board.csi import check_csi
from motorvae.runtime.doctor.board.swap import check_swap
from motorvae.runtime.doctor.board.tree import Tree
from motorvae.runtime.doctor.finding import Finding

from .conftest import Unpack

SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("shm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0", 64 << 20),
        ("tmpfs /dev/shm tmpfs rw,size=8g 0 0", 8 << 30),
        ("tmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0", None),
        ("tmpfs /dev tmpfs rw,size=65536k 0 0", None),
        ("tmpfs /dev/shm tmpfs rw,size=lots 0 0", None),
    ],
)
def test_the_size_of_shared_memory_is_in_the_mount_table(
    line: str, size: int | None, tmp_path: Path
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text(f"proc /proc proc rw 0 0\n{line}\n", encoding="utf-8")
    assert shared_memory_bytes(Tree(tmp_path)) == size


def test_podman_is_known_and_a_well_started_container_is_fine(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / "run").mkdir()
    (root / "run/.containerenv").touch()
    mount = "shm /dev/shm tmpfs rw,size=1048576k 0 0\n"
    (root / "proc/mounts").write_text(mount, encoding="utf-8")
    tree = Tree(root)
    assert container_of(tree) == "podman"
    (row,) = check_container(tree)
    assert (row.verdict, row.next_command) == ("ok", None)
    assert row.found.endswith("shm has 1024 MiB")


def test_a_folder_that_docker_made_in_place_of_the_socket_is_told(unpack: Unpack) -> None:
    """`-v /tmp/argus_socket:/tmp/argus_socket` makes one where the daemon was not running."""
    root = unpack("orin-nano-container")
    (root / "tmp/argus_socket").mkdir()
    (row,) = check_container(Tree(root))
    assert "argus_socket is no socket: the camera daemon was not running" in row.found
    (csi,) = check_csi(Tree(root))
    assert csi.verdict == "warn"


def swap(root: Path, table: str) -> Finding:
    (root / "proc").mkdir()
    (root / "proc/swaps").write_text(table, encoding="utf-8")
    (row,) = check_swap(Tree(root))
    return row


def test_swap_that_is_more_than_half_full_is_a_warning(tmp_path: Path) -> None:
    table = f"{SWAPS}/dev/zram0 partition 1000000 400000 5\n/swapfile file 1000000 700000 -2\n"
    row = swap(tmp_path, table)
    assert row.verdict == "warn"
    assert row.found.startswith("2.0 GB of zram and files, 1.1 GB used: a stream may wait")


def test_lines_that_are_no_swap_are_left_out(tmp_path: Path) -> None:
    row = swap(tmp_path, f"{SWAPS}/dev/zram0 partition -5 x 5\n/swapfile file 1000000 0 -2\nx\n")
    assert (row.found, row.verdict) == ("1.0 GB of files, 0.0 GB used", "ok")


@pytest.mark.parametrize("text", ["", "garbage\n"])
def test_a_table_that_is_none_could_not_be_read(text: str, tmp_path: Path) -> None:
    row = swap(tmp_path, text)
    assert row.found == "could not be read: /proc/swaps is no list of swap"


def test_nvidias_own_zram_is_started_where_it_is_there(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp721-25w")
    (root / "etc/systemd").mkdir(parents=True)
    (root / "etc/systemd/nvzramconfig.sh").touch()
    (row,) = check_swap(Tree(root))
    assert row.next_command == "sudo systemctl enable --now nvzramconfig"


def test_a_sensor_without_the_daemon_is_a_warning(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / "tmp/argus_socket").unlink()
    (row,) = check_csi(Tree(root))
    assert row.verdict == "warn"
    assert row.next_command == "sudo systemctl restart nvargus-daemon"


def test_without_a_sensor_nothing_is_wrong(unpack: Unpack) -> None:
    root = unpack("agx-orin-jp62")
    tool = root / "opt/nvidia/jetson-io/jetson-io.py"
    tool.parent.mkdir(parents=True)
    tool.touch()
    (row,) = check_csi(Tree(root))
    assert row.verdict == "optional"
    assert row.next_command == "sudo /opt/nvidia/jetson-io/jetson-io.py"
