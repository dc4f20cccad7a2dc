"""The stand-in driver as tests see it: real pycuda and real cuda-bindings run on it.

`make test-driver` builds both and sets LD_LIBRARY_PATH. Of a GPU this covers what host memory can
show: the order of copies, contexts and threads, errors, releases. No kernel runs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.runtime.bundle.graph_key import Part
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.engines.gpu_info import Gpu, find_gpu
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

from .engine_bundles import FORMS, VERSION, bundle_of, entry_of, put_engine
from .real_driver import KINDS, REAL, SKIPPED, RealDriver, count_calls

if REAL:
    count_calls()

ROOM_BYTES = 1 << 28


class StandIn:
    """What the stand-in driver tells of itself."""

    waits = True  # whatever was started is done when somebody waits for it, and not before

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.stand_in_live.restype = library.stand_in_created.restype = ctypes.c_long
        library.stand_in_pageable_copies.restype = ctypes.c_long
        library.stand_in_abandoned.restype = ctypes.c_long

    def live(self) -> dict[str, int]:
        counts = {kind: self._library.stand_in_live(i) for i, kind in enumerate(KINDS)}
        return {kind: count for kind, count in counts.items() if count}

    def created(self) -> int:
        return sum(self._library.stand_in_created(i) for i in range(len(KINDS)))

    def fail(self, function: str, code: int) -> None:
        """Let the next call of one driver function fail; "" withdraws that."""
        self._library.stand_in_fail(function.encode(), code)

    def limit(self, size_bytes: int) -> None:
        """Leave so much memory, of the device and page-locked together."""
        self._library.stand_in_limit(ctypes.c_size_t(size_bytes))

    def take_contexts_from_handles(self, *, on: bool = True) -> None:
        """Let calls with a stream, an event or a graph do without a context that is current."""
        self._library.stand_in_contexts_from_handles(ctypes.c_int(on))

    def only(self, reason: str) -> None:
        """Go on: this is the stand-in."""

    def is_page_locked(self, array: npt.NDArray[Any]) -> bool:
        address = ctypes.c_void_p(array.__array_interface__["data"][0])
        return bool(self._library.stand_in_is_page_locked(address, ctypes.c_size_t(array.nbytes)))

    def peek(self, address: int, floats: int) -> npt.NDArray[np.float32]:
        """What device memory holds now, with nothing waited for."""
        out = np.zeros(floats, np.float32)
        memory = ctypes.c_void_p(out.__array_interface__["data"][0])
        size = ctypes.c_size_t(out.nbytes)
        assert self._library.stand_in_peek(ctypes.c_uint64(address), memory, size)
        return out

    def sweep(self) -> None:
        """Free what a test leaked on purpose."""
        self._library.stand_in_sweep()

    @property
    def context_depth(self) -> int:
        """How many contexts lie on this thread's stack."""
        depth: int = self._library.stand_in_context_depth()
        return depth

    @property
    def pageable_copies(self) -> int:
        """How many copies to or from memory that is not page-locked there were."""
        copies: int = self._library.stand_in_pageable_copies()
        return copies

    @property
    def abandoned(self) -> int:
        """How much work was under way on streams when they were destroyed."""
        abandoned: int = self._library.stand_in_abandoned()
        return abandoned


@pytest.fixture(autouse=True)
def stand_in() -> Iterator[StandIn | RealDriver]:
    """The stand-in, or a real driver in its place; each test must leave nothing behind in it."""
    if REAL:
        real = RealDriver()
        found = (real.live(), real.context_depth)
        yield real
        assert (real.live(), real.context_depth) == found
        return
    try:
        library = ctypes.CDLL("libcuda.so.1")
        library.stand_in_live  # noqa: B018  # a real driver has no such name
    except (OSError, AttributeError):
        pytest.fail("libcuda.so.1 is not the stand-in driver: run these by `make test-driver`")
    it = StandIn(library)
    it.fail("", 0)
    it.take_contexts_from_handles(on=False)
    it.limit(ROOM_BYTES)
    before = (it.live(), it.context_depth, it.pageable_copies, it.abandoned)
    yield it
    assert (it.live(), it.context_depth, it.pageable_copies, it.abandoned) == before


@pytest.fixture(params=["pycuda", "cuda-bindings"])
def open_layer(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The class of one of the two layers."""
    if request.param == "pycuda":
        from motorvae.runtime.engines.cuda.pycuda_layer import PycudaLayer

        return PycudaLayer
    from motorvae.runtime.engines.cuda.bindings import BindingsLayer

    return BindingsLayer


@pytest.fixture
def layer(open_layer: Callable[..., Any]) -> Iterator[Any]:
    with open_layer() as opened:
        yield opened


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run code in a process of its own, where packages can be blocked or the driver be absent."""

    def run(code: str, *, blocked: tuple[str, ...] = (), driver: bool = True) -> str:
        if REAL and not driver:
            pytest.skip(f"{SKIPPED}it cannot be taken away")
        lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in blocked), code]
        environment = dict(os.environ)
        if not driver:
            environment.pop("LD_LIBRARY_PATH", None)
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        return done.stdout.strip()

    return run


@pytest.fixture
def host_tensorrt() -> Any:
    """What stands for TensorRT, fresh for each test."""
    spec = importlib.util.spec_from_file_location(
        "host_tensorrt", Path(__file__).with_name("host_tensorrt.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["host_tensorrt"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu() -> Gpu:
    found = find_gpu()
    assert isinstance(found, Gpu)
    return found


@pytest.fixture
def package(host_tensorrt: Any, monkeypatch: pytest.MonkeyPatch) -> TensorRTPackage:
    """TensorRT 10.3 as far as anybody can tell, also for `import tensorrt`."""
    import sys

    host_tensorrt.module.__version__ = VERSION
    monkeypatch.setitem(sys.modules, "tensorrt", host_tensorrt.module)
    return TensorRTPackage("tensorrt", host_tensorrt.module, VERSION)


@pytest.fixture
def bundle(tmp_path: Path, gpu: Gpu) -> Bundle:
    """A bundle with an FP16 engine of each whole graph, as there were before there were forms."""
    entries = [entry_of(graph, "fp16", "full") for graph in get_args(Part)]
    made = bundle_of(tmp_path, *entries)
    for entry in entries:
        put_engine(made, entry, gpu)
    return made


@pytest.fixture
def forms(tmp_path: Path, gpu: Gpu) -> Bundle:
    """A bundle with FP16 engines of every form, and INT8 ones of those that take luma."""
    entries = [entry_of(graph, "fp16", variant) for graph, variant in FORMS]
    entries += [entry_of(graph, "int8", variant) for graph, variant in FORMS[1:]]
    made = bundle_of(tmp_path / "forms", *entries)
    made.folder.mkdir()
    for entry in entries:
        put_engine(made, entry, gpu)
    return made
