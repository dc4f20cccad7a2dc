"""Draws docs/stream.gif: a real stream, with the reconstruction of each frame and its latents.

    python docs/tools/stream_gif.py docs/stream.gif [--bundle BUNDLE]

Without a bundle it is that of the model which comes with the package, exported into .scratch/gif.
The stream loses its camera for half a second. Needs the extras cpu, train, export and bench.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import motorvae as mv
from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles

SCRATCH = Path(".scratch/gif")
STREAM_SEED = 2026
FPS, SECONDS, STEP = 30, 12, 3
FIRST = 2 * FPS
"""The picture starts here: what shows no animation shows its first frame."""
LOST = range(200, 215)
"""Frames that the camera does not deliver."""
SIZE = 512
SHOWN = 20
"""Latents in the plot: those that vary most."""
LEVELS = mpl.colormaps["RdBu"].resampled(11).with_extremes(bad="0.85")
GREYS = 28
"""With those of `LEVELS` all colours of the GIF: its size goes with how many there are."""
RED = (198, 40, 40)


def main() -> None:
    """Export if need be, stream, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--bundle", type=Path)
    options = parser.parse_args()
    bundle = mv.load(options.bundle or bundle_of_package())
    rows = {}
    source = f"synthetic?fps={FPS}&seed={STREAM_SEED}&size={SIZE}&frames={FPS * SECONDS}"
    lost = f"&lose={LOST.start}..{LOST.stop - 1}"
    for row in mv.stream(bundle, source + lost):
        if row.status in {"ok", "lost"}:
            rows[row.index] = row
    with bundle.decoder() as decode:
        frames = drawn(rows, decode)
    write_gif(options.output, frames)
    print(f"{options.output}: {len(frames)} frames, {options.output.stat().st_size / 1e6:.2f} MB")


def bundle_of_package() -> Path:
    """Export the model that comes with the package; return the bundle. What is there is kept."""
    bundle = SCRATCH / "bundle"
    if not bundle.is_dir():
        SCRATCH.mkdir(parents=True, exist_ok=True)
        command = ("--pretrained", "vehicles", "--output", str(bundle))
        subprocess.run([Path(sys.executable).parent / "motorvae-export", *command], check=True)
    return bundle


def drawn(rows: dict[int, Any], decode: Any) -> list[Image.Image]:
    """Draw every few frames of the stream."""
    world = MovingVehicles(STREAM_SEED, SIZE)
    mu = np.full((FPS * SECONDS, len(next(iter(rows.values())).mu)), np.nan, np.float32)
    for index, row in rows.items():
        if row.mu is not None and index < len(mu):
            mu[index] = row.mu
    most = np.argsort(np.nanstd(mu, axis=0))[::-1][:SHOWN]
    canvas = Canvas(mu[:, most])
    images = []
    for tick in range(FIRST, len(mu), STEP):
        near = [rows[index] for index in range(tick, tick + STEP) if index in rows]
        row = next((row for row in near if row.mu is not None), None)
        if row is None:
            images.append(canvas.draw(tick, None, None, "lost: the camera is gone"))
            continue
        camera = world.image(row.index / FPS)
        text = f"frame {row.index}: {row.status}, {row.age_ms:.1f} ms old"
        if row.gap_ms is not None:
            text = f"frame {row.index}: back after {row.gap_ms / 1000:.1f} s"
        images.append(canvas.draw(tick, camera, decode(row.mu), text))
    return images


class Canvas:
    """One figure, whose contents change from frame to frame.

    Args:
        latents: (N, K) float32, one row a frame; NaN where there is no latent.
    """

    def __init__(self, latents: npt.NDArray[np.float32]) -> None:
        mpl.rcParams.update({"font.size": 10, "axes.titlesize": 11})
        self._latents = latents
        self._figure = Figure(figsize=(8.0, 3.0), dpi=95)
        self._canvas = FigureCanvasAgg(self._figure)
        grid = self._figure.add_gridspec(
            1, 3, width_ratios=(1, 1, 1.05), left=0.01, right=0.99, top=0.9, bottom=0.1, wspace=0.05
        )
        camera, decoded, lines = (self._figure.add_subplot(cell) for cell in grid)
        blank = np.full((256, 256), 255, np.uint8)
        self._images = []
        for axes, title in ((camera, "camera"), (decoded, "decoded from its latent")):
            self._images.append(axes.imshow(blank, cmap="gray", vmin=0, vmax=255))
            axes.set(xticks=(), yticks=(), title=title)
        self._frames = (camera, decoded)
        self._text = self._figure.text(0.01, 0.02, "", fontsize=10)
        limit = float(np.nanmax(np.abs(latents)))
        self._map = lines.imshow(
            np.full((SHOWN, FPS * 3), np.nan, np.float32),
            aspect="auto",
            cmap=LEVELS,
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
        )
        lines.set(xticks=(), yticks=(), title=f"{SHOWN} latents, last 3 s")

    def draw(
        self,
        tick: int,
        camera: npt.NDArray[np.uint8] | None,
        decoded: npt.NDArray[np.uint8] | None,
        text: str,
    ) -> Image.Image:
        """Draw the state at one tick of the camera's clock."""
        blank = np.full((256, 256), 217, np.uint8)
        for shown, image in zip(self._images, (camera, decoded), strict=True):
            shown.set_data(
                blank if image is None else cv2.resize(image, (256, 256), interpolation=3)
            )
        colour = mpl.colors.to_hex(np.divide(RED, 255)) if camera is None else "0.2"
        for axes in self._frames:
            for spine in axes.spines.values():
                spine.set(color=colour, linewidth=1.5 if camera is None else 0.8)
        self._text.set(text=text, color=colour)
        window = np.full((FPS * 3, SHOWN), np.nan, np.float32)
        past = self._latents[max(0, tick + 1 - len(window)) : tick + 1]
        if len(past):
            window[-len(past) :] = past
        self._map.set_data(window.T)
        self._canvas.draw()
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3].copy())


def write_gif(path: Path, images: list[Image.Image]) -> None:
    """Write all frames with one palette, which keeps what does not change out of the file."""
    greys = [(round(level),) * 3 for level in np.linspace(0, 255, GREYS)]
    levels = np.rint(LEVELS(np.arange(LEVELS.N))[:, :3] * 255).astype(int).tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.array([*greys, *levels, RED, (217, 217, 217)], np.uint8).tobytes())
    few = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    few[0].save(
        path,
        save_all=True,
        append_images=few[1:],
        duration=round(1000 * STEP / FPS),
        loop=0,
        optimize=False,
    )


if __name__ == "__main__":
    main()
