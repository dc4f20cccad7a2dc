"""Pictures that tell when they were taken, and an RTSP camera of them in a process of its own.

As a script it runs in the system's Python, which has GStreamer, and prints its port. With the
argument `udp` it sends over UDP only.
"""

from __future__ import annotations

import sys
import time

WIDTH, HEIGHT, FPS = 640, 96, 25


def row() -> bytes:
    """Return one row of the picture of now: 16 fields, the bits of the monotonic milliseconds."""
    now_ms = int(time.monotonic() * 1000)
    fields = (b"\xf0" if now_ms >> bit & 1 else b"\x10" for bit in range(16))
    return b"".join(field * (WIDTH // 16) for field in fields)


def main() -> None:
    """Serve H.264 until it is killed."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

    Gst.init(None)
    source = (
        "( appsrc name=source is-live=true do-timestamp=true format=time caps=video/x-raw,"
        f"format=GRAY8,width={WIDTH},height={HEIGHT},framerate={FPS}/1 ! videoconvert ! "
        "video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast threads=1 "
        "key-int-max=25 ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )

    def configured(_: object, media: GstRtspServer.RTSPMedia) -> None:
        element = media.get_element().get_by_name("source")

        def push() -> bool:
            element.emit("push-buffer", Gst.Buffer.new_wrapped(row() * HEIGHT))
            return True

        GLib.timeout_add(1000 // FPS, push)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(source)
    if "udp" in sys.argv:
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
    factory.connect("media-configure", configured)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
