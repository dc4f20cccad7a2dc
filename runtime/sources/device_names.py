"""Cameras of this machine, and the names that stay theirs when they are plugged in again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.text import printable

LINKS = Path("/dev/v4l")  # where udev keeps its links, in `by-id` and `by-path`


@dataclass(frozen=True, slots=True)
class Camera:
    """A video device: its file, its driver's label, and the stable name that udev may have made.

    The number in the file's name depends on the order of plugging in.
    """

    path: Path
    label: str
    link: Path | None

    def __str__(self) -> str:
        return f"{self.path} ({self.label})"


def stable_path(device: Path, links: Path = LINKS) -> Path | None:
    """Return the link by which a device file is found again, or None.

    A name made of maker, model and serial number is preferred to one made of the socket.
    """
    target = device.resolve()
    found = [*sorted((links / "by-id").glob("*")), *sorted((links / "by-path").glob("*"))]
    return next((link for link in found if link.resolve() == target), None)


def cameras(root: Path = Path("/")) -> list[Camera]:
    """Return the video devices that the kernel lists, by their numbers; Linux only, else empty."""
    nodes = (root / "sys/class/video4linux").glob("video*")
    found = []
    for node in sorted(nodes, key=lambda node: (len(node.name), node.name)):
        try:
            # The device says what it is called, in bytes that the driver may cut off.
            label = printable((node / "name").read_bytes()[:256].decode("utf-8", "replace").strip())
        except OSError:
            label = "name unknown"
        path = root / "dev" / node.name
        found.append(Camera(path, label, stable_path(path, root / "dev/v4l")))
    return found
