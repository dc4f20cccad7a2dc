"""ONNX Runtime, imported without what its detection of the processor prints on standard error.

On arm64 it uses pytorch's cpuinfo, which reads /sys/devices/system/cpu and complains where a
container or an emulator has none (microsoft/onnxruntime issue 10038), and of SVE on processors
without it (pytorch issue 138333). On a board with its own /sys nothing of that is printed.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

# From its import on it would write a device id into the user's cache folder and report what runs.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_ABOUT_PROCESSOR = re.compile(
    rb"(?:Error|Warning) in cpuinfo: |onnxruntime (?:cpuid_info )?warning: .*"
    rb"(?:cpuinfo|CPU vendor)"
)
_UNKNOWN = re.compile(rb"cpuinfo_initialize failed|Failed to initialize PyTorch cpuinfo")
_LIST = "/sys/devices/system/cpu/possible"


@contextlib.contextmanager
def _without_processor_lines(said: list[bytes]) -> Iterator[None]:
    """Hold back what comes on the file descriptor of standard error; print all else afterwards.

    What is left out goes into `said`. Nothing is held back on other processors than arm64: what
    another thread or its child prints meanwhile would be late or lost.
    """
    if os.uname().machine not in {"aarch64", "arm64"}:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
            stack.callback(os.close, kept)
            file = stack.enter_context(os.fdopen(os.memfd_create("standard-error"), "r+b", 0))
        except (AttributeError, OSError):  # closed, or no Linux: printed or not, as it may be
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            file.seek(0)
            for line in file.read().splitlines(keepends=True):
                if _ABOUT_PROCESSOR.match(line):
                    said.append(line)
                else:
                    os.write(2, line)


_said: list[bytes] = []
with _without_processor_lines(_said):
    import onnxruntime as ort


def unknown_processor() -> str | None:
    """Return in a clause why ONNX Runtime takes its plainest kernels, or None where it does not.

    It chooses kernels by the processor's features, such as dot products of 8-bit numbers.
    """
    if not any(_UNKNOWN.search(line) for line in _said):
        return None
    if not os.path.exists(_LIST):  # noqa: PTH110  # pathlib's is slower to import, and hides nothing
        return f"it could not tell which processor this is, as there is no {_LIST}"
    return "it could not tell which processor this is"


__all__ = ["ort", "unknown_processor"]
