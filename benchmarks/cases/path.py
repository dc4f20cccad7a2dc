"""The path cases: from a frame in memory to mu, ours against what people write, sizes in turns.

The thread cases time the same path from JPEG bytes with the thread pools as installed, and ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import cv2
import numpy as np

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.core.errors import MeasurementError
from ...runtime.engines.base import Batch
from ...runtime.engines.open import open_engine
from ...runtime.pixels.convert import input_from_pixels, write_input
from ...runtime.pixels.reference import reference_picture
from ..measure.case import (
    EAGER,
    FPS,
    HOT,
    HUFFMAN_ALONE,
    LIBJPEG,
    ONNX,
    OPENVINO,
    PACED,
    PLAIN,
    Agreement,
    Case,
    FrameSource,
)
from ..measure.rounds import CaseMeter, Laps, RoundPlan, pacer, stopwatch, timed_cases
from ..under_test.engines import (
    OURS,
    EngineUnderTest,
    engines_under_test,
    open_all,
    plain_onnx,
    reference_run,
)
from ..under_test.model_under_test import ModelUnderTest, Run, agreement_with
from ..under_test.scenes import (
    JPEG_QUALITY,
    Luma,
    Scene,
    huffman_alone,
    luma_for,
    our_luma,
    plain_luma,
    scene_of,
)

FRAMES = ((640, 480), (1280, 720), (1920, 1080))
"""Width and height of the frames of the whole path; the thread cases take the last."""
SOURCES: tuple[FrameSource, ...] = get_args(FrameSource)
MOST_LEVELS, MOST_COLOUR_LEVELS = 1.0, 2.0
"""How far our luma and colours may be from the reference on average, in levels of 255. Scenes are
nearly white: the reference cuts off levels of single pixels, and video is averaged before that."""
_NO_TORCH = "this model's weights came as graphs: there is no torch module"


@dataclass(frozen=True)
class Path:
    """One path from a frame to mu."""

    planned: Case  # Its case without samples
    luma: Callable[[], Luma]  # Makes fitted luma, (S, S) uint8
    run: Run  # The encoder
    # (1, 1, S, S), what the encoder takes: as in the runtime, one buffer for all frames
    batch: Batch
    opencv_threads: int = 1  # What OpenCV is set to

    def preprocess(self) -> None:
        """Convert the frame to the model's input."""
        write_input(self.luma(), self.batch[0])

    def set_opencv_threads(self) -> None:
        """Set them where another path was timed before, in the first call of a turn."""
        if cv2.getNumThreads() != self.opencv_threads:
            cv2.setNumThreads(self.opencv_threads)

    def staged(self) -> dict[str, int]:
        """Return nanoseconds of `total`, `preprocess` (frame to input) and `encode` (to mu)."""
        self.set_opencv_threads()
        begin = time.perf_counter_ns()
        self.preprocess()
        ready = time.perf_counter_ns()
        self.run(self.batch)
        end = time.perf_counter_ns()
        return {"total": end - begin, "preprocess": ready - begin, "encode": end - ready}

    def with_processor_time(self, fps: float | None) -> Laps:
        """Return what gives nanoseconds by the `wall`, and in `processor` time of all threads.

        In a loop that is paced by a camera's clock the processor time runs from one latent to the
        next, so that threads which spin while there is nothing to do are in it.
        """
        wait = pacer(fps) if fps else None
        used_ns = time.process_time_ns()

        def lap() -> dict[str, int]:
            nonlocal used_ns
            self.set_opencv_threads()
            if wait is not None:
                wait()
            begin_ns = time.perf_counter_ns()
            self.preprocess()
            self.run(self.batch)
            wall_ns = time.perf_counter_ns() - begin_ns
            before_ns, used_ns = used_ns, time.process_time_ns()
            return {"wall": wall_ns, "processor": used_ns - before_ns}

        return lap


def path_cases(
    tested: ModelUnderTest,
    *,
    schedule: RoundPlan,
    seed: int,
    threads: int | None = None,
    sizes: Sequence[tuple[int, int]] = FRAMES,
    meter: CaseMeter | None = None,
) -> list[Case]:
    """Time the path from a frame to mu, from JPEG bytes, a decoded YUV frame and a BGR array.

    Grabbing a frame belongs to the camera and is not in it; neither is the decoding of a YUV frame.
    Of smaller frames JPEG bytes alone are taken, and the plain recipe alone without its parts, so
    that a run stays within minutes. Beside JPEG bytes the Huffman codes alone are timed, which
    no path can do without. Luma unlike the reference's, or a latent unlike torch's, is a
    MeasurementError.
    """
    cases: list[Case] = []
    eager = reference_run(tested, "encoder")
    both = " and ".join(tested.outputs("encoder"))
    recipe = Case.planned(group="path", engine=PLAIN, outputs=both)
    behind_ours = recipe.with_facts(engine=EAGER, variant="our luma")
    luma = luma_for(tested.spec, 1, seed)
    image = input_from_pixels(luma)
    with contextlib.ExitStack() as stack:
        installed = _opencv_threads_restored(stack)
        opened, refused = open_all(path_engines(tested, threads), tested, luma, image, stack)
        refused += [] if tested.model else [behind_ours.without(_NO_TORCH)]
        for size in sizes:
            scene = scene_of(*size, seed)
            is_largest = size == max(sizes)
            for source in SOURCES if is_largest else SOURCES[:1]:
                plain = plain_luma(scene, source, tested.spec)
                ours = our_luma(scene, source, tested.spec)
                # Torch eager behind our luma, too, so that both parts show.
                splits = is_largest and tested.model is not None
                recipes = [
                    (recipe, plain, eager, image, installed),
                    *([(behind_ours, ours, eager, image, 1)] if splits else []),
                    *((one.planned, ours, one.run, one.batch, 1) for one in opened),
                ]
                paths = [
                    Path(_placed(case, scene, source), make, run, np.empty_like(like), count)
                    for case, make, run, like, count in recipes
                ]
                planned: list[tuple[Case, Laps]] = [
                    (_checked(path, tested, scene, eager), path.staged) for path in paths
                ]
                if source == "mjpeg":
                    codes = Case.planned(group="path", engine=LIBJPEG, variant=HUFFMAN_ALONE)
                    laps = stopwatch(huffman_alone(scene.jpeg.tobytes(), *size), "total")
                    planned.append((_placed(codes, scene, source), laps))
                cases += timed_cases(planned, schedule, meter)
                cases += [_placed(case, scene, source) for case in refused]
    return cases


def thread_cases(tested: ModelUnderTest, *, schedule: RoundPlan, seed: int) -> list[Case]:
    """Time JPEG bytes to mu in float32, with default thread pools of OpenCV and engines, and ours.

    By the wall and in processor seconds, hot and paced; see `Path.with_processor_time`.
    """
    scene = scene_of(*FRAMES[-1], seed)
    entry = tested.bundle.leanest(GraphKey("encoder", target="onnx"), ("mu",))
    plain = plain_luma(scene, "mjpeg", tested.spec)
    luma = our_luma(scene, "mjpeg", tested.spec)
    onnx = Case.planned(
        group="threads",
        engine=ONNX,
        outputs="mu",
        source="mjpeg",
        frame=FRAMES[-1],
        input_sha256=scene.sha256,
    )
    with contextlib.ExitStack() as stack:
        installed = _opencv_threads_restored(stack)
        ours = stack.enter_context(open_engine(tested.bundle, entry.key))
        same = plain_onnx(tested.bundle.path(entry), None)
        eager = reference_run(tested, "encoder")
        image = input_from_pixels(luma_for(tested.spec, 1, seed))
        taken = np.empty_like(image, ours.input_dtype)
        planned: list[tuple[Case, Laps]] = []
        for pace, fps in ((HOT, None), (PACED, FPS)):
            as_installed = onnx.with_facts(variant=f"threads as installed, {pace}")
            both = " and ".join(tested.outputs("encoder"))
            # Of weights that came as graphs, the recipe runs the float32 one.
            engine = EAGER if tested.model else PLAIN
            in_torch = as_installed.with_facts(engine=engine, outputs=both)
            paths = (
                Path(in_torch, plain, eager, image, installed),
                Path(as_installed, luma, same, taken, installed),
                Path(onnx.with_facts(variant=f"{OURS}, {pace}"), luma, ours.run, taken),
            )
            planned += [(path.planned, path.with_processor_time(fps)) for path in paths]
        return timed_cases(planned, schedule)


def path_engines(tested: ModelUnderTest, threads: int | None) -> list[EngineUnderTest]:
    """Return the leanest encoder of each engine in float32 and int8, as far as there is one."""
    leading = engines_under_test(tested, "encoder", 1, threads=threads, leading=True)
    # OpenVINO in float32 is never what `auto` takes.
    taken = {(ONNX, "fp32"), (ONNX, "int8"), (OPENVINO, "int8")}
    forms = [(one.planned.engine, one.planned.precision) for one in leading]
    return [one for one, form in zip(leading, forms, strict=True) if one.entry and form in taken]


def _opencv_threads_restored(stack: contextlib.ExitStack) -> int:
    """Return how many threads OpenCV has, which it gets back when the stack ends."""
    threads = cv2.getNumThreads()
    stack.callback(cv2.setNumThreads, threads)
    return threads


def _placed(case: Case, scene: Scene, source: FrameSource) -> Case:
    height, width = scene.bgr.shape[:2]
    jpeg = f"a JPEG of {scene.jpeg.size} bytes, quality {JPEG_QUALITY}"
    return case.with_facts(
        group="path",
        source=source,
        frame=(width, height),
        input_sha256=scene.sha256,
        prepare_s=None,
        notes=((jpeg,) if source == "mjpeg" else ()) + case.notes,
    )


def _checked(path: Path, tested: ModelUnderTest, scene: Scene, eager: Run) -> Case:
    """Compare a path's luma with the reference, and its latent with torch's of the same luma."""
    luma = path.luma()
    # Luma is in every form of a scene; of colours only what the form keeps can be asked for.
    is_grey, source = tested.spec.color == "grey", path.planned.source
    image = scene.bgr if is_grey or source is None else scene.carried(source)
    far = np.abs(luma.astype(np.float64) - reference_picture(image, tested.spec)).mean()
    title = f"{path.planned.how} at {path.planned.what}"
    what = "luma is" if is_grey else "colours are"
    most = MOST_LEVELS if is_grey else MOST_COLOUR_LEVELS
    if path.planned.engine != PLAIN and not far <= most:
        raise MeasurementError(
            f"{title}: {what} {far:.2f} levels from the reference on average, limit "
            f"{most:g}: report this, and do not trust latents of such frames"
        )
    near = Agreement(
        output=f"{'luma' if is_grey else 'colours'}, mean difference",
        reference="resized in float64",
        max_difference=float(far),
        limit=most,
    )
    agreement: tuple[Agreement, ...] = (near,)
    if path.planned.engine not in {PLAIN, EAGER}:  # which is torch itself
        path.preprocess()
        expected = eager(input_from_pixels(luma[None]))
        found = {"mu": path.run(path.batch)["mu"]}
        agreement += agreement_with(
            expected, found, title, path.planned.precision, against=tested.reference_engine
        )
    return path.planned.with_facts(agreement=agreement)
