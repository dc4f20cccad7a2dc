"""python -m motorvae.benchmarks.frames BUNDLE: the host's pixel work against whole-frame graphs.

Each frame size in NV12 and BGR, in ONNX Runtime and in OpenVINO, float32, `mu` and `log_var`:
`host` is a frame to a fitted picture and its run of the encoder, `graph` a run of the graph that
takes the frame. The last line is JSON of all medians and minima, in milliseconds.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from ..export.frames.encoder import frame_from_encoder
from ..export.frames.judging_frames import Pixels, frame_from_image
from ..runtime.bundle.frame_format import FrameFormat, frame_format_from_text
from ..runtime.bundle.graph_key import GraphKey
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.core.errors import BackendError, MissingDependencyError
from ..runtime.core.frame import Mode
from ..runtime.core.spec import ModelSpec
from ..runtime.engines.base import Backend
from ..runtime.engines.open import BackendName, EngineRequest, open_engine, open_file
from ..runtime.pixels.camera_formats import fitted_from_raw
from ..runtime.pixels.convert import fitted, input_from_pixels, picture_from_image
from ..runtime.sources.synthetic.vehicles import vehicle
from .measure.rounds import RoundPlan, interleaved, stopwatch

FRAMES = ("nv12:1920x1080", "bgr:1920x1080", "nv12:1280x720", "bgr:1280x720")
ENGINES: tuple[BackendName, ...] = ("onnx", "openvino")
_FEW = 60


def main(words: Sequence[str]) -> int:
    """Measure; `words` are a bundle's folder and how many samples, by default 60."""
    bundle = load_bundle(Path(words[0]), hash_all=False)
    plan = RoundPlan(samples=int(words[1]) if len(words) > 1 else _FEW, warmup=5, settle_ms=50)
    results = {}
    for backend in ENGINES:
        request = EngineRequest(backend=backend)
        try:
            encoder = open_engine(bundle, GraphKey("encoder"), request)
        except (BackendError, MissingDependencyError) as error:
            print(f"{backend}: skipped because {error.clause()}", file=sys.stderr)
            continue
        with encoder:
            for text in FRAMES:
                results[backend, text] = _measured(bundle, encoder, text, request, plan)
                print(f"{encoder.name}, {text}: {results[backend, text]}", flush=True)
    print(json.dumps({" ".join(key): found for key, found in results.items()}))
    return 0


def _measured(
    bundle: Bundle, encoder: Backend, text: str, request: EngineRequest, plan: RoundPlan
) -> dict[str, list[float]]:
    """Return median and minimum of each way, and of the two parts of the host's."""
    frame, spec = frame_format_from_text(text), bundle.spec
    large = vehicle(4, 0, max(frame.size))[0][: frame.size[0], : frame.size[1]]
    image = np.ascontiguousarray(np.broadcast_to(large.reshape(*frame.size, -1), (*frame.size, 3)))
    taken = frame_from_image(image, frame)
    host = functools.partial(_picture, taken, frame, spec)
    picture = input_from_pixels(host()[None])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.onnx"
        graph_bytes = bundle.content(bundle.entry(GraphKey("encoder")))
        model = ir.from_proto(onnx.load_from_string(graph_bytes))
        frame_from_encoder(model, spec, frame)
        ir.save(model, path)
        with open_file(path, request) as graph:
            work: dict[str, Callable[[], object]] = {
                "pixels": host,
                "encoder": lambda: encoder.run(picture),
                "host": lambda: encoder.run(input_from_pixels(host()[None])),
                "graph": lambda: graph.run(taken[None]),
            }
            timed = {name: stopwatch(call, name) for name, call in work.items()}
            samples = interleaved(timed, plan)
    return {
        name: [round(of(samples[name][name]) / 1e6, 2) for of in (statistics.median, min)]
        for name in work
    }


def _picture(taken: Pixels, frame: FrameFormat, spec: ModelSpec) -> Pixels:
    """Make a fitted picture of a frame as a stream does."""
    if frame.layout == "bgr":
        return fitted(picture_from_image(taken, spec.color), spec)
    height, width = frame.size
    found = fitted_from_raw(taken, Mode(width, height, fourcc="NV12"), spec)
    if found is None:
        raise AssertionError(f"{frame} is what its mode says")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
