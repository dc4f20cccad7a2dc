"""Files that are read without trusting them: versioned JSON documents, and arrays in .npz."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from .atomic_files import put_new, replaced_file
from .errors import MotorVAEError, sentence_list, writing_output
from .spec import StrictModel, problem_of
from .system.temporaries import temporary_beside
from .text import printable_values

if TYPE_CHECKING:
    import numpy.typing as npt

Document = TypeVar("Document", bound=StrictModel)

MOST_JSON = 4 << 20
"""A manifest with every precision has 60 kB; the largest document of any bundle or run is this."""
MOST_ARRAYS = 512 << 20
"""All arrays of one file in memory: 256 images of 1024 x 1024 pixels are half of that."""
MOST_ROWS = 65536
"""Of an axis whose length nothing else says."""
_MOST_MEMBERS, _MOST_DIRECTORY = 64, 64 << 10
_MOST_DIGITS = 20  # of a whole number: those of 2^64
_MOST_HEADER = 4096
_END = struct.Struct("<4s4H2LH")  # "end of central directory" of a ZIP archive without a comment
_LOCATOR_BYTES = 20  # what would stand before it, and say that other numbers count
_MEMBER_BYTES = 30  # in front of a member, at least
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:f[248]|[iu][1248]|b1|U\d{1,4}))', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\}\s*"
)
"""What NumPy writes in front of an array; nothing of it is evaluated."""
_FLOAT32 = "float32"
_KINDS = {"f": "finite floats", _FLOAT32: "finite floats", "u1": "uint8", "U": "text"}
_UNREADABLE = (
    *(OSError, ValueError, LookupError, EOFError, RuntimeError, ArithmeticError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What parsers raise on bytes that are not what they say they are."""


class Form(NamedTuple):
    """What an array must be, to be read at all.

    `kind` is "f" for floats of any size, "u1" for uint8, and "U" for text, as NumPy has them, and
    "float32" for floats of any size that float32 holds, as which they are given. An axis is a
    length, or the name of one: where it recurs, in this or another array, it is as long.
    """

    kind: str
    shape: tuple[int | str, ...]
    needed: bool = True


@contextlib.contextmanager
def opened_regular(
    path: Path, *, most_bytes: int | None, error: type[MotorVAEError], again: str
) -> Iterator[IO[bytes]]:
    """Open a file that is one: no pipe, device or folder, and of so many bytes at most.

    Else, and where it cannot be opened, `error` says what it is and ends with `again`.
    """
    try:
        # Without it, opening a pipe that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as cause:
        raise error(f"cannot read {path}: {_reason(cause)}; {again}") from cause
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        what = "Is a directory" if stat.S_ISDIR(facts.st_mode) else "it is no regular file"
        raise error(f"cannot read {path}: {what}; {again}")
    with os.fdopen(handle, "rb") as file:
        if most_bytes is not None and facts.st_size > most_bytes:
            raise error(
                f"{path} has {facts.st_size} bytes, and such a file has {most_bytes} at most: "
                f"{again}"
            )
        yield file


def bytes_of_file(path: Path, *, most_bytes: int, error: type[MotorVAEError], again: str) -> bytes:
    """Read a regular file of so many bytes at most, or raise `error`; see `opened_regular`."""
    with opened_regular(path, most_bytes=most_bytes, error=error, again=again) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size + 1)  # memory is taken for what is asked, whatever comes
            if len(data) > size:  # it has grown, or does not say its size
                data += file.read(most_bytes + 1 - len(data))
        except (OSError, MemoryError) as cause:
            raise error(f"cannot read {path}: {_reason(cause)}; {again}") from cause
    if len(data) > most_bytes:
        raise error(f"{path} has more than {most_bytes} bytes: {again}")
    return data


def json_from_file(
    path: Path, *, error: type[MotorVAEError], again: str, most_bytes: int = MOST_JSON
) -> Any:
    """Read JSON as RFC 8259 has it: one meaning for every reader, or `error`.

    Refused are two equal keys in one object, numbers that nothing can hold, NaN, text that is not
    UTF-8, and nesting that is deeper than a parser's stack.
    """
    data = bytes_of_file(path, most_bytes=most_bytes, error=error, again=again)
    return _json_of(data, path, error=error, again=again)


def _json_of(data: bytes, path: Path, *, error: type[MotorVAEError], again: str) -> Any:
    try:
        content = orjson.loads(data)  # strict, where Python's own takes NaN and half characters
        json.loads(data, object_pairs_hook=_with_single_keys, parse_int=_bounded_int)
    except RecursionError as cause:
        raise error(f"{path} is not JSON (it is nested too deeply): {again}") from cause
    except ValueError as cause:
        raise error(f"{path} is not JSON ({_reason(cause)[:200]}): {again}") from cause
    except MemoryError as cause:
        raise error(f"cannot read {path}: {_reason(cause)}; {again}") from cause
    return content


def _with_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return content


def _bounded_int(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def document_from_json(
    path: Path,
    kind: type[Document],
    *,
    error: type[MotorVAEError],
    again: str,
    most_bytes: int = MOST_JSON,
) -> Document:
    """Read a document whose field `schema_version` is a literal of all versions that are read.

    Where it is missing, not JSON, of another version, or does not fit, `error` names the file, the
    first problem, and how to make it anew, such as "export the bundle again".
    """
    data = bytes_of_file(path, most_bytes=most_bytes, error=error, again=again)
    return document_from_bytes(data, path, kind, error=error, again=again)


def document_from_bytes(
    data: bytes, path: Path, kind: type[Document], *, error: type[MotorVAEError], again: str
) -> Document:
    """Return the document in what was read from a file; see `document_from_json`."""
    content = _json_of(data, path, error=error, again=again)
    found = content.get("schema_version") if isinstance(content, dict) else None
    known = get_args(kind.model_fields["schema_version"].annotation)
    if found not in known:
        raise error(
            f"{path} has schema_version={repr(found)[:40]}, and this motorVAE reads {max(known)}: "
            f"{again} with this version"
        )
    try:
        return kind.model_validate_json(data)
    except ValidationError as cause:
        raise error(f"{path}: {problem_of(cause)}; {again}") from cause
    except (RecursionError, ArithmeticError, MemoryError) as cause:
        raise error(f"{path} does not fit: {_reason(cause)}; {again}") from cause


def json_from_document(document: StrictModel, *, indent: int | None = None) -> str:
    """Return a document as JSON that ends its last line; names that are no UTF-8 are spelt out."""
    try:
        return document.model_dump_json(indent=indent) + "\n"
    except PydanticSerializationError:
        values = printable_values(document.model_dump(mode="json"))
        return json.dumps(values, indent=indent, ensure_ascii=False) + "\n"


def save_document(path: Path, document: StrictModel, *, indent: int | None = None) -> None:
    """Write a document, whole or not at all; an `OutputError` where it cannot be written."""
    with replaced_file(path) as temporary:
        temporary.write_text(json_from_document(document, indent=indent), encoding="utf-8")


def save_new_document(
    path: Path, document: StrictModel, *, indent: int | None = None
) -> Path | None:
    """Write one that overwrites nothing; return where an earlier one is kept, if there was one."""
    with writing_output(path), temporary_beside(path) as temporary:
        temporary.write_text(json_from_document(document, indent=indent), encoding="utf-8")
        return put_new(temporary, path)


def arrays_from_npz(
    path: Path,
    forms: Mapping[str, Form],
    *,
    error: type[MotorVAEError],
    again: str,
    most_bytes: int = MOST_ARRAYS,
) -> dict[str, npt.NDArray[Any]]:
    """Read those arrays of a file that `forms` names; what else it holds is not looked at.

    Their types and shapes are compared, and all their bytes counted, before memory is taken for
    any; numbers must be finite. Where that fails, or the file is missing, damaged, encrypted, or
    lacks one that is needed, `error` says how to make it anew.
    """
    with opened_regular(path, most_bytes=most_bytes, error=error, again=again) as file:
        try:
            _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                members = _members_of(archive, [f"{name}.npy" for name in forms])
                return _arrays_of(archive, members, forms, most_bytes)
        except MotorVAEError:
            raise  # some of ours are ValueErrors, too
        except _UNREADABLE as cause:
            raise error(f"cannot read {path}: {_reason(cause)}; {again}") from cause


def _check_directory(file: IO[bytes]) -> None:
    """Raise ValueError unless the archive lists few members, as its very last bytes say."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    tail = file.read()
    if tail[: -_END.size].startswith(b"PK\6\7"):
        raise ValueError("it is a ZIP archive in the form for 4 GB and more")
    if tail[:6] == b"\x93NUMPY" or len(tail) < _END.size:
        raise ValueError("it is no archive of arrays")
    mark, _, _, _, count, directory, _, comment = _END.unpack(tail[-_END.size :])
    if mark != b"PK\5\6" or comment:
        raise ValueError("it is no archive of arrays, or cut short")
    if count > _MOST_MEMBERS or directory > _MOST_DIRECTORY:
        raise ValueError(f"it lists {count} members, and an archive of arrays {_MOST_MEMBERS}")


def _members_of(archive: zipfile.ZipFile, names: Iterable[str]) -> dict[str, zipfile.ZipInfo]:
    """Return the members of these names, once no two of all share bytes, a name, or a secret."""
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    end = 0
    for info in infos:
        if info.flag_bits & 1:
            raise ValueError(f"{info.filename[:40]!r} is encrypted")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ValueError(f"{info.filename[:40]!r} is compressed in another way than deflate")
        if info.header_offset < end:
            raise ValueError(f"{info.filename[:40]!r} overlaps another member")
        end = info.header_offset + _MEMBER_BYTES + info.compress_size
    found = {info.filename: info for info in infos}
    if len(found) < len(infos):
        raise ValueError("it has two members of one name")
    return {name.removesuffix(".npy"): found[name] for name in names if name in found}


def _arrays_of(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    forms: Mapping[str, Form],
    most_bytes: int,
) -> dict[str, npt.NDArray[Any]]:
    """Read the headers of all, compare them, and then the numbers."""
    import numpy as np  # noqa: PLC0415  # the doctor reads a bundle where numpy is missing

    needed = [name for name, form in forms.items() if form.needed]
    if lacking := [repr(name) for name in needed if name not in members]:
        raise ValueError(f"it lacks {sentence_list(lacking)}")
    if (total := sum(info.file_size for info in members.values())) > most_bytes:
        raise ValueError(f"it unfolds to {total} bytes, and may to {most_bytes}")
    axes: dict[str, int] = {}
    arrays: dict[str, npt.NDArray[Any]] = {}
    streams = {}
    for name, info in members.items():
        stream = streams[name] = archive.open(info)
        start, dtype, is_fortran, shape = _header_of(stream)
        if problem := _misfit(forms[name], dtype, shape, axes):
            raise ValueError(f"{name!r} is {np.dtype(dtype).name} {shape}, expected {problem}")
        if start + math.prod(shape) * np.dtype(dtype).itemsize != info.file_size:
            raise ValueError(f"{name!r} has not the bytes of {np.dtype(dtype).name} {shape}")
        order = "F" if is_fortran else "C"
        arrays[name] = np.empty(shape, dtype, order)  # type: ignore[call-overload]
    for name, stream in streams.items():
        with stream:
            flat = arrays[name].reshape(-1, order="A")
            rest = memoryview(flat.view(np.uint8))  # type: ignore[arg-type]  # a Buffer from 3.12 on
            while rest and (taken := stream.read(min(len(rest), 1 << 20))):
                rest[: len(taken)] = taken
                rest = rest[len(taken) :]
            if rest or stream.read(1):  # the last read is what compares the checksum
                raise EOFError(f"{name!r} is cut short")
        if not arrays[name].dtype.isnative:
            arrays[name] = arrays[name].astype(arrays[name].dtype.newbyteorder("="))
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name!r} holds NaN or Inf")
        if forms[name].kind == _FLOAT32:
            with np.errstate(over="ignore"):  # which is looked for below
                arrays[name] = arrays[name].astype(np.float32, copy=False)
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name!r} holds numbers beyond float32")
    return arrays


def _header_of(stream: IO[bytes]) -> tuple[int, str, bool, tuple[int, ...]]:
    """Return where numbers begin, their dtype, whether in Fortran's order, and the shape."""
    start = stream.read(8)
    width = 2 if start[6:7] == b"\1" else 4
    length = int.from_bytes(stream.read(width), "little")
    if start[:6] != b"\x93NUMPY" or length > _MOST_HEADER:
        raise ValueError("a member is no array")
    found = _HEADER.fullmatch(stream.read(length))
    if found is None:
        raise ValueError("an array is of a type that is not read, such as Python objects (pickle)")
    dtype, is_fortran, shape = found.groups()
    axes = tuple(int(axis) for axis in shape.replace(b",", b" ").split())
    return 8 + width + length, dtype.decode(), is_fortran == b"True", axes


def _misfit(form: Form, dtype: str, shape: tuple[int, ...], axes: dict[str, int]) -> str:
    """Return what an array should be, or nothing; `axes` gathers the lengths of named axes."""
    same_rank = len(shape) == len(form.shape)
    kind = "f" if form.kind == _FLOAT32 else form.kind
    fits = same_rank and dtype.lstrip("<>|=").startswith(kind)
    for axis, length in zip(form.shape, shape, strict=True) if same_rank else ():
        wanted = axes.setdefault(axis, length) if isinstance(axis, str) else axis
        fits = fits and length == wanted <= MOST_ROWS
    if fits:
        return ""
    known = ", ".join(
        str(axes.get(axis, axis) if isinstance(axis, str) else axis) for axis in form.shape
    )
    return f"{_KINDS[form.kind]} ({known})"


def _reason(cause: BaseException) -> str:
    if isinstance(cause, MemoryError) and not str(cause):
        return "there is not enough memory"
    text = str(getattr(cause, "strerror", None) or cause).splitlines()
    return text[0] if text else type(cause).__name__
