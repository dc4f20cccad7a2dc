from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.doctor.board.clocks import check_clocks, cores_from_text, gpu_clock
from motorvae.runtime.doctor.board.power import power_modes_of
from motorvae.runtime.doctor.board.tree import Tree
from motorvae.runtime.doctor.finding import Finding

from .conftest import Unpack

CPU = "sys/devices/system/cpu"
GPU = "sys/devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu"


def rows_of(root: Path) -> dict[str, Finding]:
    tree = Tree(root)
    return {row.what: row for row in check_clocks(tree, power_modes_of(tree))}


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-5", [0, 1, 2, 3, 4, 5]),
        ("0,3-5", [0, 3, 4, 5]),
        ("7", [7]),
        ("", None),
        ("5-2", None),
        ("0-9999", None),
        ("0-99999999", None),
    ],
)
def test_lists_of_cores(text: str, cores: list[int] | None) -> None:
    assert cores_from_text(text) == cores


@pytest.mark.parametrize(
    ("name", "is_gpu"),
    [
        ("17000000.gpu", True),  # Orin
        ("17000000.ga10b", True),  # Orin, JetPack 5
        ("17000000.gv11b", True),  # Xavier
        ("57000000.gpu", True),  # Nano
        ("gpu-gpc-0", True),  # Thor
        ("gpu-nvd-0", False),  # Thor's video engines
        ("13e00000.host1x:nvdla0@15880000", False),
        ("bwmgr", False),
    ],
)
def test_gpus_are_known_by_their_names(name: str, is_gpu: bool, tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/devfreq" / name
    folder.mkdir(parents=True)
    (folder / "min_freq").write_text("306000000", encoding="utf-8")
    (folder / "max_freq").write_text("612000000", encoding="utf-8")
    assert bool(gpu_clock(Tree(tmp_path))) == is_gpu


def test_a_clock_that_is_free_beside_a_locked_one_is_told(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / GPU / "min_freq").write_text("306000000", encoding="utf-8")
    row = rows_of(root)["clocks"]
    assert row.found.startswith("CPU locked: CPU 1728 MHz, GPU 306 to 1020 MHz (nvhost_podgov)")
    assert row.verdict == "optional"


def test_a_gpu_whose_clock_is_unknown_leaves_the_cpus(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / GPU / "max_freq").write_text("?", encoding="utf-8")
    row = rows_of(root)["clocks"]
    assert row.found.startswith("locked: CPU 1728 MHz, GPU's could not be read")


def test_the_firmware_of_before_super_is_told(unpack: Unpack) -> None:
    """Mode and table say MAXN_SUPER, and the GPU stays at 624.75 MHz."""
    root = unpack("orin-nano-jp6")
    for name in ("min_freq", "max_freq"):
        (root / GPU / name).write_text("624750000", encoding="utf-8")
    row = rows_of(root)["clocks"]
    assert row.verdict == "warn"
    assert "MAXN_SUPER allows more than the firmware does" in row.found


def test_cores_that_are_off_in_the_fastest_mode_are_switched_on_one_by_one(unpack: Unpack) -> None:
    root = unpack("orin-nano-jp6")
    (root / CPU / "online").write_text("0-3,5", encoding="utf-8")
    row = rows_of(root)["CPU cores"]
    assert row.found == "5 of 6 run; off: 4"
    assert row.next_command == "echo 1 | sudo tee /sys/devices/system/cpu/cpu4/online"
