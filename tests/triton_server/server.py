"""A real Triton Inference Server: that of NVIDIA's wheel, downloaded once."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import urllib3

ROOT = Path(__file__).parents[2]
WHEEL = "nvidia-pytriton==0.7.0"  # Triton 2.51.0
CACHE = ROOT / ".scratch" / "triton"
_STARTED = re.compile("Started (GRPCInference|HTTP)Service at")
_FAILED = "error: creating server"
_LONGEST_S, _LONGEST_TO_END_S = 240, 40


class NotServedError(RuntimeError):
    """The server ended before it was ready; what it said is the text."""


@dataclass(frozen=True)
class Server:
    """A server that is ready.

    Attributes:
        http: Its address for KServe's protocol over HTTP, and so `grpc`.
        log: What it has said so far, a line each.
    """

    http: str
    grpc: str
    log: list[str]


def reason_against() -> str | None:
    """Why no server of the wheel can run here, in a clause, or None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"the wheel is for Linux on x86-64, and this is {platform.machine()}"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        return "this Python has no shared library, which the server would load"
    return None


def wheel() -> Path:
    """The unpacked wheel, which is downloaded once. Its requirements are left out: NumPy 1."""
    folder = CACHE / WHEEL.replace("==", "-")
    if not folder.exists():
        making = folder.with_name(f"{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(making), WHEEL], check=True)
        making.rename(folder)
    return folder


def backends(folder: Path) -> Path:
    """Make a folder of backends: the wheel's Python backend, and this one under other names."""
    own = wheel() / "pytriton" / "tritonserver"
    shutil.copytree(own / "backends" / "python", folder / "python", dirs_exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = own / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, folder / "python")
    for name in ("onnxruntime", "openvino"):
        (folder / name).mkdir(exist_ok=True)
        shutil.copy2(Path(__file__).with_name("backend.py"), folder / name / "model.py")
    return folder


@contextlib.contextmanager
def serving(repositories: Sequence[Path], folder: Path, *further: str) -> Iterator[Server]:
    """Run a server of these repositories, and end it after the block.

    A NotServedError is raised where it ends by itself, as it does where a model cannot be loaded.
    """
    places = backends(folder)
    http, grpc = _free_ports(2)
    command = [
        str(wheel() / "pytriton" / "tritonserver" / "bin" / "tritonserver"),
        *(f"--model-repository={one}" for one in repositories),
        f"--backend-directory={places}",
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
        *("--allow-metrics=false", "--allow-cpu-metrics=false"),
        *further,
    ]
    libraries = [wheel() / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",  # the interpreter of backends
    }
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    guard = threading.Timer(_LONGEST_S, process.kill)
    guard.start()
    log: list[str] = []
    reader = threading.Thread(target=log.extend, args=(process.stdout,), daemon=True)
    try:
        started = 0
        while started < 2:
            line = process.stdout.readline()
            log.append(line)
            # It may hang on its way out, and then its interpreters keep the pipe open.
            if not line or _FAILED in line:
                raise NotServedError("".join(log))
            started += _STARTED.search(line) is not None
        reader.start()
        # It says so a moment before it listens.
        patient = urllib3.Retry(connect=100, backoff_factor=0.05, backoff_max=0.5)
        ready = urllib3.request("GET", f"http://127.0.0.1:{http}/v2/health/ready", retries=patient)
        assert ready.status == 200
        yield Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log)
    finally:
        guard.cancel()
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LONGEST_TO_END_S)
        with contextlib.suppress(ProcessLookupError):  # interpreters that it left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if reader.is_alive():
            reader.join()
        process.stdout.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
