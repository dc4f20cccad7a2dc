"""Every exception that motorVAE raises on purpose.

    MotorVAEError
    ├── ConfigError (ValueError)            an option is out of range or contradicts another
    │   └── UsageError                      a command line cannot be understood; exit code 2
    ├── MissingDependencyError (ImportError)  an extra is not installed, or two packages clash
    ├── SourceError (OSError)               images, video or camera cannot be opened or read
    │   ├── ImageError                      one image file cannot be decoded
    │   └── CameraError                     a live source failed or went away
    ├── DataError (ValueError)              a data set has nothing to learn from
    ├── CheckpointError (ValueError)        a training run cannot be read or does not fit
    ├── GraphError (ValueError)             a graph from elsewhere cannot be imported
    ├── BundleError (ValueError)            a bundle is missing, altered, or of another version
    ├── SigningError (ValueError)           a key or signature is damaged, or not to be trusted
    ├── BackendError (RuntimeError)         an inference engine cannot be opened or run
    │   ├── ProviderError                   the execution provider asked for did not load
    │   └── EngineError                     an engine cannot be built, or not be run here
    │       └── EngineFitError              one is missing, altered, or was built for elsewhere
    ├── VerificationError (RuntimeError)    an exported graph drifted past its limit
    ├── MeasurementError (RuntimeError)     a benchmark could not measure what was asked
    ├── StepFailedError (RuntimeError)      a command that another one runs failed
    ├── UserCodeError (RuntimeError)        a callback or a logger of the user's failed
    └── OutputError (OSError)               results cannot be written
        └── OutputLockedError               somebody else is writing them

Each message names the thing, quotes the value and ends with the next step, in one line. Where a
part of it is quoted elsewhere, such as in a row, the parts are given apart:

    CameraError("permission denied", context="cannot open camera 0", fix="join the group video")
    cannot open camera 0: permission denied; join the group video
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from .redaction import without_credentials

_LONGEST_REASON = 300
_PACKAGES_OF_MODULES = {
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
    "rerun": "rerun-sdk",
    "PIL": "pillow",
}
"""What is imported under another name than it is installed by."""
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,15}://\S+")


class MotorVAEError(Exception):
    """Root of the tree; a command turns it into one line and an exit code, usually 1.

    `problem` is what is wrong, as a clause that other sentences may quote. What failed because of
    it, `context`, comes before it, and the next step, `fix`, after it.
    """

    exit_code = 1

    def __init__(
        self, problem: str = "", *, context: str | None = None, fix: str | None = None
    ) -> None:
        message = f"{context}: {problem}" if context else problem
        super().__init__(f"{message}{'; ' if context else ': '}{fix}" if fix else message)
        self._problem, self.fix = problem, fix

    def __str__(self) -> str:
        return str(self.args[0])  # an ImportError has its text apart

    def clause(self) -> str:
        """Return what is wrong, without the context and the next step where those are apart."""
        return self._problem


class ConfigError(MotorVAEError, ValueError):
    """An option is out of range or contradicts another."""


class UsageError(ConfigError):
    """A command line cannot be understood."""

    exit_code = 2


class MissingDependencyError(MotorVAEError, ImportError):
    """An optional package is not installed, or two installed packages clash."""


class SourceError(MotorVAEError, OSError):
    """Images, a video or a camera cannot be opened or read."""


class ImageError(SourceError):
    """One image file cannot be decoded."""


class CameraError(SourceError):
    """A live source could not be opened, failed, or went away."""


class DataError(MotorVAEError, ValueError):
    """A data set is empty or nothing in it decodes."""


class CheckpointError(MotorVAEError, ValueError):
    """A training run cannot be read, or its weights do not fit the model."""


class GraphError(MotorVAEError, ValueError):
    """A graph from elsewhere cannot be brought into the form that bundles have."""


class BundleError(MotorVAEError, ValueError):
    """A bundle is missing, incomplete, altered, or of another schema version."""


class SigningError(MotorVAEError, ValueError):
    """A key, the store of trusted keys, or a signature is damaged or not to be trusted."""


class BackendError(MotorVAEError, RuntimeError):
    """An inference engine cannot be opened, or cannot run what it was given."""


class ProviderError(BackendError):
    """The execution provider that was asked for did not load."""


class EngineError(BackendError):
    """A TensorRT engine cannot be built, does not fit this machine, or is not what it says."""


class EngineFitError(EngineError):
    """An engine is missing, altered, or was built for another machine: building it again helps."""


class VerificationError(MotorVAEError, RuntimeError):
    """An exported graph drifted past its limit."""


class MeasurementError(MotorVAEError, RuntimeError):
    """A benchmark could not measure what was asked for."""


class StepFailedError(MotorVAEError, RuntimeError):
    """A command that another one runs failed; it has said why itself."""


class UserCodeError(MotorVAEError, RuntimeError):
    """A callback or a logger that the user gave failed."""


class OutputError(MotorVAEError, OSError):
    """Results cannot be written."""


class OutputLockedError(OutputError):
    """Another process, or another part of this one, is writing the same output."""


def missing_dependency(
    feature: str, package: str, *, extra: str, instead: str | None = None
) -> MissingDependencyError:
    """Return the error for a feature, such as "training", whose package is not installed.

    `extra` is the extra of motorvae that brings it; `instead`, what to do without it.
    """
    way_round = f", or {instead}" if instead else ""
    return MissingDependencyError(
        f"{feature} needs the package {package}, which is not installed",
        fix=f"pip install 'motorvae[{extra}]'{way_round}",
    )


@contextlib.contextmanager
def needed_for(
    feature: str, *, extra: str, package: str | None = None, instead: str | None = None
) -> Iterator[None]:
    """Turn an import in the block that finds no package into `missing_dependency` of that one."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "a package").partition(".")[0]
        absent = package or _PACKAGES_OF_MODULES.get(name) or name.replace("_", "-")
        raise missing_dependency(feature, absent, extra=extra, instead=instead) from error


@contextlib.contextmanager
def writing_output(path: Path) -> Iterator[None]:
    """Turn what the system refuses within the block into an OutputError that names the output."""
    try:
        yield
    except MotorVAEError:
        raise  # some of ours are OSErrors too, and already say what is wrong
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; "
            "choose another place or make room there"
        ) from error


def reason_of(error: Exception) -> str:
    """Return what went wrong in one short line: the clause of our errors, the kind of others.

    Texts of libraries may repeat an address, so what looks like one is shown without credentials.
    """
    if isinstance(error, MotorVAEError):
        return error.clause()
    text = " ".join(str(error)[:_LONGEST_REASON].split())
    shown = _ADDRESS.sub(lambda found: without_credentials(found[0]), text)
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def next_command(*words: object) -> str:
    """Return a command that can be pasted: each word quoted where a shell would split it."""
    return " ".join(_quoted(str(word)) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in word.encode(errors="surrogateescape")
    )
    return f"$'{plain}'"


def sentence_list(items: Sequence[str]) -> str:
    """Return `items` joined by commas for use in a message, or "none"."""
    return ", ".join(items) or "none"


def shortened(items: Sequence[str], most: int = 5) -> str:
    """Return `items` as `sentence_list` does, of many only the first `most` and how many more."""
    more = len(items) - most
    return f"{sentence_list(items[:most])}{f' and {more} more' if more > 0 else ''}"
