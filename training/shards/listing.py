"""Which tar shards a text names: a folder of them, a pattern, or numbers in braces."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ...runtime.bulk.inputs import shown_text, written_out
from ...runtime.bulk.tar_shards import SHARD_SUFFIXES
from ...runtime.core.errors import SourceError
from ...runtime.core.text import printable
from ...runtime.pixels.files.image_kinds import IMAGE_SUFFIXES
from ...runtime.sources.image_list import natural_key

PLAIN_SUFFIX = ".tar"
_PACKED = tuple(suffix for suffix in SHARD_SUFFIXES if suffix != PLAIN_SUFFIX)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def names_shards(text: str) -> bool:
    """Return whether a text names tar shards, there or not: by its ending, or as a folder of them.

    A folder in which there is a picture, too, is one of pictures.
    """
    folder = Path(os.path.expanduser(text))  # noqa: PTH111  # leaves an unknown ~user as it is
    if _is_folder(folder):
        return bool(_shards_below(folder))
    return text.lower().endswith(SHARD_SUFFIXES)


def shards_named(text: str, option: str) -> list[Path]:
    """List the shards that a text names, in their order; they need not all be there.

    Raises:
        SourceError: None of them is there, or they lie where they cannot be read from the middle.
        ConfigError: The numbers in braces do not count up.
    """
    shown = f"{option}={printable(shown_text(text))}"
    if _ADDRESS.match(text):
        raise SourceError(
            f"{shown} is an address, and training reads its shards again in each epoch: copy or "
            "mount them, and name the files"
        )
    if text.lower().endswith(_PACKED):
        raise SourceError(
            f"{shown} is compressed, and cannot be read from the middle: unpack it to .tar"
        )
    folder = Path(os.path.expanduser(text))  # noqa: PTH111  # as above
    if _is_folder(folder):
        return _shards_below(folder)
    found = [Path(os.path.expanduser(one)) for one in written_out(text)]  # noqa: PTH111
    reasons = map(why_no_file, found)
    first = next(reasons)
    if first and all(reasons):
        raise SourceError(f"{shown} {first}: give tar shards that are there")
    return found


def why_no_file(path: Path) -> str:
    """Return why there is no regular file at a path, as the end of a sentence; "" where one is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError:  # a name that no file can have
        return "does not exist"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def _is_folder(path: Path) -> bool:
    # `Path.is_dir` raises an error in a folder that may not be searched.
    return os.path.isdir(path)  # noqa: PTH112


def _shards_below(folder: Path) -> list[Path]:
    """Return the shards below a folder in natural order; none where there is a picture, too."""
    found: list[Path] = []
    for base, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # of many names
            if name.startswith(".") or suffix not in {PLAIN_SUFFIX, *IMAGE_SUFFIXES}:
                continue
            if suffix != PLAIN_SUFFIX:
                return []
            found.append(Path(base, name))
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))
