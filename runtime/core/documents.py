"""Files that are read without trusting them: versioned JSON documents, and arrays in .npz."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args
from zipfile import BadZipFile

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from .atomic_files import replaced_file
from .errors import MotorVAEError, sentence_list
from .spec import StrictModel, problem_of
from .text import printable_values

if TYPE_CHECKING:
    import numpy.typing as npt

Document = TypeVar("Document", bound=StrictModel)


def document_from_json(
    path: Path, kind: type[Document], *, error: type[MotorVAEError], again: str
) -> Document:
    """Read a document whose field `schema_version` is a literal of all versions that are read.

    Where it is missing, not JSON, of another version, or does not fit, `error` names the file, the
    first problem, and how to make it anew, such as "export the bundle again".
    """
    try:
        data = path.read_bytes()
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}; {again}") from cause
    return document_from_bytes(data, path, kind, error=error, again=again)


def document_from_bytes(
    data: bytes, path: Path, kind: type[Document], *, error: type[MotorVAEError], again: str
) -> Document:
    """Return the document in what was read from a file; see `document_from_json`."""
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as cause:
        raise error(f"{path} is not JSON ({cause}): {again}") from cause
    found = content.get("schema_version") if isinstance(content, dict) else None
    known = get_args(kind.model_fields["schema_version"].annotation)
    if found not in known:
        raise error(
            f"{path} has schema_version={str(found)[:40]}, and this motorVAE reads {max(known)}: "
            f"{again} with this version"
        )
    try:
        # Of a key that is there twice, the two parsers need not agree on which counts.
        return kind.model_validate_json(orjson.dumps(content))
    except ValidationError as cause:
        raise error(f"{path}: {problem_of(cause)}; {again}") from cause


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


def arrays_from_npz(
    path: Path, keys: Sequence[str] | None = None, *, error: type[MotorVAEError], again: str
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of a file, whole and without pickle: those named by `keys`, by default all.

    Where it is missing, cut short, lacks a key, or holds something else, `error` says how to make
    it anew.
    """
    import numpy as np  # noqa: PLC0415  # the doctor reads a bundle where numpy is missing

    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise error(f"{path} is one array without a name: {again}")
            with content:
                return {key: content[key] for key in (content if keys is None else keys)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as cause:
        if isinstance(cause, MotorVAEError):
            raise  # ours are ValueErrors too, and already say what is wrong
        what = "arrays" if keys is None else sentence_list([repr(key) for key in keys])
        raise error(f"cannot read {what} from {path}: {cause}; {again}") from cause
