"""A network camera in a process of its own whose pictures tell when they were taken.

Arguments: `http` (MJPEG, any Python with OpenCV) or `rtsp` (H.264, the system's Python with
GStreamer). It prints its port and the monotonic time, in seconds, that its pictures count from: a
row of 16 black and white fields, which are the bits of the milliseconds since then.
"""

from __future__ import annotations

import sys
import time

WIDTH, HEIGHT, FPS = 640, 96, 25
START_S = time.monotonic()


def row() -> bytes:
    """Return one row of the picture of now."""
    now_ms = int((time.monotonic() - START_S) * 1000)
    fields = (b"\xf0" if now_ms >> bit & 1 else b"\x10" for bit in range(16))
    return b"".join(field * (WIDTH // 16) for field in fields)


def serve_http() -> None:
    import contextlib
    import http.server

    import cv2
    import numpy as np

    class Camera(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
            self.end_headers()
            due_s = time.monotonic()
            with contextlib.suppress(OSError):
                while True:
                    image = np.tile(np.frombuffer(row(), np.uint8), (HEIGHT, 1))
                    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
                    head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                    due_s += 1 / FPS
                    time.sleep(max(0.0, due_s - time.monotonic()))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads = True
        print(server.server_address[1], START_S, flush=True)
        server.serve_forever()


def serve_rtsp() -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

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
    factory.connect("media-configure", configured)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(server.get_bound_port(), START_S, flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    {"http": serve_http, "rtsp": serve_rtsp}[sys.argv[1]]()
