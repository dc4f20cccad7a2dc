from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import BackendError, ConfigError
from motorvae.runtime.engines.open import EngineRequest, open_engine, open_file

IMPORT_AND_RUN = """
import sys
from pathlib import Path
from motorvae.runtime.engines.open import EngineRequest, open_file
open_file(Path(sys.argv[1]), EngineRequest("openvino")).close()
print("openvino_telemetry" in sys.modules and sys.modules["openvino_telemetry"] is not None)
"""
SIGNAL_AFTER_CLOSE = """
import gc, os, signal, sys, threading
from pathlib import Path
from motorvae.runtime.engines.open import EngineRequest, open_file
backends = [open_file(Path(sys.argv[1]), EngineRequest("openvino"))]
def close_elsewhere():
    backends.pop().close()
    gc.collect()
worker = threading.Thread(target=close_elsewhere)
worker.start()
worker.join()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
BLOCKED = """
import sys
from pathlib import Path
from motorvae.runtime.engines.open import EngineRequest, open_file
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "openvino":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from motorvae.runtime.core.errors import MissingDependencyError
try:
    open_file(Path("encoder.onnx"), EngineRequest("openvino"))
except MissingDependencyError as error:
    print(error)
"""


def has_bf16() -> bool:
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


PINNED = """
import os, sys, threading
from pathlib import Path
import numpy as np
from motorvae.runtime.engines.openvino_runtime import OpenVINOBackend
backends = [OpenVINOBackend(Path(sys.argv[1]), threads=1) for _ in range(2)]
usable, enough = os.sched_getaffinity(0), threading.Event()
def work(backend):
    batch = np.zeros((64, *backend.image_shape), backend.input_dtype)
    while not enough.is_set():
        backend.run(batch)
threads = [threading.Thread(target=work, args=(one,)) for one in backends]
for thread in threads:
    thread.start()
found = [os.sched_getaffinity(thread.native_id) for _ in range(2000) for thread in threads]
enough.set()
for thread in threads:
    thread.join()
print([one for one in found if one != usable][:1])
"""


def test_both_engines_give_the_same_latents(small_bundle: Path) -> None:
    bundle = load_bundle(small_bundle)
    image = np.random.default_rng(1).random((3, 1, 32, 32), np.float32)
    entry = bundle.entry(GraphKey("encoder"))
    with (
        open_engine(bundle, entry.key, EngineRequest("openvino")) as one,
        open_engine(bundle, GraphKey("encoder")) as other,
    ):
        assert one.outputs == other.outputs == ("mu", "log_var")
        assert one.name.startswith("OpenVINO ")
        for name in one.outputs:
            assert np.allclose(one.run(image)[name], other.run(image)[name], atol=1e-4)


def test_float32_stays_float32_and_bf16_is_read_back(small_bundle: Path) -> None:
    image = np.random.default_rng(1).random((1, 1, 32, 32), np.float32)
    path = small_bundle / "encoder.onnx"
    with open_file(path, EngineRequest("openvino")) as full:
        exact = full.run(image)["mu"]
    if not has_bf16():
        with pytest.raises(BackendError, match=r"does not compute encoder\.onnx in bf16 on this"):
            open_file(path, EngineRequest("openvino", precision="bf16"))
        return
    with open_file(path, EngineRequest("openvino", precision="bf16")) as rounded:
        found = rounded.run(image)["mu"]
    difference = np.abs(found - exact).max()
    assert 1e-5 * exact.std() < difference < 0.1 * exact.std()


def test_a_float32_graph_is_never_called_int8(small_bundle: Path) -> None:
    with pytest.raises(BackendError, match=r"encoder\.onnx in int8 .*\d+ in f32.*another --precis"):
        open_file(small_bundle / "encoder.onnx", EngineRequest("openvino", precision="int8"))


def test_what_has_no_weights_gets_no_label(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    faces = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "mu")
    ]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["mu"])], "g", *[[f] for f in faces]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(BackendError, match="none found"):
        open_file(tmp_path / "relu.onnx", EngineRequest("openvino", precision="int8"))


def test_an_array_that_must_not_be_written_is_read(small_bundle: Path) -> None:
    image = np.random.default_rng(1).random((1, 1, 32, 32), np.float32)
    with open_file(small_bundle / "encoder.onnx", EngineRequest("openvino")) as encoder:
        expected = encoder.run(image)["mu"]
        image.flags.writeable = False
        assert np.array_equal(encoder.run(image)["mu"], expected)


@pytest.mark.parametrize("data", [b"", b"no graph", bytes(2000)])
def test_bytes_that_are_no_graph_are_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(data)
    with pytest.raises(BackendError, match=r"cannot open .*encoder\.onnx: .*export the") as caught:
        open_file(path, EngineRequest("openvino"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [0, -1, 4096])
def test_threads_out_of_range(small_bundle: Path, threads: int) -> None:
    with pytest.raises(ConfigError, match=f"threads={threads} is out of range: take 1 to"):
        open_file(small_bundle / "encoder.onnx", EngineRequest("openvino", threads=threads))


def test_nothing_is_written_at_home_and_no_telemetry_is_loaded(
    small_bundle: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_RUN, str(small_bundle / "encoder.onnx")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_after_another_thread_closed_the_last_one_is_harmless(
    small_bundle: Path,
) -> None:
    """OpenVINO's plug-in would take the main thread's stack for signal handlers with it."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_AFTER_CLOSE, str(small_bundle / "encoder.onnx")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted")


def test_without_the_package_one_line_says_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True
    )
    assert "pip install 'motorvae[openvino]'" in done.stdout
    assert "--backend onnx" in done.stdout


def test_engines_of_one_thread_are_not_pinned_to_the_same_core(
    python: Callable[..., Any], small_bundle: Path
) -> None:
    """Two of them in one process took turns on one core, and the other was idle."""
    done = python(PINNED, small_bundle / "encoder.onnx")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == "[]\n"
