"""Where latent rows go: what every sink can do, and how one is opened from what a user typed."""

from __future__ import annotations

import abc
import re
from collections.abc import Callable
from pathlib import Path

from .closing import Closing
from .credentials import without_credentials
from .errors import ConfigError, OutputError, missing_dependency
from .files import check_replaceable_file, check_writable
from .rows import Row, RunFacts

STANDARD_OUTPUT = "-"
LOOPBACK = "127.0.0.1"
_SUFFIXES = (".jsonl", ".csv", ".npz", ".parquet", ".mcap")
_SCHEMES = ("zmq", "udp")
# Package and extra of what is not always installed.
_OPTIONAL = {
    ".parquet": ("pyarrow", "parquet"),
    ".mcap": ("mcap", "mcap"),
    "zmq": ("pyzmq", "zmq"),
}


class Sink(Closing):
    """Somewhere that rows go. Each is used by one thread only.

    Attributes:
        name: What to call it in messages; never holds credentials.
        rows: How many rows it took. Where what is kept back cannot be written, it falls to the
            number of rows that are in the output.
        set_aside_as: Where an earlier output of that name was moved to, if there was one.
    """

    name: str = ""
    rows: int = 0
    set_aside_as: Path | None = None

    @abc.abstractmethod
    def write(self, row: Row) -> None:
        """Take one row.

        Raises:
            OutputError: It could not be written whole, and is not in the output.
        """

    def flush(self) -> None:
        """Give away what is kept back; called at least twice a second, also where no row comes.

        Raises:
            OutputError: It could not be written.
        """

    def _failed(self, error: OSError) -> OutputError:
        """Return the error of this sink for one of the system."""
        if isinstance(error, OutputError):
            return error
        written = f"the {self.rows} rows before it are whole; " if self.rows else ""
        return OutputError(
            f"cannot write {self.name}: {error.strerror or error}; {written}"
            "make room or choose another --output"
        )


def check_output(output: str) -> None:
    """Refuse an output that no sink takes, before anything is opened.

    Raises:
        ConfigError: Its suffix or scheme is unknown, or it is no address.
        MissingDependencyError: The package that writes it is not installed.
        OutputError: A folder or a device has that name, or nothing can be written there.
    """
    kind = _kind_of(output)
    _sink_class(kind)
    if kind in _SCHEMES:
        address_of(output)
    elif kind != STANDARD_OUTPUT:
        check_replaceable_file(Path(output), or_folder=kind == ".parquet")
        check_writable(Path(output))


def open_sink(output: str, facts: RunFacts) -> Sink:
    """Open what `output` names: `-`, a file by its suffix, or an address by its scheme.

    An earlier file of that name is kept under the first free number, `Sink.set_aside_as`.

    Raises:
        ConfigError: No sink takes such an output, or rows of this run do not fit it.
        MissingDependencyError: The package that writes it is not installed.
        OutputError: It cannot be created.
    """
    check_output(output)
    return _sink_class(_kind_of(output))(output, facts)


def address_of(output: str) -> tuple[str, int]:
    """Return host and port of `SCHEME://HOST:PORT`; no host means the loopback interface.

    Raises:
        ConfigError: It is something else.
    """
    found = re.fullmatch(r"\w+://(?:\[([0-9a-fA-F:.]+)\]|([^][:/@?#\s]*)):([0-9]{1,5})", output)
    if found is None or int(found[3]) > 65535:
        scheme = output.partition("://")[0]
        raise ConfigError(
            f"output={without_credentials(output)!r}: write {scheme}://HOST:PORT, or "
            f"{scheme}://:PORT for this machine only, without a user name or a path"
        )
    return found[1] or found[2] or LOOPBACK, int(found[3])


def _kind_of(output: str) -> str:
    """Return `-`, the suffix or the scheme."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", output)
    kind = scheme[1] if scheme else output if output == STANDARD_OUTPUT else Path(output).suffix
    if kind in (_SCHEMES if scheme else (*_SUFFIXES, STANDARD_OUTPUT)):
        return kind
    shown = without_credentials(output) if scheme else output
    raise ConfigError(
        f"output={shown!r}: name a file ending in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, "
        "an address zmq://HOST:PORT or udp://HOST:PORT, or - for stdout"
    )


def _sink_class(kind: str) -> Callable[[str, RunFacts], Sink]:  # noqa: PLR0911  # one return a kind
    """Import the sink of a kind; each is a module about one package or format."""
    try:
        match kind:
            case ".csv":
                from .sink_lines import CsvSink  # noqa: PLC0415

                return CsvSink
            case ".npz":
                from .sink_npz import NpzSink  # noqa: PLC0415

                return NpzSink
            case ".parquet":
                from .sink_parquet import ParquetSink  # noqa: PLC0415

                return ParquetSink
            case ".mcap":
                from .sink_mcap import McapSink  # noqa: PLC0415

                return McapSink
            case "zmq":
                from .sink_zmq import ZmqSink  # noqa: PLC0415

                return ZmqSink
            case "udp":
                from .sink_udp import UdpSink  # noqa: PLC0415

                return UdpSink
            case _:
                from .sink_lines import JsonLinesSink  # noqa: PLC0415

                return JsonLinesSink
    except ModuleNotFoundError as error:
        package, extra = _OPTIONAL[kind]
        raise missing_dependency(
            f"--output {kind}", package, extra=extra, instead="choose a file ending in .jsonl"
        ) from error
