from __future__ import annotations

import pytest

from motorvae.runtime.bulk.cluster.layout import Layout, layout_of
from motorvae.runtime.core.errors import ConfigError


@pytest.mark.parametrize(
    ("nodes", "cores", "expected"),
    [
        ([{"CPU": 1}], None, Layout(1, 1, 0, 1)),
        ([{"CPU": 8}, {"CPU": 8}], None, Layout(2, 8, 0, 2)),
        ([{"CPU": 64}], None, Layout(8, 8, 0, 1)),
        ([{"CPU": 12}], None, Layout(2, 6, 0, 1)),  # not one of 8, and 4 idle
        ([{"CPU": 2}, {"CPU": 64}], None, Layout(33, 2, 0, 2)),
        ([{"CPU": 0}, {"CPU": 4}], None, Layout(1, 4, 0, 1)),
        ([{"CPU": 8}, {"CPU": 2}], 4, Layout(2, 4, 0, 1, 1)),
        ([{"CPU": 32, "GPU": 4}, {"CPU": 64}], None, Layout(4, 8, 1, 1, 1)),
        ([{"CPU": 32, "GPU": 4}, {"CPU": 8, "GPU": 1}], None, Layout(5, 8, 1, 2)),
        ([{"CPU": 32, "GPU": 4}], 16, Layout(2, 16, 1, 1)),
        # A head that is to run nothing, and one node of few cores, do not make all workers small.
        ([{"CPU": 0, "GPU": 1}, {"CPU": 64, "GPU": 8}], None, Layout(8, 8, 1, 1)),
        ([{"CPU": 4, "GPU": 4}, {"CPU": 64, "GPU": 1}], None, Layout(1, 64, 1, 1, 1)),
    ],
)
def test_workers_fill_the_machines(
    nodes: list[dict[str, float]], cores: int | None, expected: Layout
) -> None:
    assert layout_of(nodes, cores, uses_gpus=True) == expected


def test_engines_of_processors_leave_gpus_alone() -> None:
    layout = layout_of([{"CPU": 16, "GPU": 1}], None, uses_gpus=False)
    assert str(layout) == "2 workers of 8 threads on 1 node"


def test_what_stays_idle_is_said() -> None:
    layout = layout_of([{"CPU": 8, "GPU": 1}, {"CPU": 64}], None, uses_gpus=True)
    assert str(layout) == "1 worker of 8 threads and a GPU on 1 node; 1 more has no room or no GPU"


@pytest.mark.parametrize("nodes", [[], [{"CPU": 0}], [{"CPU": 3}]])
def test_a_cluster_without_room_is_refused(nodes: list[dict[str, float]]) -> None:
    with pytest.raises(ConfigError, match="has room for a worker of 4 cores"):
        layout_of(nodes, 4, uses_gpus=True)
