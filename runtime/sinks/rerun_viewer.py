"""The Rerun viewer as a process: on loopback only, with a memory limit, telemetry disabled."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from ..core.atomic_files import cache_dir
from ..core.errors import OutputError, missing_dependency
from .base import LOOPBACK

START_S = 60.0
ALTERNATIVE = "record with --view file.rrd and open that elsewhere"


class Viewer:
    """The viewer that comes with rerun-sdk, which listens once this is made; it outlives us.

    It is started here and not by the SDK, which would have it listen on all interfaces, and
    would take whatever already listens on its port for a viewer. Where it does not start, the
    OutputError has its last line.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec("rerun_cli")
        if spec is None or spec.origin is None:
            raise missing_dependency("--view", "rerun-sdk", extra="view", instead=ALTERNATIVE)
        # That of this very rerun-sdk; another version on the PATH may not understand.
        executable = Path(spec.origin).with_name("rerun")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the viewer
        try:
            environment = _private_environment(executable)
            with socket.socket() as probe:  # right before it is used: another process may take it
                probe.bind((LOOPBACK, 0))
                port = int(probe.getsockname()[1])
            self.url = f"rerun+http://{LOOPBACK}:{port}/proxy"
            self.process = subprocess.Popen(
                [
                    executable,
                    f"--bind={LOOPBACK}",
                    f"--port={port}",
                    # Of this machine's memory; past it the viewer forgets the oldest rows.
                    "--memory-limit=25%",
                    "--server-memory-limit=64MiB",  # for viewers that connect later: there are none
                    "--hide-welcome-screen",  # which fetches a list of examples
                    "--expect-data-soon",
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours may carry rows
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C ends the stream; what it showed stays to be seen
            )
        except (OSError, subprocess.CalledProcessError) as error:
            self.leave()
            raise OutputError(f"the Rerun viewer did not start: {error}; {ALTERNATIVE}") from error
        self._wait_until_it_listens(port)

    def why_ended(self) -> str | None:
        """Return how the viewer ended, its last words inside, or None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        if code <= 0:
            return f"the Rerun viewer was {f'ended by signal {-code}' if code else 'closed'}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the Rerun viewer ended with {code}{f': {lines[-1].strip()}' if lines else ''}"

    def leave(self) -> None:
        """Let go of the viewer, which goes on."""
        self._errors.close()

    def _wait_until_it_listens(self, port: int) -> None:
        deadline_s = time.monotonic() + START_S
        while True:
            why = self.why_ended()
            if why is None and time.monotonic() > deadline_s:
                self.process.kill()
                self.process.wait()
                why = f"the Rerun viewer did not listen within {START_S:g} s"
            if why is not None:
                self.leave()
                raise OutputError(f"{why}; {ALTERNATIVE}")
            try:
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return


def _private_environment(executable: Path) -> dict[str, str]:
    """Return an environment in which the viewer asks nothing of the network.

    By itself it sends usage statistics and asks for its newest version. Both are settings of the
    user's, so it gets settings of its own, in a folder of ours. What else a version of it might
    fetch goes to a proxy that is not there.
    """
    settings = cache_dir() / "rerun-viewer"
    environment = os.environ | {
        "XDG_CONFIG_HOME": str(settings / "config"),
        "XDG_DATA_HOME": str(settings / "data"),
        "RUST_LOG": "error",
        "NO_PROXY": LOOPBACK,
        "no_proxy": LOOPBACK,
    }
    for scheme in ("http", "https", "all"):
        environment[f"{scheme}_proxy"] = environment[f"{scheme.upper()}_PROXY"] = (
            f"http://{LOOPBACK}:9"
        )
    environment.pop("FORCE_RERUN_ANALYTICS", None)
    options = settings / "data" / "rerun" / "app.ron"
    if not options.exists():
        options.parent.mkdir(parents=True, exist_ok=True)
        options.write_text('{"app": "(app_options:(check_for_updates_on_startup:false))"}')
    subprocess.run(
        [executable, "analytics", "disable"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return environment
