"""Versioned JSON documents: written whole or not at all, read with suspicion."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import ValidationError

from .atomic_files import replaced_file
from .errors import MotorVAEError
from .spec import StrictModel, problem_of

Document = TypeVar("Document", bound=StrictModel)


def document_from_json(
    path: Path,
    kind: type[Document],
    *,
    version: int,
    earlier: Collection[int] = (),
    error: type[MotorVAEError],
    again: str,
) -> Document:
    """Read a document whose first question is its `schema_version`.

    Args:
        path: The file.
        kind: What it must hold.
        version: The `schema_version` that is written.
        earlier: Further ones that are read: of documents that lack what has a default since.
        error: What is raised.
        again: How to make the file anew, such as "export the bundle again".

    Raises:
        MotorVAEError: As `error`: the file is missing, not JSON, of another version, or does not
            fit; the message names the file, the first problem and `again`.
    """
    try:
        data = path.read_bytes()
        content = orjson.loads(data)
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}; {again}") from cause
    except orjson.JSONDecodeError as cause:
        raise error(f"{path} is not JSON ({cause}): {again}") from cause
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != version and found not in earlier:
        raise error(
            f"{path} has schema_version={str(found)[:40]}, and this motorVAE reads {version}: "
            f"{again} with this version"
        )
    try:
        return kind.model_validate_json(data)
    except ValidationError as cause:
        raise error(f"{path}: {problem_of(cause)}; {again}") from cause


def save_document(path: Path, document: StrictModel, *, indent: int | None = None) -> None:
    """Write a document, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with replaced_file(path) as temporary:
        temporary.write_text(document.model_dump_json(indent=indent) + "\n", encoding="utf-8")
