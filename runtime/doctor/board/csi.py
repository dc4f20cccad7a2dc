"""What a Jetson needs for cameras on its CSI connector: plug-in, daemon, and a sensor's driver.

Sources: `gst-inspect-1.0 nvarguscamerasrc` names libgstnvarguscamerasrc.so in
/usr/lib/aarch64-linux-gnu/gstreamer-1.0, of the package nvidia-l4t-gstreamer; the daemon's socket
is /tmp/argus_socket (dusty-nv/jetson-containers issue 312); a sensor's video device is called
`vi-output, imx219 7-0010` (dusty-nv/jetson-inference issue 1398); a sensor's driver is chosen with
/opt/nvidia/jetson-io/jetson-io.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...core.errors import sentence_list
from ..finding import Finding
from .container import ARGUS_SOCKET, container_of
from .tree import Tree

_PLUG_IN = "/usr/lib/aarch64-linux-gnu/gstreamer-1.0/libgstnvarguscamerasrc.so"
_VIDEO = "/sys/class/video4linux"
_JETSON_IO = "/opt/nvidia/jetson-io/jetson-io.py"
_MOST_SENSORS = 32


def sensors_of(tree: Tree) -> tuple[str, ...]:
    """Return the names of the sensors whose drivers have found them, such as imx219."""
    found = []
    for name in tree.names(_VIDEO, r"video[0-9]{1,4}")[:_MOST_SENSORS]:
        sensor = re.match(r"vi-output, ([\w-]{1,40})", str(tree.read(f"{_VIDEO}/{name}/name")))
        if sensor:
            found.append(sensor[1])
    return tuple(found)


def check_csi(tree: Tree) -> Iterator[Finding]:
    """Say whether csi:// can work; that it cannot is a warning only where a sensor is there."""
    what, sensors, inside = "CSI cameras", sensors_of(tree), container_of(tree) is not None
    seen = f"sensors: {sentence_list(sensors)}"
    if not tree.has(_PLUG_IN):
        command = "sudo apt-get install nvidia-l4t-gstreamer nvidia-l4t-camera"
        if inside:
            command = "docker run --runtime nvidia  # which mounts the board's plug-ins"
        problem = f"{seen}; GStreamer has no nvarguscamerasrc, which csi:// needs"
        yield Finding(what, problem, "warn" if sensors else "optional", command)
    elif not tree.is_socket(ARGUS_SOCKET):
        command = "sudo systemctl restart nvargus-daemon"
        if inside:
            command = f"docker run -v {ARGUS_SOCKET}:{ARGUS_SOCKET}"
        problem = f"{seen}; the camera daemon has no socket at {ARGUS_SOCKET}"
        yield Finding(what, problem, "warn" if sensors else "optional", command)
    elif not sensors:
        problem = "plug-in and daemon are there, and no sensor is; csi:// needs its driver"
        tool = f"sudo {_JETSON_IO}" if tree.has(_JETSON_IO) else None
        yield Finding(what, problem, "optional", tool)
    else:
        yield Finding(what, f"{seen}; plug-in and daemon are there, for csi://0")
