"""Nodes: a Ray cluster on this machine, whose nodes are trees of processes that can be killed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil


class Nodes:
    """A head and one node more, each a tree of processes on this machine, with one core each."""

    def __init__(self, folder: str) -> None:
        self._log = Path(folder) / "ray.txt"
        self._folder, self.address = folder, ""
        self.trees, self._started = list[Any](), list[subprocess.Popen[bytes]]()

    def start(self) -> None:
        port = _free_port()
        # A node that is gone is noticed within two seconds, and not after half a minute.
        quick = '{"health_check_period_ms":500,"health_check_timeout_ms":1000}'
        self.add(
            "--head", f"--port={port}", f"--temp-dir={self._folder}", f"--system-config={quick}"
        )
        self.address = f"127.0.0.1:{port}"
        self.add(f"--address={self.address}")

    def add(self, *args: str) -> None:
        """Start a node, and wait until the cluster has it."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *args, "--block"]
        command += ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        command += [f"--object-store-memory={100 << 20}"]
        if "--head" in args:
            command += ["--include-dashboard=false"]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=environment()
            )
        self._started.append(process)
        self.trees.append(psutil.Process(process.pid))
        end_s = time.monotonic() + 120
        while self._log.read_bytes().count(b"Ray runtime started.") < len(self.trees):
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < end_s, self._log.read_text()
            time.sleep(0.1)  # there is nothing to wait on but what it prints

    def mend(self) -> None:
        """Have two nodes again, where one was killed."""
        if self._started[-1].poll() is not None:
            self.add(f"--address={self.address}")

    def workers(self, number: int) -> list[str]:
        """What the processes of a node call themselves; Ray says what one of them runs."""
        names = []
        for process in self._processes(number):
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(process.cmdline()))
        return names

    def kill(self, number: int) -> None:
        """SIGKILL to every process of a node."""
        for process in self._processes(number):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def _processes(self, number: int) -> Sequence[Any]:
        with contextlib.suppress(psutil.Error):
            return [self.trees[number], *self.trees[number].children(recursive=True)]
        return []

    def close(self) -> None:
        for number in reversed(range(len(self.trees))):
            self.kill(number)
        for process in self._started:
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    # Ray gives its workers little of a busy machine, which here is the one of all nodes.
    return os.environ | {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
