from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.core.system.memory import available_bytes, listed_bytes

MIB = 1 << 20
MEMINFO = "MemTotal:       7800000 kB\nMemFree:  9 kB\nMemAvailable:    4096000 kB\n"


def plant(root: Path, **group: str) -> Path:
    """The files of a machine, and those of the control group that a container sees as its own."""
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(MEMINFO, encoding="ascii")
    (root / "sys/fs/cgroup").mkdir(parents=True)
    for name, text in group.items():
        (root / f"sys/fs/cgroup/memory.{name}").write_text(f"{text}\n", encoding="ascii")
    return root


@pytest.mark.parametrize(
    ("group", "mib"),
    [
        ({}, 4000),
        ({"max": "max", "current": "5"}, 4000),
        ({"max": str(1024 * MIB), "current": str(1000 * MIB)}, 24),
        (
            {
                "max": str(1024 * MIB),
                "current": str(1000 * MIB),
                "stat": f"anon 9\ninactive_file {300 * MIB}\nactive_file 7",
            },
            324,
        ),
        ({"max": str(64 * MIB), "current": str(65 * MIB)}, 0),
        ({"max": str(10**18), "current": "0"}, 4000),
        ({"max": "-1", "current": "x"}, 4000),
        ({"max": "\n", "current": ""}, 4000),
    ],
)
def test_a_container_has_what_its_limit_leaves(
    group: dict[str, str], mib: int, tmp_path: Path
) -> None:
    assert available_bytes(plant(tmp_path, **group)) == mib * MIB


def test_a_machine_that_lists_nothing_is_not_known(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    assert listed_bytes("", "MemTotal") is None
    assert listed_bytes("MemTotal: lots kB", "MemTotal") is None
    assert listed_bytes(MEMINFO, "MemTotal") == 7_800_000 << 10
