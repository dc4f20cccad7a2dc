"""Whether this runs in a container on a Jetson, and what of the board it was given.

Sources: Docker makes /.dockerenv and podman /run/.containerenv; both give /dev/shm 64 MiB unless
--shm-size or --ipc says otherwise; CSI cameras need /tmp/argus_socket (dusty-nv/jetson-containers
issue 312); a path that is not there when a volume is mounted is made as a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..finding import Finding
from .tree import Tree, Unread

ARGUS_SOCKET = "/tmp/argus_socket"  # noqa: S108  # NVIDIA's name for it
_SHM = "/dev/shm"  # noqa: S108  # the kernel's
RELEASE = "/etc/nv_tegra_release"
_MARKS = {"/.dockerenv": "Docker", "/run/.containerenv": "podman"}
_SMALL_SHM = 64 << 20
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def container_of(tree: Tree) -> str | None:
    """Return which program made the container that this is, or None outside of one."""
    return next((name for mark, name in _MARKS.items() if tree.has(mark)), None)


def shared_memory_bytes(tree: Tree) -> int | None:
    """Return the size of /dev/shm that the mount table gives, or None where it gives none."""
    mounts = tree.read("/proc/mounts")
    if isinstance(mounts, Unread):
        return None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[1] == _SHM:
            size = re.search(r"(?:^|,)size=([0-9]{1,15})([kmg]?)(?:,|$)", fields[3])
            return int(size[1]) * _UNITS[size[2]] if size else None
    return None


def check_container(tree: Tree) -> Iterator[Finding]:
    """Say what a container sees of the board; outside of one there is nothing to say."""
    made_by = container_of(tree)
    if made_by is None:
        return
    parts, options = [f"made by {made_by}"], []
    for name, option in (
        (RELEASE, f"-v {RELEASE}:{RELEASE}:ro"),
        (ARGUS_SOCKET, f"-v {ARGUS_SOCKET}:{ARGUS_SOCKET}"),
    ):
        if name == ARGUS_SOCKET and tree.has(name) and not tree.is_socket(name):
            parts.append(f"{name} is no socket: the camera daemon was not running")
            options.append(option)
        elif tree.has(name):
            parts.append(f"{name} is mounted")
        else:
            parts.append(f"{name} is not mounted")
            options.append(option)
    size = shared_memory_bytes(tree)
    if size is None:
        parts.append(f"the size of {_SHM} could not be read")
    else:
        parts.append(f"{_SHM} has {size / (1 << 20):.0f} MiB")
        if size <= _SMALL_SHM:
            parts[-1] += ", the default, which is small for other programs in it"
            options.append("--shm-size 1g")
    command = f"docker run --runtime nvidia {' '.join(options)}" if options else None
    yield Finding("container", "; ".join(parts), "optional" if options else "ok", command)
