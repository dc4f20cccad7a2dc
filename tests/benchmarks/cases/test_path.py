from __future__ import annotations

import dataclasses
import io

import av
import cv2
import numpy as np
import pytest

from motorvae.benchmarks.cases import path as path_case
from motorvae.benchmarks.cases.path import MOST_COLOUR_LEVELS, SOURCES, path_cases, thread_cases
from motorvae.benchmarks.measure.case import HUFFMAN_ALONE, FrameSource
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.under_test.model_under_test import (
    ModelUnderTest,
    random_model,
    untrained_model,
)
from motorvae.benchmarks.under_test.scenes import frame_of, our_luma, plain_luma, scene_of
from motorvae.runtime.core.errors import MeasurementError
from motorvae.runtime.core.spec import Color, ModelSpec
from motorvae.runtime.pixels.reference import reference_picture

SHORT = RoundPlan(samples=3, warmup=1, settle=0, turn=2)
SIZE = (320, 240)


def test_every_source_is_run_by_the_rival_and_by_us(tested: ModelUnderTest) -> None:
    cases = path_cases(tested, schedule=SHORT, seed=0, threads=1, sizes=(SIZE,))
    assert {case.frame for case in cases} == {SIZE}
    assert {case.source for case in cases} == set(SOURCES)
    for source in SOURCES:
        same = [case for case in cases if case.source == source and case.not_measured is None]
        floors = [case for case in same if case.variant == HUFFMAN_ALONE]
        assert [list(case.stages) for case in floors] == [["total"]] * (source == "mjpeg")
        same = [case for case in same if case not in floors]
        assert [(case.engine, case.variant) for case in same][:3] == [
            ("plain recipe", None),
            ("torch eager", "our luma"),
            ("ONNX Runtime", "ours"),
        ]
        assert len({case.input_sha256 for case in same}) == 1
        for case in same:
            stages = {name: series.samples for name, series in case.stages.items()}
            assert list(stages) == ["total", "preprocess", "encode"]
            parts = zip(stages["preprocess"], stages["encode"], strict=True)
            assert stages["total"] == tuple(one + other for one, other in parts)
            assert case.agreement[0].output == "luma, mean difference"
        assert [entry.output for entry in same[2].agreement][1:] == ["mu"]
    assert any("a JPEG of" in note for case in cases for note in case.notes)


def test_a_latent_that_is_not_torchs_is_not_timed(tested: ModelUnderTest) -> None:
    mixed = dataclasses.replace(tested, model=random_model(tested.spec, seed=1))
    with pytest.raises(MeasurementError, match=r"ONNX Runtime.* at path.* disagree on mu"):
        path_cases(mixed, schedule=SHORT, seed=0, sizes=(SIZE,))


def test_luma_that_is_not_the_references_is_not_timed(
    tested: ModelUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path_case, "MOST_LEVELS", 1e-9)
    with pytest.raises(MeasurementError, match=r"luma is .* levels from the reference"):
        path_cases(tested, schedule=SHORT, seed=0, sizes=(SIZE,))


def test_opencv_gets_its_threads_back(tested: ModelUnderTest) -> None:
    before = cv2.getNumThreads()
    path_cases(tested, schedule=SHORT, seed=0, sizes=(SIZE,))
    assert cv2.getNumThreads() == before


@pytest.mark.parametrize("color", ["grey", "rgb", "bgr"])
@pytest.mark.parametrize("source", SOURCES)
def test_ours_and_the_recipe_see_the_same_picture(source: FrameSource, color: Color) -> None:
    spec = ModelSpec(image_size=(64, 96), color=color, channels=(4, 8, 8, 16, 16), latent_size=8)
    scene = scene_of(640, 480, seed=0)
    image = scene.bgr if color == "grey" else scene.carried(source)
    expected = reference_picture(image, spec).astype(np.float64)
    ours, plain = our_luma(scene, source, spec), plain_luma(scene, source, spec)
    # What people write is a level too dark where FFmpeg converts a YUV frame.
    for make, levels in ((ours, 0.5 if color == "grey" else MOST_COLOUR_LEVELS), (plain, 2)):
        picture = make()
        assert (picture.shape, picture.dtype) == (spec.picture_shape, np.dtype(np.uint8))
        assert np.abs(picture - expected).mean() < levels
        assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.999


def test_a_model_in_colour_is_timed_too() -> None:
    spec = ModelSpec(image_size=(32, 64), color="rgb", channels=(4, 8), latent_size=4)
    with untrained_model(spec, seed=0) as tested:
        cases = path_cases(tested, schedule=SHORT, seed=0, threads=1, sizes=(SIZE,))
    assert {case.source for case in cases} == set(SOURCES)
    assert sum(case.not_measured is None for case in cases) >= 3 * len(SOURCES)


def test_a_scene_is_what_cameras_deliver() -> None:
    frame = frame_of(640, 480, seed=0)
    assert (frame.shape, frame.dtype) == ((480, 640, 3), np.dtype(np.uint8))
    assert np.array_equal(frame, frame_of(640, 480, seed=0))
    scene = scene_of(640, 480, seed=0)
    assert 0.1 < scene.jpeg.size / (640 * 480) < 0.3  # bytes a pixel, as a busy camera's
    assert (scene.yuv.format.name, scene.yuv.width, scene.yuv.height) == ("yuv420p", 640, 480)
    with av.open(io.BytesIO(scene.jpeg.tobytes())) as container:
        (picture,) = container.decode(video=0)
    assert picture.format.name == "yuvj420p"


def test_each_way_is_timed_by_the_wall_and_in_processor_time(tested: ModelUnderTest) -> None:
    before = cv2.getNumThreads()
    cases = thread_cases(tested, schedule=RoundPlan(samples=2, warmup=1, settle=1, turn=2), seed=0)
    assert [(case.engine, case.variant) for case in cases] == [
        (engine, f"{pools}, {pace}")
        for pace in ("hot loop", "paced at 60 fps")
        for engine, pools in (
            ("torch eager", "threads as installed"),
            ("ONNX Runtime", "threads as installed"),
            ("ONNX Runtime", "ours"),
        )
    ]
    assert {tuple(case.stages) for case in cases} == {("wall", "processor")}
    assert len({case.input_sha256 for case in cases}) == 1
    assert cv2.getNumThreads() == before
