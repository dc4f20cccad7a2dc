"""One file of a bundle: in its place, of its size, and byte for byte what the manifest says."""

from __future__ import annotations

from pathlib import Path

from ..core.atomic_files import sha256_of
from ..core.errors import BundleError

_AGAIN = "copy the bundle again, or export it again"


def check_place(folder: Path, file: str, size_bytes: int) -> None:
    """Make sure that a file lies inside the bundle and has its size.

    Raises:
        BundleError: It does not, is missing, or cannot be read.
    """
    path = folder / file
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and not Path(file).is_absolute()
        is_readable = inside and path.is_file()
        found_bytes = path.stat().st_size if is_readable else 0
    except (OSError, ValueError, RuntimeError) as error:  # a link to itself, a NUL, too long
        raise _unreadable(folder, file, error) from error
    if not inside:
        raise BundleError(
            f"the manifest of {folder} names {file!r}, which leaves the bundle: do not use it"
        )
    if not is_readable:
        raise BundleError(f"{path} is missing: copy the whole bundle again, or export it again")
    if found_bytes != size_bytes:
        raise BundleError(
            f"{path} has {found_bytes} bytes, and the manifest says {size_bytes}: {_AGAIN}"
        )


def check_bytes(folder: Path, file: str, sha256: str) -> None:
    """Make sure that a file that is in its place was not altered.

    Raises:
        BundleError: It was, or cannot be read.
    """
    try:
        digest = sha256_of(folder / file)
    except OSError as error:
        raise _unreadable(folder, file, error) from error
    if digest != sha256:
        raise BundleError(
            f"{folder / file} was altered: sha256 {digest[:12]}..., and the manifest says "
            f"{sha256[:12]}...; {_AGAIN}"
        )


def _unreadable(folder: Path, file: str, error: Exception) -> BundleError:
    return BundleError(f"cannot read {file[:80]!r} of {folder}: {error}; export the bundle again")
