"""An RTSP camera (H.264) in a process of its own, which fails in the ways that it is told on stdin.

Runs on the system's Python with GStreamer, not in the project's environment. Commands and answers
are those of `mjpeg_server.py`; `damage` cuts encoded
frames in half and `lose` leaves them out.

Arguments: a file of grey pictures, one after another; width, height; a second file, width and
height, shown after `resize`; frames per second; how many frames from one key frame to the next;
a port, or 0 for any that is free.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # versions are chosen first

MOUNT = "/camera"
# Each connection has its own encoder and begins with a key frame. Of one thread, as sliced frames
# are sent slice by slice; at one quantizer, so that a still picture stays the same to the bit.
LAUNCH = (
    "( appsrc name=source is-live=true format=time do-timestamp=true "
    "! videoconvert ! video/x-raw,format=I420 "
    "! x264enc name=encoder tune=zerolatency speed-preset=ultrafast threads=1 pass=quant "
    "quantizer=18 key-int-max={group} ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


class Camera(GstRtspServer.RTSPMediaFactory):
    """What all connections show, each through an encoder of its own."""

    def __init__(self, series: list[tuple[Path, int, int]], fps: int, group: int) -> None:
        super().__init__()
        self.set_launch(LAUNCH.format(group=group))
        self.connect("media-configure", self._configured)
        self.count = 0
        self.shown = 0
        self.frozen_at: int | None = None
        self.stalled = False
        self.damaged = self.left_out = 0
        self._fps = fps
        self._series = [(path.read_bytes(), width, height) for path, width, height in series]
        self._sources: dict[object, Gst.Element] = {}

    def end(self) -> None:
        """End the stream of every connection in order."""
        for source in self._sources.values():
            source.emit("end-of-stream")

    def resize(self) -> None:
        """Show pictures of the other size."""
        self.shown = 1 - self.shown
        for source in self._sources.values():
            source.set_property("caps", self._caps())

    def _caps(self) -> Gst.Caps:
        _, width, height = self._series[self.shown]
        return Gst.Caps.from_string(
            f"video/x-raw,format=GRAY8,width={width},height={height},framerate={self._fps}/1"
        )

    def _configured(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        element = media.get_element()
        source = element.get_by_name("source")
        source.set_property("caps", self._caps())
        self._sources[media] = source
        encoder = element.get_by_name("encoder")
        encoder.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self._encoded)
        media.connect("unprepared", lambda media: self._sources.pop(media, None))
        GLib.timeout_add(1000 // self._fps, self._push, media)

    def _push(self, media: object) -> bool:
        if media not in self._sources:
            return False
        if not self.stalled:
            data, width, height = self._series[self.shown]
            size = width * height
            number = self.count if self.frozen_at is None else self.frozen_at
            start = number * size % len(data)
            picture = Gst.Buffer.new_wrapped(data[start : start + size])
            self._sources[media].emit("push-buffer", picture)
            self.count += 1
        return True

    def _encoded(self, pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        if self.left_out:
            self.left_out -= 1
            return Gst.PadProbeReturn.DROP
        if self.damaged:
            self.damaged -= 1
            buffer = info.get_buffer()
            data = buffer.extract_dup(0, buffer.get_size())
            spoilt = Gst.Buffer.new_wrapped(data[: len(data) // 2])
            spoilt.pts, spoilt.dts, spoilt.duration = buffer.pts, buffer.dts, buffer.duration
            pad.get_peer().chain(spoilt)
            return Gst.PadProbeReturn.DROP
        return Gst.PadProbeReturn.OK


def main() -> None:
    """Serve until `quit`, the end of stdin, or a kill."""
    one, two = sys.argv[1:4], sys.argv[4:7]
    fps, group, port = (int(value) for value in sys.argv[7:10])
    Gst.init(None)
    camera = Camera(
        [(Path(path), int(width), int(height)) for path, width, height in (one, two)], fps, group
    )
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    mounts = server.get_mount_points()
    mounts.add_factory(MOUNT, camera)
    server.attach(None)

    def cut() -> None:
        server.client_filter(lambda _server, _client: GstRtspServer.RTSPFilterResult.REMOVE)

    def obey(command: str, value: str) -> bool:
        actions = {
            "freeze": lambda: setattr(camera, "frozen_at", camera.count),
            "thaw": lambda: setattr(camera, "frozen_at", None),
            "stall": lambda: setattr(camera, "stalled", True),
            "go": lambda: setattr(camera, "stalled", False),
            "damage": lambda: setattr(camera, "damaged", int(value)),
            "lose": lambda: setattr(camera, "left_out", int(value)),
            "skip": lambda: setattr(camera, "count", camera.count + int(value)),
            "resize": camera.resize,
            "close": camera.end,
            "cut": cut,
            "refuse": lambda: mounts.remove_factory(MOUNT),
            "accept": lambda: mounts.add_factory(MOUNT, camera),
            "count": lambda: None,
            "quit": lambda: os._exit(0),
        }
        actions[command]()
        sys.stdout.write(f"{command} {camera.count}\n")
        sys.stdout.flush()
        return False

    def listen() -> None:
        for line in sys.stdin:
            command, _, value = line.strip().partition(" ")
            GLib.idle_add(obey, command, value)
        os._exit(0)

    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    threading.Thread(target=listen, daemon=True).start()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
