"""TensorRTBackend on both device layers: parts, padding, graphs, threads, errors and releases."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey, Tensor
from motorvae.runtime.core.errors import BackendError, EngineError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.engine import TensorRTBackend
from motorvae.runtime.engines.tensorrt.find import EnginePlan
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

if TYPE_CHECKING:
    from .conftest import StandIn

SPEC = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)
TENSORS = {"image": [1, 32, 32], "mu": [8], "log_var": [8]}
LUMA = {"dtypes": {"image": "uint8"}}
MU = {**LUMA, "tensors": {"image": [1, 32, 32], "mu": [8]}}
FRAMES = 10_000

KERNELS = "motorvae/kernels-0000000000000000-10.3.0-sm89.cache"

Open = Callable[..., TensorRTBackend]


def plan_of(content: bytes, module: Any, *, rtx: bool = False) -> EnginePlan:
    entry: Any = SimpleNamespace(key=GraphKey("encoder"), sha256="0" * 64)
    package = TensorRTPackage("tensorrt-rtx" if rtx else "tensorrt", module, "10.3.0")
    gpu = Gpu("stand-in", "8.9", "13.0", None, 1 << 30, integrated=False)
    return EnginePlan(content, entry, package, gpu)


@pytest.fixture
def opened(
    open_layer: Callable[..., Any],
    host_tensorrt: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Open:
    """Open an engine of these facts; what it keeps goes into `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def open_engine(
        *,
        profile: tuple[int, int, int] = (1, 1, 8),
        rtx: bool = False,
        cuda_graph: bool = True,
        **facts: object,
    ) -> TensorRTBackend:
        content = json.dumps({"tensors": TENSORS, "profile": profile} | facts).encode()
        plan = plan_of(content, host_tensorrt.module, rtx=rtx)
        return TensorRTBackend(plan, open_layer(), cuda_graph=cuda_graph)

    return open_engine


def images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random((count, 1, 32, 32), dtype=np.float32)


def luma(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 32, 32), np.uint8)


def check(backend: TensorRTBackend, batch: np.ndarray[Any, Any]) -> None:
    """The stand-in's engine gives the first bytes of an image, read as float32."""
    found = backend.run(batch)
    rows = batch.reshape(len(batch), -1).view(np.float32)
    assert tuple(found) == backend.outputs
    for place, values in enumerate(found.values()):
        np.testing.assert_array_equal(values, rows[:, 8 * place : 8 * place + 8])


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("profile", [(1, 1, 8), (1, 1, 1), (4, 4, 6), (2, 2, 2)])
@pytest.mark.parametrize(
    ("facts", "outputs", "make"),
    [({}, ("mu", "log_var"), images), (LUMA, ("mu", "log_var"), luma), (MU, ("mu",), luma)],
    ids=["full", "luma", "mu"],
)
def test_any_batch_runs_in_parts_that_fit_the_profile(
    opened: Open,
    facts: dict[str, Any],
    outputs: tuple[str, ...],
    make: Callable[..., np.ndarray[Any, Any]],
    profile: tuple[int, int, int],
    cuda_graph: bool,
) -> None:
    with opened(profile=profile, cuda_graph=cuda_graph, **facts) as backend:
        assert (backend.outputs, backend.input_dtype) == (outputs, make(1).dtype)
        for seed, count in enumerate((1, 1, 1, 8, 3, 3, 20, 1, 16, 16, 7)):
            check(backend, make(count, seed))


def test_luma_takes_a_quarter_of_the_memory(opened: Open, stand_in: StandIn) -> None:
    """Eight images of 1024 pixels, on the host and on the device, and their 128 outputs."""
    stand_in.limit(2 * (8 * 1024 + 8 * 64))
    with opened(**LUMA) as backend:
        check(backend, luma(8))


def test_results_belong_to_the_caller(opened: Open) -> None:
    with opened() as backend:
        first = backend.run(images(2, 1))["mu"]
        kept = first.copy()
        backend.run(images(2, 2))
        np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(first, kept)


def test_second_run_of_a_shape_is_recorded_and_later_ones_replay_it(
    opened: Open, host_tensorrt: Any
) -> None:
    with opened() as backend:
        executions = []
        for seed in range(6):
            check(backend, images(1, seed))
            executions.append(host_tensorrt.engines[0].contexts[0].executions)
        # Once for real, once into the record, and never again.
        assert executions == [1, 2, 2, 2, 2, 2]
        for count, expected in ((5, 3), (5, 4), (5, 4), (1, 5)):
            check(backend, images(count, count))
            assert host_tensorrt.engines[0].contexts[0].executions == expected
        assert backend.notes == ()


def test_without_a_graph_every_run_is_enqueued(opened: Open, host_tensorrt: Any) -> None:
    with opened(cuda_graph=False) as backend:
        for seed in range(4):
            check(backend, images(1, seed))
        assert host_tensorrt.engines[0].contexts[0].executions == 4


def test_shape_changes_leave_no_graph_behind(opened: Open, stand_in: StandIn) -> None:
    with opened() as backend:
        for seed in range(20):
            for count in (1, 1, 2, 2):
                check(backend, images(count, seed))
            assert stand_in.live().get("executable", 0) <= 1


def test_engine_that_cannot_be_recorded_runs_without_a_graph_and_says_so(opened: Open) -> None:
    with opened(allocates=True) as backend:
        for seed in range(4):
            check(backend, images(1, seed))
        (note,) = backend.notes
        assert note.startswith("runs without a CUDA graph: ")


def test_rtx_leaves_graphs_to_the_runtime_and_keeps_its_kernels(
    opened: Open, host_tensorrt: Any, tmp_path: Path
) -> None:
    cache = tmp_path / KERNELS
    with opened(rtx=True) as backend:
        for seed in range(4):
            check(backend, images(1, seed))
        engine = host_tensorrt.engines[0]
        assert engine.configs[0].cuda_graph_strategy == "whole graph"
        assert engine.contexts[0].executions == 4
    assert cache.read_bytes() == b"nothing yet+"
    with opened(rtx=True, cuda_graph=False):
        assert host_tensorrt.engines[1].configs[0].cuda_graph_strategy == "disabled"
    assert cache.read_bytes() == b"nothing yet++"


def test_ten_thousand_frames_leave_nothing_behind(opened: Open, stand_in: StandIn) -> None:
    batch = images(1)
    with opened() as backend:
        for _ in range(100):
            backend.run(batch)
        live, created = stand_in.live(), stand_in.created()
        for _ in range(FRAMES):
            backend.run(batch)
        assert (stand_in.live(), stand_in.created()) == (live, created)
        assert stand_in.pageable_copies == 0
    assert stand_in.live() == {}


def test_any_thread_may_run_and_another_may_close(opened: Open, stand_in: StandIn) -> None:
    backend = opened()
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for seed in range(5):
                check(backend, images(2, seed))
            assert stand_in.context_depth == 0
        except BaseException as error:  # noqa: BLE001  # shown by the main thread
            failures.append(error)

    for _ in range(2):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        check(backend, images(2))
    closing = threading.Thread(target=backend.close)
    closing.start()
    closing.join()
    assert failures == []
    assert stand_in.live() == {}


def test_threads_that_run_at_once_take_turns(opened: Open) -> None:
    def use(count: int) -> None:
        for seed in range(20):
            check(backend, images(count, seed))

    with opened() as backend, ThreadPoolExecutor(4) as pool:
        list(pool.map(use, (1, 2, 3, 9)))


def test_repeated_run_is_timed_by_events_at_each_border(opened: Open) -> None:
    with opened(cuda_graph=False) as backend:
        with pytest.raises(
            BackendError, match=r"encoder\.fp32\.tensorrt\.engine has no run to repeat: run a batch"
        ):
            backend.repeat_timed()
        check(backend, images(1))
        found = dict(backend.repeat_timed())
        whole, enqueue = found.pop("device"), found.pop("enqueue")
        assert enqueue > 0
        assert list(found) == ["h2d", "compute", "d2h"]
        assert min(found.values()) >= 0
        assert whole == pytest.approx(sum(found.values()), abs=0.01)


def test_recorded_run_is_timed_as_a_whole(opened: Open, host_tensorrt: Any) -> None:
    with opened() as backend:
        for seed in range(2):
            check(backend, images(1, seed))
        executions = host_tensorrt.engines[0].contexts[0].executions
        assert list(backend.repeat_timed()) == ["device", "enqueue"]
        assert host_tensorrt.engines[0].contexts[0].executions == executions


def test_closed_engine_is_one_clear_line(opened: Open) -> None:
    backend = opened()
    backend.close()
    backend.close()
    with pytest.raises(
        BackendError, match=r"encoder\.fp32\.tensorrt\.engine was closed: open it again"
    ):
        backend.run(images(1))


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 1, 32, 32), np.float64),
        np.zeros((1, 1, 32, 16), np.float32),
        np.zeros((0, 1, 32, 32), np.float32),
    ],
)
def test_wrong_input_is_quoted(opened: Open, batch: np.ndarray[Any, Any]) -> None:
    with opened() as backend, pytest.raises(BackendError, match="takes float32") as caught:
        backend.run(batch)
    assert f"{batch.dtype} {batch.shape}" in str(caught.value)


def test_images_of_the_other_type_are_not_converted_unasked(opened: Open) -> None:
    with (
        opened(**LUMA) as backend,
        pytest.raises(BackendError, match=r"takes uint8 .*, and was given float32"),
    ):
        backend.run(images(1))
    with opened() as backend, pytest.raises(BackendError, match=r"float32 .* given uint8"):
        backend.run(luma(1))


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"dtypes": {"image": "float16"}}, "one input of float32 or uint8 and gives float32"),
        ({"dtypes": {"log_var": "uint8"}}, "one input of float32 or uint8 and gives float32"),
        ({"tensors": {"image": [1, 32, 32]}}, "one input of float32 or uint8 and gives float32"),
        (
            {"no_context": True},
            r"cannot run encoder\.fp32\.tensorrt\.engine: it gave no reason; close other",
        ),
    ],
)
def test_engine_that_does_not_open_leaves_nothing_behind(
    opened: Open, stand_in: StandIn, facts: dict[str, object], says: str
) -> None:
    with pytest.raises(EngineError, match=says):
        opened(**facts)
    assert stand_in.live() == {}


def test_garbage_is_one_clear_line(
    open_layer: Callable[..., Any], host_tensorrt: Any, stand_in: StandIn
) -> None:
    plan = plan_of(b"\0garbage", host_tensorrt.module)
    with pytest.raises(EngineError, match=r"cannot load .*: Serialization assertion failed; build"):
        TensorRTBackend(plan, open_layer())
    assert stand_in.live() == {}


def test_runtime_cache_that_cannot_be_kept_does_not_keep_the_rest(
    opened: Open, host_tensorrt: Any, tmp_path: Path, stand_in: StandIn
) -> None:
    backend = opened(rtx=True)
    host_tensorrt.engines[0].configs[0].cache.content = None
    backend.close()
    assert list(tmp_path.iterdir()) == []
    assert stand_in.live() == {}


def test_too_little_memory_leaves_nothing_behind(opened: Open, stand_in: StandIn) -> None:
    stand_in.limit(40_000)
    with pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        opened()
    assert stand_in.live() == {}


def test_failed_run_quotes_the_engine_and_does_not_end_the_backend(
    opened: Open, host_tensorrt: Any
) -> None:
    with opened() as backend:
        engine = host_tensorrt.engines[0]
        engine.logger.log(1, "an old error of another call")
        check(backend, images(1))
        engine.facts["fails"] = True
        with pytest.raises(
            BackendError, match=r"failed on encoder\.fp32\.tensorrt\.engine: no kernel; build"
        ):
            backend.run(images(2))
        engine.facts["fails"] = False
        check(backend, images(3))


def test_tensors_are_held_against_the_announced_ones(opened: Open) -> None:
    encoder, decoder = GraphKey("encoder"), GraphKey("decoder")
    with opened() as backend:
        backend.check_tensors(encoder.inputs(SPEC), encoder.outputs(SPEC))
        with pytest.raises(EngineError, match="and the manifest announces"):
            backend.check_tensors(decoder.inputs(SPEC), decoder.outputs(SPEC))
        inputs, outputs = encoder.inputs(SPEC), encoder.outputs(SPEC)
        wider = tuple(Tensor(name=t.name, dtype=t.dtype, shape=("batch", 9)) for t in outputs)
        with pytest.raises(EngineError, match="and the manifest announces"):
            backend.check_tensors(inputs, wider)
