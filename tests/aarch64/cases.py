"""Frames, and the picture that each should become: written on x86-64, read on arm64."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import ModelSpec, spec_from_options
from motorvae.runtime.pixels.camera_formats import fitted_from_jpeg, fitted_from_raw
from motorvae.runtime.pixels.convert import fitted, picture_from_image
from motorvae.runtime.pixels.yuv import fitted_from_video_frame

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """One frame in one form, and its pictures by several model specs.

    Attributes:
        name: Of the picture and the form.
        kind: "frame", "jpeg", "raw" or "bgr".
        facts: What the arrays do not say: size, pixel format, matrix, levels.
        arrays: The planes of a frame, the bytes of a JPEG, a camera's buffer, or an image.
        specs: Options of each model spec.
        references: (C, H, W) or (H, W) uint8 of each spec, computed in float64.
        found: The same, of the product's path on x86-64.
    """

    name: str
    kind: str
    facts: dict[str, Any]
    arrays: list[Image]
    specs: list[dict[str, Any]]
    references: list[Image]
    found: list[Image]

    def picture(self, spec: ModelSpec) -> Image:
        """Return what the product makes of the frame on this machine."""
        if self.kind == "frame":
            made: Image | None = fitted_from_video_frame(self.frame(), spec)
        elif self.kind == "jpeg":
            made = fitted_from_jpeg(self.arrays[0].tobytes(), spec)
        elif self.kind == "raw":
            facts = self.facts
            mode = Mode(facts["width"], facts["height"], 30.0, facts["fourcc"])
            made = fitted_from_raw(self.arrays[0], mode, spec)
        else:
            made = fitted(picture_from_image(self.arrays[0], spec.color), spec)
        assert made is not None, f"{self.name} has no path to {spec}"
        return made

    def frame(self) -> VideoFrame:
        """Build the decoded frame from its planes, whatever the length of a line is here."""
        facts = self.facts
        frame = VideoFrame(facts["width"], facts["height"], facts["pixels"])
        for plane, samples in zip(frame.planes, self.arrays, strict=True):
            rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
            rows[: samples.shape[0], : samples.shape[1]] = samples[:, : plane.line_size]
            plane.update(rows.tobytes())
        frame.colorspace, frame.color_range = facts["matrix"], facts["levels"]
        return frame

    def rows(self) -> Iterator[tuple[ModelSpec, Image, Image]]:
        """Yield each spec, its reference, and what x86-64 made."""
        for options, reference, found in zip(self.specs, self.references, self.found, strict=True):
            yield spec_of(options), reference, found


def spec_of(options: dict[str, Any]) -> ModelSpec:
    """Return a model spec of these options, small in all that pictures do not show."""
    return spec_from_options(**(ModelSpec().model_dump() | {"latent_size": 4} | options))


def planes_of(frame: VideoFrame) -> list[Image]:
    """Return the bytes of each plane, a line a row."""
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size).copy()
        for plane in frame.planes
    ]


def save_cases(path: Path, cases: list[Case]) -> None:
    """Write cases as one .npz file."""
    arrays: dict[str, Any] = {}
    heads = []
    for number, case in enumerate(cases):
        heads.append(
            {"name": case.name, "kind": case.kind, "facts": case.facts, "specs": case.specs}
        )
        for part in ("arrays", "references", "found"):
            for index, array in enumerate(getattr(case, part)):
                arrays[f"{number}/{part}/{index}"] = array
    arrays["heads"] = np.array(json.dumps(heads))
    np.savez_compressed(path, **arrays)


def cases_from_file(path: Path) -> list[Case]:
    """Read what `save_cases` wrote."""
    with np.load(path, allow_pickle=False) as held:
        heads = json.loads(str(held["heads"]))
        names = list(held.files)
        found = []
        for number, head in enumerate(heads):
            parts = {
                part: [
                    held[f"{number}/{part}/{index}"]
                    for index in range(sum(n.startswith(f"{number}/{part}/") for n in names))
                ]
                for part in ("arrays", "references", "found")
            }
            found.append(Case(**head, **parts))
        return found


def luma_of_clip(path: Path) -> Image:
    """Return the (N, H, W) luma that FFmpeg decodes from a video here, without any conversion."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray()[: frame.height] for frame in container.decode(video=0)]
    return np.stack(frames).astype(np.uint8)
