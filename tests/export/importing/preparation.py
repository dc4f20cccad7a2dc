"""How far `--preset original` is from the original project's own preparation, on any pictures.

    python tests/export/importing/preparation.py FOLDER...

What that project does, written again with Pillow from what it is known to do: alpha over white,
grey, a fixed crop, Lanczos to 256 pixels along the longer side, whole pixels rounded down, pasted
on white. Mean differences in levels of 255; vehicles are drawn where no folder is named.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.sources.synthetic.vehicles import vehicle_picture

SIDE, MOST = 256, 40
BOX = (5, 20, -25, -20)
FORMS = {
    "the preset": ModelSpec(fit="letterbox", crop_box=BOX, interpolation="lanczos"),
    "padded before it is resized": ModelSpec(fit="pad", crop_box=BOX, interpolation="lanczos"),
    "by area": ModelSpec(fit="letterbox", crop_box=BOX),
    "stretched, not cropped": ModelSpec(),
}


def theirs(bgra: np.ndarray) -> np.ndarray:
    """Return (256, 256) levels as that project prepares (H, W, 4) BGRA."""
    image = Image.fromarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), "RGBA")
    white = Image.new("RGBA", image.size, (255,) * 4)
    grey = Image.alpha_composite(white, image).convert("RGB").convert("L")
    width, height = grey.size
    grey = grey.crop((5, 20, width - 25, height - 20))
    aspect = grey.size[0] / grey.size[1]
    size = (SIDE, int(SIDE / aspect)) if aspect > 1 else (int(SIDE * aspect), SIDE)
    canvas = Image.new("L", (SIDE, SIDE), 255)
    small = grey.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(canvas, np.float64)


def pictures(folder: str) -> Iterator[np.ndarray]:
    """Yield (H, W, 4) BGRA: drawn vehicles, or pictures of a folder that are not tiny."""
    if not folder:
        for index in range(MOST):
            drawn = vehicle_picture(3, index, 640, "rgb")[80:560]
            yield cv2.cvtColor(drawn, cv2.COLOR_BGR2BGRA)
        return
    for path in sorted(Path(folder).iterdir())[:MOST]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= 2 * SIDE // 4:
            yield cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)


def main(folders: list[str]) -> int:
    for folder in folders or [""]:
        every = [*pictures(folder)]
        shown = [theirs(image) for image in every]
        means = {
            name: np.mean(
                [
                    np.abs(reference_picture(i, spec) - t).mean()
                    for i, t in zip(every, shown, strict=True)
                ]
            )
            for name, spec in FORMS.items()
        }
        figures = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        print(f"{Path(folder).name or 'drawn vehicles'}, {len(every)} pictures: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
