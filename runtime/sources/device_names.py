"""Cameras of this machine, and the names that stay theirs when they are plugged in again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LINKS = Path("/dev/v4l")
NODES = Path("/sys/class/video4linux")


@dataclass(frozen=True, slots=True)
class Camera:
    """A video device.

    Attributes:
        path: Its device file, whose number depends on the order of plugging in.
        label: What its driver calls it.
        link: Its stable name, or None where udev made none.
    """

    path: Path
    label: str
    link: Path | None


def stable_path(device: Path, links: Path = LINKS) -> Path | None:
    """Return the link by which a device is found again, or None.

    A name made of maker, model and serial number is preferred to one made of the socket.

    Args:
        device: A device file such as /dev/video0, or a link to one.
        links: Where udev keeps its links, in `by-id` and `by-path`.
    """
    target = device.resolve()
    for folder in ("by-id", "by-path"):
        for link in sorted((links / folder).glob("*")):
            if link.resolve() == target:
                return link
    return None


def cameras(nodes: Path = NODES, devices: Path = Path("/dev"), links: Path = LINKS) -> list[Camera]:
    """Return the video devices of this machine in the order of their numbers; Linux only.

    Args:
        nodes: Where the kernel lists them.
        devices: Where their files are.
        links: As for `stable_path`.
    """
    found = []
    for node in sorted(nodes.glob("video*"), key=lambda node: (len(node.name), node.name)):
        try:
            label = (node / "name").read_text(encoding="utf-8").strip()
        except OSError:
            label = "name unknown"
        path = devices / node.name
        found.append(Camera(path, label, stable_path(path, links)))
    return found
