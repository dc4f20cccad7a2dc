from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from .nodes import Nodes, environment

pytest.importorskip("ray")

IMAGES = 480
PART_IMAGES = 24


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with (
        tempfile.TemporaryDirectory(prefix="ray") as folder,  # short, as sockets lie there
        contextlib.closing(Nodes(folder)) as made,
    ):
        made.start()
        yield made


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """Pictures that take some milliseconds each, one that is none among them."""
    dice = np.random.default_rng(3)
    for number in range(7):
        picture = cv2.resize(dice.integers(0, 255, (9, 16, 3), np.uint8), (1920, 1080))
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    # Each row has a name of its own, and no two tasks, of 24, begin with the same picture.
    names = [f"row{number}.png" for number in range(IMAGES)]
    for number, name in enumerate(names):
        os.link(tmp_path / f"{number % 7}.png", tmp_path / name)
    names[100] = "bad.png"
    path = tmp_path / "list.txt"
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def _command(listing: Path, bundle: Path, *args: str) -> list[str]:
    command = [sys.executable, "-m", "motorvae", "encode", str(listing), "--model", str(bundle)]
    return [*command, "--part-images", str(PART_IMAGES), "--batch-size", "4", *args]


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as held:
        return dict(held)


def _assert_same(path: Path, other: Path) -> None:
    found, expected = _arrays(path), _arrays(other)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values, equal_nan=values.dtype.kind == "f"), name


@pytest.mark.timeout(600)
def test_a_node_that_is_killed_loses_and_doubles_nothing(
    nodes: Nodes, small_bundle: Path, listing: Path, tmp_path: Path
) -> None:
    """Bit by bit what one process gives: batches are the same, and so is the processor."""
    output = tmp_path / "ray.npz"
    command = _command(listing, small_bundle, "--output", str(output))
    command += ["--engine", "ray", "--address", nodes.address]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    ) as process:
        end_s = time.monotonic() + 240
        parts = tmp_path / "ray.npz.parts"
        # Ray writes what a process is at into its name: the node has a task, and parts are there.
        while not (
            any("Worker)).submit" in name for name in nodes.workers(1))
            and list(parts.glob("part-*"))
        ):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end_s
            time.sleep(0.005)  # there is nothing to wait on but that
        nodes.kill(1)
        printed, errors = process.communicate(timeout=240)
    assert process.returncode == 1, errors
    assert printed == ""
    lines = errors.splitlines()
    assert "2 workers of 1 thread on 2 nodes, batches of 4" in errors
    assert "1 node was lost; what it had was done on others" in lines
    assert lines[-1].startswith(f"motorvae-encode: 1 of {IMAGES} did not decode")
    assert not [line for line in lines if "ray" in line.lower() and str(tmp_path) not in line]
    alone = tmp_path / "alone.npz"
    subprocess.run(
        _command(listing, small_bundle, "--output", str(alone)),
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert len(_arrays(alone)["names"]) == IMAGES - 1
    _assert_same(output, alone)


@pytest.mark.timeout(600)
def test_what_one_machine_began_a_cluster_goes_on_with(
    nodes: Nodes, small_bundle: Path, listing: Path, tmp_path: Path
) -> None:
    """A run on this machine is killed, one on the cluster interrupted, and a third one ends."""
    output = tmp_path / "latents.npz"
    command = _command(listing, small_bundle, "--output", str(output))
    on_cluster = [*command, "--engine", "ray", "--address", nodes.address]
    parts = tmp_path / "latents.npz.parts"

    def stopped(words: Sequence[str], wanted: int, signal_: signal.Signals) -> tuple[int, str]:
        with subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            end_s = time.monotonic() + 240
            while len(list(parts.glob("part-*"))) < wanted:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end_s
                time.sleep(0.002)  # there is nothing to wait on but the folder
            process.send_signal(signal_)
            _, errors = process.communicate(timeout=120)
            return process.returncode, errors

    stopped(command, 2, signal.SIGKILL)
    code, errors = stopped(on_cluster, 6, signal.SIGINT)
    assert code == 130, errors
    assert f"are kept in {parts}: the same command goes on there" in errors
    assert "Traceback" not in errors
    kept = len(list(parts.glob("part-*")))
    done = subprocess.run(
        on_cluster, capture_output=True, text=True, timeout=240, env=environment(), check=False
    )
    latents = kept * PART_IMAGES - 1  # but for the one that is none
    assert f"{latents} of them by an earlier run" in done.stderr
    alone = tmp_path / "alone.npz"
    subprocess.run(
        _command(listing, small_bundle, "--output", str(alone)),
        capture_output=True,
        timeout=240,
        check=False,
    )
    _assert_same(output, alone)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_it_at_any_moment(small_bundle: Path, listing: Path, tmp_path: Path) -> None:
    """On a cluster of its own, whose processes are in the terminal's group and get it, too."""
    listing.write_text(20 * (listing.read_text() + "\n"))
    dice = np.random.default_rng()
    for number in range(6):
        output = tmp_path / f"{number}.npz"
        command = _command(listing, small_bundle, "--output", str(output), "--engine", "ray")
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
        ) as process:
            while not list(tmp_path.glob(f"{number}.npz.parts/part-*")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)  # there is nothing to wait on but the folder
            time.sleep(dice.uniform(0, 1))  # the moment of the signal
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors


_HOLD = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=1)
class Held:
    def ready(self):
        return True

held = [Held.remote() for _ in range(int(sys.argv[2]))]
ray.get([one.ready.remote() for one in held])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_other_jobs_have_is_said_to_be_waited_for(
    nodes: Nodes, small_bundle: Path, listing: Path, tmp_path: Path
) -> None:
    nodes.mend()
    command = _command(listing, small_bundle, "--output", str(tmp_path / "ray.npz"))
    command += ["--engine", "ray", "--address", nodes.address]
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, nodes.address, "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment()
        ) as process:
            assert process.stderr is not None
            first = process.stderr.readline()
            other.communicate("")
            _, errors = process.communicate(timeout=240)
    assert first == (
        "waiting for room for 2 workers of 1 thread on 2 nodes: other jobs have the cluster, of "
        "which 0 cores and 0 GPUs are free\n"
    )
    assert process.returncode == 1, errors  # for the one that does not decode
    assert len(_arrays(tmp_path / "ray.npz")["names"]) == IMAGES - 1


_POISON = """
import os, sys
from functools import partial
from pathlib import Path
from motorvae.runtime.bulk.cluster.ray_pool import ClusterRequest, RayPool
from motorvae.runtime.bulk.encoder_pool import PoolRequest
from motorvae.runtime.bulk.item import Item
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BackendError
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.pixels.picture import USUAL_LIMIT

bundle = load_bundle(Path(sys.argv[1]))
with RayPool(bundle, PoolRequest(EngineRequest(), USUAL_LIMIT), ClusterRequest("local")) as pool:
    try:
        items = [Item("before", partial(bytes, b"")), Item("poison", partial(os._exit, 1))]
        list(pool.rows([items]))
    except BackendError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_kills_each_worker_is_given_up(small_bundle: Path) -> None:
    """As a picture does that crashes a decoder, or takes all memory of a node."""
    done = subprocess.run(
        [sys.executable, "-c", _POISON, str(small_bundle)],
        capture_output=True,
        text=True,
        timeout=500,
        env=environment(),
        check=False,
    )
    assert done.stdout.startswith("Ray gave up: "), done.stderr
    assert "the first images without an answer are before to poison" in done.stdout


@pytest.mark.slow
def test_a_listener_that_never_answers_is_refused(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        failed = encode(image_folder, "--engine", "ray", "--address", address)
    assert "no Ray cluster of version 2." in failed.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--address", "auto"], "--address auto is of a cluster: add --engine ray"),
        (["--engine", "ray", "--address", "ray://head:10001"], "give HOST:PORT of the cluster's"),
        (["--engine", "ray", "--address", "head"], "--address='head': give HOST:PORT"),
        (["--engine", "ray", "--address", "127.0.0.1:1"], "cannot be reached"),
        (["--engine", "ray", "--rebuild"], "--rebuild builds for this machine"),
    ],
)
def test_what_is_no_cluster_is_refused_in_one_line(
    encode: Callable[..., Any],
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in encode(image_folder, *args).error
    assert list(tmp_path.iterdir()) == []


def test_without_ray_it_says_what_to_install(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "motorvae[ray]" in encode(image_folder, "--engine", "ray").error
