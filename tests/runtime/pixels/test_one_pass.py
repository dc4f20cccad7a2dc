from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.yuv import fitted_from_video_frame


def test_chroma_of_a_part_lies_where_the_stream_has_it(tmp_path: Path) -> None:
    # H.264 has chroma at the left of its pixels, which only the frame itself says.
    across, down = np.meshgrid(np.arange(320), np.arange(240))
    blue, green, red = (127 + 110 * np.sin((across + down / 3) / 7 + turn) for turn in (0, 2, 4))
    path = tmp_path / "colours.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"qp": "2"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        image = np.stack([blue, green, red], axis=-1).astype(np.uint8)
        frame = VideoFrame.from_ndarray(image, format="bgr24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    whole = fitted_from_video_frame(frame, spec_of(120, 160))
    part = fitted_from_video_frame(frame, spec_of(60, 80, (80, 60, 240, 180)))
    apart = np.abs(part.astype(float) - whole[:, 30:90, 40:120])[:, 1:-1, 1:-1]
    assert apart.mean() < 0.1
    assert apart.max() <= 2


def spec_of(
    height: int, width: int, box: tuple[float, float, float, float] | None = None
) -> ModelSpec:
    return ModelSpec(image_size=(height, width), color="rgb", channels=None, crop_box=box)
