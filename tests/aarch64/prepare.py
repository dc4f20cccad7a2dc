"""What arm64 is compared with, computed here: bundles, images, clips, latents and pictures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.pixels.yuv import bgr_from_video_frame
from motorvae.runtime.sources.synthetic.vehicles import vehicle

from ..runtime.pixels.coded_frames import BT470BG, BT709, FULL, LIMITED, frame_of, raw_of
from ..trt_api.releases import bindings_of, tensorrt_release
from .cases import Case, Image, luma_of_clip, planes_of, save_cases, spec_of
from .roots import TENSORRT, NotPossibleError, digest_of

ENGINES = (("onnx", "fp32"), ("onnx", "fp16"), ("openvino", "fp32"))
"""Of the shipped model; INT8 is that of a model of three layers, `small`."""
SEEDS = 5
CLIP_FRAMES = 8
VIDEO = "vtest.avi"
"""OpenCV's sample of a real street, 768 x 576."""
CLIPS = ("street.avi", "street.mp4", "street.mjpeg.avi")
"""The first frames of that video: its own packets, H.264 of its frames, and MJPEG of them."""
_FORMS = (("yuv420p", BT470BG, LIMITED), ("yuv420p", BT709, LIMITED), ("yuvj420p", BT470BG, FULL),
          ("nv12", BT470BG, LIMITED), ("yuv444p", BT470BG, LIMITED))  # fmt: skip
_OWN = [f"tests/aarch64/{name}.py" for name in ("cases", "prepare", "roots")]
_SPECS: list[dict[str, Any]] = [
    *({"fit": fit} for fit in ("stretch", "crop", "pad", "letterbox")),
    {"color": "rgb"},
    {"color": "bgr", "fit": "crop", "image_size": (96, 160)},
    {"image_size": (160, 96), "interpolation": "bicubic"},
]


def expected_here(folder: Path) -> Path:
    """Write what this machine makes, unless it is there already; returns the folder.

    It is made again where our own files have changed that it comes from, or a package has.
    """
    stamp = folder / "digest"
    packages = sorted({f"{one.name} {one.version}" for one in metadata.distributions()})
    ours = digest_of("runtime", "training", "export", "tests/runtime/pixels", *_OWN)
    digest = "\n".join((ours, *packages))
    if stamp.exists() and stamp.read_text() == digest:
        return folder
    data = _samples()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_bundles(folder)
    frames = _write_clips(folder, data / VIDEO)
    pictures = _pictures(frames[0], data)
    _write_images(folder / "images", pictures)
    save_cases(folder / "pixels.npz", _cases(pictures))
    for bundle, engines in (("bundle", ENGINES), ("small", (("onnx", "int8"),))):
        for backend, precision in engines:
            command = ["encode", "images", "--model", bundle, "--backend", backend]
            output = f"{bundle}.{backend}.{precision}.npz"
            _motorvae(folder, *command, "--precision", precision, "--output", output)
    for clip in CLIPS:
        output = f"{clip}.jsonl"
        _motorvae(folder, "stream", clip, "--model", "bundle", "--output", output)
        np.save(folder / f"{clip}.npy", luma_of_clip(folder / clip))
    for title, requirement, major, newest in TENSORRT:
        if sys.version_info.minor > newest:
            continue
        known = bindings_of(tensorrt_release(title, requirement, major))
        said = {"version": known.version, "names": {o: sorted(n) for o, n in known.names.items()}}
        (folder / f"tensorrt-{title}.json").write_text(json.dumps(said))
    stamp.write_text(digest)
    return folder


def _write_bundles(folder: Path) -> None:
    export = ["export", "--pretrained", "vehicles", "--fp16", "--engine", "none"]
    _motorvae(folder, *export, "--output", "bundle")
    # An INT8 graph of a small model; not each that is trained so shortly passes its gate.
    data = ["--data", "vehicles", "--vehicles-count", "600", "--image-size", "64", "--threads", "1"]
    sizes = ["--channels", "8", "16", "32", "--latent-size", "8", "--epochs", "4", "4"]
    small = ["export", "runs/small", "--int8", "onnx", "openvino", "--engine", "none", "--anyway"]
    for seed in range(SEEDS):
        shutil.rmtree(folder / "runs", ignore_errors=True)
        shutil.rmtree(folder / "small", ignore_errors=True)
        named = ["--output", "runs", "--name", "small", "--seed", str(seed)]
        _motorvae(folder, "train", *data, *sizes, *named)
        try:
            _motorvae(folder, *small, "--output", "small")
        except RuntimeError:
            if seed == SEEDS - 1:
                raise
        else:
            break
    shutil.rmtree(folder / "runs")


def _samples() -> Path:
    """Return the folder of OpenCV's sample pictures and videos."""
    named = os.environ.get("OPENCV_SAMPLES_DATA_PATH")
    folder = Path(named or "/usr/share/doc/opencv-doc/examples/data")
    if not (folder / VIDEO).exists():
        raise NotPossibleError(
            f"no {VIDEO} in {folder}: apt-get install opencv-doc, or name the folder of OpenCV's "
            "samples in OPENCV_SAMPLES_DATA_PATH"
        )
    return folder


def _pictures(street: Image, data: Path) -> dict[str, Image]:
    """Return BGR pictures of unlike kinds: a street, three photographs, a vehicle, blocks."""
    from sklearn.datasets import load_sample_images

    china, flower = (
        np.ascontiguousarray(image[:, :, ::-1]) for image in load_sample_images().images
    )
    fruits = cv2.imread(str(data / "fruits.jpg"))
    assert fruits is not None
    grey = cv2.resize(vehicle(7, 3, 256)[0], (800, 600), interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(16)
    noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    blocks = cv2.resize(noise, (1366, 770), interpolation=cv2.INTER_NEAREST)
    return {
        "street": street,
        "china": china[:426],
        "flower": flower[:426],
        "fruits": fruits.astype(np.uint8),
        "vehicle": cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8),
        "blocks": blocks.astype(np.uint8),
    }


def _write_images(folder: Path, pictures: dict[str, Image]) -> None:
    """Write 28 images: crops of each picture, and vehicles as they are drawn."""
    folder.mkdir()
    for name, image in pictures.items():
        for number in range(4):
            side = min(image.shape[:2]) // (1 + number % 2)
            top = (image.shape[0] - side) * number // 3
            left = (image.shape[1] - side) * number // 3
            kind = "jpg" if number % 2 else "png"
            cv2.imwrite(
                str(folder / f"{name}-{number}.{kind}"), image[top : top + side, left : left + side]
            )
    for number in range(4):
        cv2.imwrite(str(folder / f"drawn-{number}.png"), vehicle(987, number, 256)[0])


def _write_clips(folder: Path, video: Path) -> list[Image]:
    """Write the clips, and return their frames as BGR."""
    own, h264, mjpeg = (folder / name for name in CLIPS)
    frames: list[Image] = []
    with av.open(str(video)) as source, av.open(str(own), "w") as copy:
        stream = source.streams.video[0]
        copied = copy.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if len(frames) == CLIP_FRAMES:
                break
            frames += (
                frame.to_ndarray(format="bgr24").astype(np.uint8) for frame in packet.decode()
            )
            packet.stream = copied
            copy.mux(packet)
    for path, codec, pixels in ((h264, "libx264", "yuv420p"), (mjpeg, "mjpeg", "yuvj420p")):
        with av.open(str(path), "w") as container:
            made = container.add_stream(codec, rate=10)
            made.height, made.width = frames[0].shape[:2]
            made.pix_fmt = pixels
            for frame in frames:
                container.mux(made.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            container.mux(made.encode())
    return frames


def _cases(pictures: dict[str, Image]) -> list[Case]:
    cases = []
    for name, image in pictures.items():
        height, width = image.shape[:2]
        for pixels, matrix, levels in _FORMS:
            frame, shown = frame_of(image, pixels, matrix, levels)
            facts = {"pixels": pixels, "matrix": matrix, "levels": levels}
            facts |= {"width": width, "height": height}
            title = f"{name} {pixels} {'BT.709' if matrix == BT709 else 'BT.601'}"
            cases.append(_case(title, "frame", facts, planes_of(frame), shown))
        for fourcc in ("YUYV", "NV12"):
            raw, shown = raw_of(image, fourcc)
            facts = {"fourcc": fourcc, "width": width, "height": height}
            cases.append(_case(f"{name} raw {fourcc}", "raw", facts, [raw], shown))
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].astype(np.uint8)
        (decoded,) = av.VideoCodecContext.create("mjpeg", "r").decode(av.Packet(data.tobytes()))
        shown = bgr_from_video_frame(decoded, matrix="bt601")
        cases.append(_case(f"{name} JPEG", "jpeg", {}, [data], shown))
        cases.append(_case(f"{name} BGR", "bgr", {}, [image], image))
    return cases


def _case(name: str, kind: str, facts: dict[str, Any], arrays: list[Image], shown: Image) -> Case:
    specs = [spec_of(options) for options in _SPECS]
    references = [reference_picture(shown, spec) for spec in specs]
    case = Case(name, kind, facts, arrays, [json.loads(json.dumps(s)) for s in _SPECS], [], [])
    found = [case.picture(spec) for spec in specs]
    return Case(name, kind, facts, arrays, case.specs, references, found)


def _motorvae(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "motorvae", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"motorvae {' '.join(words)} failed: {done.stderr.strip()[-2000:]}")
