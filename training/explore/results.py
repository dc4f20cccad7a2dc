"""Result: what a verb found, as pictures, numbers and arrays, and how it is written."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.core.atomic_files import check_writable, replaced_file
from ...runtime.core.documents import json_from_file
from ...runtime.core.errors import DataError, OutputError, writing_output
from ...runtime.core.packages import own_version
from ...runtime.core.text import printable_values

SCHEMA_VERSION = 1
_MOST_JSON = 64 << 20
_OURS = re.compile(r"[a-z0-9-]+\.(?:png|gif|mp4|npz|json)")


@dataclass(frozen=True)
class Result:
    """What a verb of `motorvae explore` found.

    Attributes:
        verb: Which.
        numbers: What the `.json` file holds under `numbers`: floats, texts, lists and dictionaries
            of such; what does not exist is None.
        arrays: What the `.npz` file holds.
        lines: What matters, a line each.
        files: What was written, in the order of importance; empty until then.
        pictures: Content of the picture files, by their names.
    """

    verb: str
    numbers: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]
    lines: Sequence[str]
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = ()

    def saved(self, folder: Path, options: object) -> Result:
        """Write pictures, `VERB.json` and `VERB.npz`, each whole or not at all; return with files.

        The options, a dataclass, go into the JSON file. An OutputError where something cannot be
        written.
        """
        document = f"{self.verb}.json"
        names = [*self.pictures, document, *([f"{self.verb}.npz"] if self.arrays else [])]
        content = {**self.pictures, document: self._json(options, names)}
        if self.arrays:
            content[f"{self.verb}.npz"] = self._npz()
        earlier = _files_of(folder / document)
        with writing_output(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for name in content:
            check_writable(folder / name)
        for name, data in content.items():
            with replaced_file(folder / name) as path:
                path.write_bytes(data)
        for name in earlier - {*names}:  # of which this time there are fewer
            (folder / name).unlink(missing_ok=True)
        return dataclasses.replace(self, files=tuple(folder / name for name in content))

    def _json(self, options: object, names: Sequence[str]) -> bytes:
        document = {
            "schema_version": SCHEMA_VERSION,
            "motorvae": own_version(),
            "verb": self.verb,
            "options": dataclasses.asdict(options),  # type: ignore[call-overload]  # one of ours
            "numbers": self.numbers,
            "lines": list(self.lines),
            "files": list(names),
        }
        text = json.dumps(printable_values(_plain(document)), indent=2, ensure_ascii=False)
        return (text + "\n").encode()

    def _npz(self) -> bytes:
        file = io.BytesIO()
        arrays: dict[str, Any] = {name: np.asarray(one) for name, one in self.arrays.items()}
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()


def check_output(folder: Path, verb: str) -> None:
    """Raise an OutputError where a verb's files could not be written to a folder."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputError(f"{folder} exists and is not a folder: choose another place")
    check_writable(folder / f"{verb}.json")


def _files_of(document: Path) -> set[str]:
    """Return which files an earlier result of the same verb wrote beside its document."""
    if not document.is_file():
        return set()
    try:
        content = json_from_file(document, error=DataError, again="", most_bytes=_MOST_JSON)
    except DataError:
        return set()  # somebody else's, which is replaced and not believed
    names = content.get("files") if isinstance(content, dict) else None
    known = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    stem = document.stem.rstrip("s")
    return {name for name in known if _OURS.fullmatch(name) and name.startswith(stem)}


def _plain(value: Any) -> Any:
    """Return numbers, texts and paths as JSON has them: no NaN, no NumPy, no tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
