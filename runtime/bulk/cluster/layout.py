"""Layout: how many workers a cluster has room for, and what each takes of a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.errors import ConfigError

MOST_CORES = 8
"""Of one worker on processors; a machine with more cores has several."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Workers of one size, as many as the machines have room for."""

    count: int
    cores: int  # of each
    gpus: int  # of each: 0 or 1
    nodes: int  # machines that have room for one

    def __str__(self) -> str:
        workers = "1 worker" if self.count == 1 else f"{self.count} workers"
        threads = "1 thread" if self.cores == 1 else f"{self.cores} threads"
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        each = f"{threads} and a GPU" if self.gpus else threads
        return f"{workers} of {each} on {nodes}"


def layout_of(
    nodes: Sequence[Mapping[str, float]], cores: int | None, *, uses_gpus: bool
) -> Layout:
    """Lay workers out on machines, which are given by what Ray says that they have.

    With GPUs there is a worker for each, and no other; it has its share of the machine's cores.
    On processors a worker has that many cores, up to eight, that leave the fewest idle on all
    machines. ConfigError where there is room for none.
    """
    on_gpus = [node for node in nodes if node.get("GPU", 0) >= 1] if uses_gpus else []
    if on_gpus:
        shares = (int(node.get("CPU", 0) // int(node["GPU"])) for node in on_gpus)
        size = cores or max(1, min(shares))
        counts = [int(min(node["GPU"], node.get("CPU", 0) // size)) for node in on_gpus]
        return _checked(Layout(sum(counts), size, 1, _used(counts)), nodes)
    cpus = [int(node.get("CPU", 0)) for node in nodes]

    def room(size: int) -> int:
        return sum(cpu // size for cpu in cpus)

    sizes = range(1, MOST_CORES + 1)
    best = cores or max(sizes, key=lambda size: (room(size) * size, size))
    return _checked(Layout(room(best), best, 0, _used([cpu // best for cpu in cpus])), nodes)


def _used(counts: Sequence[int]) -> int:
    return sum(count > 0 for count in counts)


def _checked(layout: Layout, nodes: Sequence[Mapping[str, float]]) -> Layout:
    if layout.count:
        return layout
    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    raise ConfigError(
        f"no node of the cluster has room for a worker of {layout.cores} cores, the largest has "
        f"{most}: give fewer in --workers, or add nodes that have some"
    )
