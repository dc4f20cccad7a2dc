"""The engine inspector's one-line form, as a builder logs it, turned into its JSON form.

A builder that is told to be verbose logs what it made in the words of the inspector. TensorRT-RTX
does so without a GPU, and so its form can be recorded here; the JSON needs a GPU to be asked for.
The key names are the same, in the library's strings too: only quotes and braces are added.
"""

from __future__ import annotations

import json
import re
from typing import Any

_KEY = re.compile(r"(?:^|, ?)(?P<key>[A-Z][A-Za-z/ -]*): ?")


def json_from_log(text: str) -> str:
    """Return the inspector's JSON of what a builder logged, which begins with "Layers:"."""
    document: dict[str, Any] = {}
    section: Any = None
    for line in text.split("\n"):  # metadata holds other separators
        if line in {"Layers:", "I/O Tensors:", "Engine Metadata:"}:
            section = document.setdefault(line[:-1], [] if line != "Engine Metadata:" else {})
        elif line.strip() and isinstance(section, list):
            section.append(_object(line.strip()))
        elif line.strip():
            section.update(_object(line.strip()))
    return json.dumps(document)


def _object(text: str) -> dict[str, Any]:
    starts = [match for match in _KEY.finditer(text) if _depth(text[: match.start()]) == 0]
    ends = [match.start() for match in starts[1:]] + [len(text)]
    return {
        match["key"]: _value(text[match.end() : end].strip())
        for match, end in zip(starts, ends, strict=True)
    }


def _value(text: str) -> Any:
    if text.startswith("[ {"):
        parts = re.split(r"\}, \{", text.removeprefix("[ {").removesuffix("]").rstrip(" }"))
        return [_object(part.strip()) for part in parts]
    if text == "[]":
        return []
    if re.fullmatch(r"\[-?\d+(,-?\d+)*\]", text):
        return json.loads(text)
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def _depth(text: str) -> int:
    return sum(text.count(sign) for sign in "[{") - sum(text.count(sign) for sign in "]}")
