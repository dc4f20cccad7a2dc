"""TensorRT and TensorRT-RTX: two packages with one API."""

from __future__ import annotations

import importlib
import platform
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...core.errors import BackendError, MissingDependencyError, missing_dependency
from ..gpu_info import Gpu, NoGpu

TensorRTName = Literal["tensorrt", "tensorrt-rtx"]
TENSORRT_PACKAGES: tuple[TensorRTName, ...] = get_args(TensorRTName)
OLDEST_TENSORRT = (10, 3)

_MOST_WARNINGS = 1000
_WITHOUT = "do without engines (motorvae-export --engine none, elsewhere --backend onnx)"


@dataclass(frozen=True, slots=True)
class TensorRTPackage:
    """One of the two packages, imported: its name as users write it, the module, its version."""

    name: TensorRTName
    trt: Any
    version: str

    @property
    def is_rtx(self) -> bool:
        """Whether this is TensorRT-RTX: portable engines that are finished on the target."""
        return self.name == "tensorrt-rtx"

    @property
    def title(self) -> str:
        """Name and version for a sentence."""
        return f"{title_of(self.name)} {self.version}"

    def supported_capabilities(self) -> tuple[str, ...] | None:
        """Return the compute capabilities that it builds for, or None where it lists none."""
        if not self.is_rtx:
            return None
        members = self.trt.ComputeCapability.__members__
        numbers = sorted(int(name[2:]) for name in members if name.startswith("SM"))
        return tuple(f"{number // 10}.{number % 10}" for number in numbers)

    def portable_capabilities(self) -> tuple[str, ...]:
        """Return the compute capabilities that one TensorRT-RTX engine serves unless narrowed.

        It builds for Ampere (8.0) and newer unless one capability is set.
        """
        return tuple(c for c in self.supported_capabilities() or () if float(c) >= 8)

    def objection_to(self, gpu: Gpu | NoGpu) -> str | None:
        """Return why it cannot run on this machine, as a clause, or None where it can."""
        if isinstance(gpu, NoGpu):
            return gpu.reason
        supported = self.supported_capabilities()
        if supported is None or gpu.compute_capability in supported:
            return None
        return (
            f"{self.title} does not list compute capability {gpu.compute_capability} ({gpu.name})"
        )


class EngineLog:
    """What the package called an error, in order, to be quoted when a call fails.

    Its `logger` is for a Builder, OnnxParser or Runtime; keep this object alive as long. Clear
    `errors` before a call, so that what is quoted comes from it. `warnings` has what it warned of.
    """

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        errors, warnings = self.errors, self.warnings

        class Listener(trt.ILogger):  # type: ignore[misc]  # the base is known at run time only
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if int(severity) <= int(trt.ILogger.ERROR):
                    errors.append(" ".join(message.split()))
                elif int(severity) == int(trt.ILogger.WARNING) and len(warnings) < _MOST_WARNINGS:
                    warnings.append(" ".join(message.split()))

        self.logger = Listener()

    def said(self) -> str:
        """Return the first of the errors, without its place in NVIDIA's sources."""
        if not self.errors:
            return "it gave no reason"
        return re.split(r"\s*\(?\bIn \S+ at ", self.errors[0])[0][:300]


def title_of(name: TensorRTName) -> str:
    """Return the product's name for a sentence."""
    return "TensorRT-RTX" if name == "tensorrt-rtx" else "TensorRT"


def _imported(module: str) -> Any:
    trt = importlib.import_module(module)
    if not hasattr(trt, "__version__"):  # an empty folder of that name imports, too
        raise ImportError(f"{trt.__path__} holds no TensorRT")
    return trt


def import_tensorrt(name: TensorRTName) -> TensorRTPackage:
    """Import one of the packages; a BackendError where it is older than `OLDEST_TENSORRT`.

    A MissingDependencyError where it is not installed, or a library of it is missing.
    """
    module = name.replace("-", "_")
    try:
        trt = _imported(module)
    except (ImportError, OSError) as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != module:
            cause = " ".join(str(error).split())
            raise MissingDependencyError(
                f"{name} is installed and does not load ({cause})",
                fix=f"install it again together with its libraries, or {_WITHOUT}",
            ) from error
        if name == "tensorrt" and platform.machine() == "aarch64":
            raise MissingDependencyError(
                "TensorRT is not in this Python environment",
                fix="on a Jetson it comes with JetPack, so make the environment with "
                f"--system-site-packages, or {_WITHOUT}",
            ) from error
        raise missing_dependency(title_of(name), name, extra=name, instead=_WITHOUT) from error
    package = TensorRTPackage(name, trt, str(trt.__version__))
    numbers = tuple(int(part) for part in package.version.split(".")[:2])
    if not package.is_rtx and numbers < OLDEST_TENSORRT:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        raise BackendError(
            f"{package.title} is older than {oldest}, which this motorVAE needs",
            fix="upgrade it (JetPack 6.2 brings 10.3)",
        )
    return package
