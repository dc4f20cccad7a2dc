from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.system import other_core
from motorvae.runtime.engines import cpu_threads as threads
from motorvae.runtime.engines.cpu_threads import checked_threads, default_threads

SPIN = """
import sys, time
import numpy as np
from pathlib import Path
from motorvae.runtime.engines.onnx_runtime import OnnxBackend
import onnxruntime as ort

image = np.zeros((1, 1, 32, 32), np.float32)

def as_installed():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image})

def ours():
    backend = OnnxBackend(Path(sys.argv[1]), threads=2)
    return lambda: backend.run(image)

def burnt(run):
    for _ in range(20):
        run()
    begin = time.process_time()
    for _ in range(50):
        run()
        time.sleep(0.005)  # the pace of a camera, in which nothing is to be done
    return time.process_time() - begin

print(burnt(as_installed()), burnt(ours()))
"""


def test_only_cores_that_the_process_may_use_count() -> None:
    usable = sorted(os.sched_getaffinity(0))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os; os.sched_setaffinity(0, {{{usable[0]}}});"
            "from motorvae.runtime.engines.cpu_threads import default_threads as n; print(n())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
    assert 1 <= default_threads() <= len(usable)


@pytest.mark.parametrize(
    ("quota", "most"),
    [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 2), ("max 100000", None)],
)
@pytest.mark.parametrize("inside", ["", "/service", "/service/deeper"])
def test_a_container_s_quota_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, most: int | None, inside: str
) -> None:
    (tmp_path / "service/deeper").mkdir(parents=True)
    (tmp_path / "service/cpu.max").write_text(quota + "\n", encoding="ascii")
    (tmp_path / "own").write_text(f"0::{inside}\n", encoding="ascii")
    monkeypatch.setattr(threads, "_GROUPS", tmp_path)
    monkeypatch.setattr(threads, "_OWN_GROUP", tmp_path / "own")
    if not inside:  # the limit of a group in which it is not
        most = None
    monkeypatch.setattr(other_core, "_SIBLINGS", str(tmp_path / "none{number}"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert default_threads() == (most or 8)


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("-1", 8)])
def test_the_first_version_of_cgroups_counts_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, cores: int
) -> None:
    (tmp_path / "cpu/box").mkdir(parents=True)
    (tmp_path / "cpu/box/cpu.cfs_quota_us").write_text(quota + "\n", encoding="ascii")
    (tmp_path / "cpu/box/cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    (tmp_path / "own").write_text("4:memory:/box\n3:cpuacct,cpu:/box\n", encoding="ascii")
    monkeypatch.setattr(threads, "_GROUPS", tmp_path)
    monkeypatch.setattr(threads, "_OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(other_core, "_SIBLINGS", str(tmp_path / "none{number}"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert default_threads() == cores


def test_two_hardware_threads_of_a_core_are_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(4):
        (tmp_path / str(number)).write_text(f"{number % 2},{number % 2 + 2}\n", encoding="ascii")
    monkeypatch.setattr(other_core, "_SIBLINGS", str(tmp_path / "{number}"))
    monkeypatch.setattr(threads, "_OWN_GROUP", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert default_threads() == 2


@pytest.mark.parametrize("count", [0, -3, 1025])
def test_a_number_out_of_range_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"threads={count} is out of range: take 1 to 1024"):
        checked_threads(count)


def test_our_threads_stand_back_between_frames_and_those_as_installed_do_not(
    small_bundle: Path,
) -> None:
    """Processor time, which a busy neighbour does not change: the default spins on after a run."""
    done = subprocess.run(
        [sys.executable, "-c", SPIN, str(small_bundle / "encoder.onnx")],
        capture_output=True,
        text=True,
        check=True,
    )
    default_s, ours_s = map(float, done.stdout.split())
    assert ours_s < 0.8 * default_s
