from __future__ import annotations

from pathlib import Path

import pytest

from motorvae.runtime.doctor.board.release import (
    check_release,
    installed_packages,
    l4t_from_text,
)
from motorvae.runtime.doctor.board.tree import Tree, Unread
from motorvae.runtime.doctor.finding import Finding

TRT10 = ("libnvinfer10=10.3.0.30-1+cuda12.5", "python3-libnvinfer=10.3.0.30-1+cuda12.5")


def board(root: Path, l4t: str | None, *packages: str) -> Finding:
    """The row of a board with this L4T and these packages."""
    if l4t is not None:
        major, _, rest = l4t.partition(".")
        text = f"# R{major} (release), REVISION: {rest}, GCID: 1, BOARD: generic\n"
        (root / "etc").mkdir()
        (root / "etc/nv_tegra_release").write_text(text, encoding="utf-8")
    paragraphs = [
        "Package: {}\nStatus: install ok installed\nVersion: {}".format(*each.split("="))
        for each in packages
    ]
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    (row,) = check_release(Tree(root))
    return row


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic", "36.4.7"),
        ("# R39 (release), REVISION: 2.0, GCID: 45755727\n# KERNEL_VARIANT: oot", "39.2.0"),
        ("# R32 (release), REVISION: 7.1", "32.7.1"),
        ("# R38 (release), REVISION: 2", "38.2.0"),
        ("R36", None),
        ("# R36 (release), REVISION: x", None),
    ],
)
def test_l4t_is_read_as_nvidia_writes_it(text: str, l4t: str | None) -> None:
    assert l4t_from_text(text) == l4t


@pytest.mark.parametrize(
    ("l4t", "title"),
    [
        ("36.4.3", "6.2 (L4T 36.4.3)"),
        ("36.4.0", "6.1 (L4T 36.4.0)"),
        ("38.2.1", "7.0 (L4T 38.2.1)"),
        ("36.9.1", "an unknown release of JetPack 6 (L4T 36.9.1)"),
        ("39.7.0", "an unknown release of JetPack 7 (L4T 39.7.0)"),
        ("44.1.0", "unknown (L4T 44.1.0)"),
    ],
)
def test_releases_that_no_table_has_are_said_to_be_unknown(
    l4t: str, title: str, tmp_path: Path
) -> None:
    row = board(tmp_path, l4t, *TRT10)
    assert row.found.startswith(f"{title}, TensorRT 10.3.0.30;")
    assert row.verdict == "ok"


@pytest.mark.parametrize(
    ("l4t", "packages", "part", "command"),
    [
        ("35.4.1", ("libnvinfer8=8.5.2-1+cuda11.4",), "JetPack 5 is older", "--backend onnx"),
        ("36.3.0", ("libnvinfer8=8.6.2.3-1+cuda12.2",), "TensorRT 10.3 or newer", "onnx"),
        ("36.4.7", (), "no TensorRT package; engines need it", "apt-get install nvidia-jetpack"),
        ("36.4.7", TRT10[:1], "Python module is not", "apt-get install python3-libnvinfer"),
        ("39.2.1", ("libnvinfer11=11.3.0.1-1+cuda13.2",), "from 11.4.1 on", "apt-cache policy"),
        (
            "36.4.7",
            ("libnvinfer10=10.16.2.10-1+cuda13.2", "cuda-cudart-12-6=12.6.68-1"),
            "TensorRT was built for CUDA 13, which is not installed",
            "apt-cache policy libnvinfer10",
        ),
        (
            "36.4.3",
            (*TRT10, "nvidia-l4t-core=36.4.7-20250918154033"),
            "nvidia-l4t-core is 36.4.7: an upgrade is unfinished",
            "sudo apt-get install --fix-broken",
        ),
    ],
)
def test_a_pair_that_motorvae_does_not_support_is_a_warning(
    l4t: str, packages: tuple[str, ...], part: str, command: str, tmp_path: Path
) -> None:
    row = board(tmp_path, l4t, *packages)
    assert row.verdict == "warn"
    assert part in row.found
    assert command in (row.next_command or "")


def test_tensorrt_11_4_1_is_supported(tmp_path: Path) -> None:
    trt = ("libnvinfer11=11.4.1.2-1+cuda13.2", "python3-libnvinfer=11.4.1.2-1+cuda13.2")
    assert board(tmp_path, "39.2.1", *trt).verdict == "ok"


def test_the_packages_version_of_jetpack_counts_more_than_the_table(tmp_path: Path) -> None:
    row = board(tmp_path, "36.4.7", *TRT10, "nvidia-jetpack=6.2.9+b1")
    assert row.found.startswith("6.2.9 (L4T 36.4.7)")


def test_an_image_may_have_tensorrt_without_packages(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/aarch64-linux-gnu").mkdir(parents=True)
    for name in ("libnvinfer.so.10", "libnvinfer.so.10.3.0", "libnvinfer_plugin.so.11.0.0"):
        (tmp_path / "usr/lib/aarch64-linux-gnu" / name).touch()
    (tmp_path / ".dockerenv").touch()
    row = board(tmp_path, "36.4.7")
    assert row.found == "6.2.1 (L4T 36.4.7), TensorRT 10.3.0; this motorVAE supports them"
    assert row.verdict == "ok"


def test_only_installed_packages_count(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: libnvinfer8\nStatus: deinstall ok config-files\nVersion: 8.6\n\n"
        "Package: libnvinfer10\nPriority: optional\nStatus: hold ok installed\nVersion: 10.3\n"
        "Description: x\n Package: nvidia-jetpack\n\n"
        "Package: libnvinfer-bin\nStatus: install ok installed\nVersion: 9\n",
        encoding="utf-8",
    )
    assert installed_packages(Tree(tmp_path)) == {"libnvinfer10": "10.3"}
    assert installed_packages(Tree(tmp_path / "none")) == Unread("absent")


def test_neither_file_is_a_row_that_says_so(tmp_path: Path) -> None:
    (row,) = check_release(Tree(tmp_path))
    assert row.verdict == "optional"
    assert row.found == (
        "could not be read: /etc/nv_tegra_release is absent, /var/lib/dpkg/status absent"
    )
