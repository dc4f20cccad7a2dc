"""Results made by hand, and the command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from motorvae.benchmarks.cli import main
from motorvae.benchmarks.measure.case import Case, samples_of
from motorvae.benchmarks.measure.result import Environment, Rate, Result, Settings
from motorvae.benchmarks.measure.roofline import cost_of, roofline_of
from motorvae.benchmarks.measure.rounds import RoundPlan
from motorvae.benchmarks.under_test.engines import thread_limit
from motorvae.benchmarks.under_test.model_under_test import ModelUnderTest, untrained_model
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.core.spec import ModelSpec

from .sensors.counters import counters

MS = 1_000_000


def steady(ms: float, count: int = 20) -> tuple[int, ...]:
    """Timings around a value, within 2 %."""
    return tuple(round(ms * MS * (0.99 + 0.02 * (place % 5) / 4)) for place in range(count))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for a busy core turn tiny models into slow tests."""
    with thread_limit(1):
        yield


@pytest.fixture(scope="session")
def tested(small_spec: ModelSpec) -> Iterator[ModelUnderTest]:
    """Random weights, exported for real."""
    with untrained_model(small_spec, seed=0) as found:
        yield found


@pytest.fixture
def result(small_spec: ModelSpec) -> Result:
    """Every kind of case, one of them not measured and one unstable."""
    cost = cost_of(small_spec, GraphKey("encoder"))
    p50_ms = samples_of(steady(5.25)).p50
    restless = tuple(ms * MS for ms in (11, 11, 11, 33, 33, 33))
    return Result(
        created="2026-11-23T12:00:00+00:00",
        command="motorvae-bench run --untrained",
        model=small_spec,
        settings=Settings(
            quick=False,
            untrained=True,
            weights_sha256="ab" * 32,
            seed=0,
            schedule=RoundPlan(samples=20),
            training_schedule=None,
            spread_limit=0.1,
            drift_limit=0.1,
        ),
        environment=Environment(
            machine="x86_64",
            cpu="A processor",
            cores=2,
            logical_cores=2,
            usable_cores=2,
            memory_bytes=1 << 33,
            system="Linux",
            python="3.11.7",
            versions={"torch": "2.13.0"},
            threads={"torch": 2},
            governor=None,
            load_start=(0.1, 0.1, 0.1),
            load_end=(2.0, 1.0, 0.5),
        ),
        matrix={"fp32": Rate(work=2 * 10**9, series=samples_of(steady(20)))},
        copy_memory=Rate(work=10**8, series=samples_of(steady(10))),
        read_memory=Rate(work=10**8, series=samples_of(steady(8))),
        cases=(
            Case(
                group="encoder",
                engine="torch eager",
                batch=1,
                stages={"run": samples_of(steady(5.25))},
                roofline=roofline_of(cost, flops_per_s=1e11, bytes_per_s=1e10, p50_ms=p50_ms),
            ),
            Case(group="encoder", engine="torch.compile", batch=1, not_measured="no compiler"),
            Case(group="encoder", engine="ONNX Runtime", batch=1, not_measured="yet").timed(
                {"run": restless}
            ),
            Case(
                group="path",
                engine="ONNX Runtime",
                source="bgr",
                frame=(640, 480),
                stages={
                    "total": samples_of(steady(6.5)),
                    "preprocess": samples_of(steady(1.25)),
                    "encode": samples_of(steady(5.25)),
                },
            ),
            Case(
                group="training",
                engine="torch eager",
                batch=64,
                stages={"step": samples_of(steady(640, 5))},
            ),
        ),
        warnings=(),
    )


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run motorvae-bench; return its exit code and what it said."""

    def call(*args: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return code, capsys.readouterr().err

    return call


@pytest.fixture
def running() -> Iterator[Callable[..., None]]:
    """Make a counter run; see `counters`."""
    with counters() as start:
        yield start
