"""The Rerun viewer as a process: on loopback only, with a memory limit, telemetry disabled."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...core.atomic_files import cache_dir
from ...core.errors import OutputError, missing_dependency

LOOPBACK = "127.0.0.1"
MEMORY_LIMIT = "25%"
"""Of this machine's memory; past it the viewer forgets the oldest rows."""
BACKLOG_LIMIT = "64MiB"
"""What its server keeps for viewers that connect later; there are none."""
START_S = 60.0
POLL_S = 0.05
WAY_ROUND = "record with --view file.rrd and open that elsewhere"
NO_UPDATE_CHECK = '{"app": "(app_options:(check_for_updates_on_startup:false))"}'
"""A viewer's settings file in which one thing is set."""
NOWHERE = f"http://{LOOPBACK}:9"
"""A proxy that nobody runs."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """A viewer that has been started. It outlives this program.

    Attributes:
        url: Where it listens.
        process: Its process.
    """

    url: str
    process: subprocess.Popen[bytes]
    _said: IO[bytes]

    def why_ended(self) -> str | None:
        """Return how the viewer ended, its last words inside, or None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if code <= 0:
            return f"the Rerun viewer was {f'ended by signal {-code}' if code else 'closed'}"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"the Rerun viewer ended with {code}{f': {lines[-1].strip()}' if lines else ''}"

    def leave(self) -> None:
        """Let go of the viewer, which goes on."""
        self._said.close()


def start_viewer() -> Viewer:
    """Start the viewer that comes with rerun-sdk and wait until it listens.

    It is started here and not by the SDK, which would have it listen on all interfaces, and
    would take whatever already listens on its port for a viewer.

    Raises:
        MissingDependencyError: The rerun-sdk package is not installed.
        OutputError: It did not start; the message has the viewer's last line.
    """
    executable = _executable()
    said = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the viewer
    try:
        environment = _private_environment(executable)
        port = _free_port()
        process = subprocess.Popen(
            [
                executable,
                f"--bind={LOOPBACK}",
                f"--port={port}",
                f"--memory-limit={MEMORY_LIMIT}",
                f"--server-memory-limit={BACKLOG_LIMIT}",
                "--hide-welcome-screen",  # which fetches a list of examples
                "--expect-data-soon",
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # ours may carry rows
            stderr=said,
            start_new_session=True,  # Ctrl-C ends the stream; what it showed stays to be looked at
        )
    except (OSError, subprocess.CalledProcessError) as error:
        said.close()
        raise OutputError(f"the Rerun viewer did not start: {error}; {WAY_ROUND}") from error
    viewer = Viewer(f"rerun+http://{LOOPBACK}:{port}/proxy", process, said)
    _wait_until_it_listens(viewer, port)
    return viewer


def _private_environment(executable: Path) -> dict[str, str]:
    """Return an environment in which the viewer asks nothing of the network.

    By itself it sends usage statistics and asks for its newest version. Both are settings of the
    user's, so it gets settings of its own, in a folder of ours. What else a version of it might
    fetch goes to a proxy that is not there.
    """
    settings = cache_dir() / "rerun-viewer"
    data, config = settings / "data", settings / "config"
    environment = os.environ | {
        "XDG_CONFIG_HOME": str(config),
        "XDG_DATA_HOME": str(data),
        "RUST_LOG": "error",
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }
    for scheme in ("http", "https", "all"):
        environment[f"{scheme}_proxy"] = environment[f"{scheme.upper()}_PROXY"] = NOWHERE
    environment.pop("FORCE_RERUN_ANALYTICS", None)
    options = data / "rerun" / "app.ron"
    if not options.exists():
        options.parent.mkdir(parents=True, exist_ok=True)
        options.write_text(NO_UPDATE_CHECK)
    subprocess.run(
        [executable, "analytics", "disable"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return environment


def _wait_until_it_listens(viewer: Viewer, port: int) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        why = viewer.why_ended()
        if why is None and time.monotonic() > deadline_s:
            viewer.process.kill()
            viewer.process.wait()
            why = f"the Rerun viewer did not listen within {START_S:g} s"
        if why is not None:
            viewer.leave()
            raise OutputError(f"{why}; {WAY_ROUND}")
        try:
            socket.create_connection((LOOPBACK, port), timeout=1).close()
        except OSError:
            time.sleep(POLL_S)
        else:
            return


def _executable() -> Path:
    """Return the viewer of this very rerun-sdk; another version on the PATH may not understand."""
    spec = importlib.util.find_spec("rerun_cli")
    if spec is None or spec.origin is None:
        raise missing_dependency("--view", "rerun-sdk", extra="view", instead=WAY_ROUND)
    return Path(spec.origin).with_name("rerun")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
