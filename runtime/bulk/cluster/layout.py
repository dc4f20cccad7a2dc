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
    idle: int = 0  # machines that have cores, but no room or no GPU

    def __str__(self) -> str:
        workers = "1 worker" if self.count == 1 else f"{self.count} workers"
        threads = "1 thread" if self.cores == 1 else f"{self.cores} threads"
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        each = f"{threads} and a GPU" if self.gpus else threads
        idle = ""
        if self.idle:
            idle = f"; {self.idle} more {'has' if self.idle == 1 else 'have'} no room"
            idle += " or no GPU" if self.gpus else ""
        return f"{workers} of {each} on {nodes}{idle}"


def layout_of(
    nodes: Sequence[Mapping[str, float]], cores: int | None, *, uses_gpus: bool
) -> Layout:
    """Lay workers out on machines, which are given by what Ray says that they have.

    All workers are of one size, which is the one that leaves the fewest cores idle on all machines:
    with GPUs of one GPU each, and on processors of up to eight cores. ConfigError where there is
    room for none.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    is_on_gpus = uses_gpus and any(gpus)

    def counts(size: int) -> list[int]:
        if is_on_gpus:
            return [min(gpu, cpu // size) for gpu, cpu in zip(gpus, cpus, strict=True)]
        return [cpu // size for cpu in cpus]

    def worth(size: int) -> tuple[int, int]:
        """Cores at work, as decoding is most of it; of equal ones more GPUs, or fewer engines."""
        workers = sum(counts(size))
        return workers * size, workers if is_on_gpus else size

    most = max(cpus, default=0) if is_on_gpus else MOST_CORES
    best = cores or max(range(1, max(most, 1) + 1), key=worth)
    found = counts(best)
    used = sum(count > 0 for count in found)
    idle = sum(cpu > 0 for cpu in cpus) - used
    return _checked(Layout(sum(found), best, int(is_on_gpus), used, idle), nodes)


def _checked(layout: Layout, nodes: Sequence[Mapping[str, float]]) -> Layout:
    if layout.count:
        return layout
    most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
    raise ConfigError(
        f"no node of the cluster has room for a worker of {layout.cores} cores, the largest has "
        f"{most}: give fewer in --workers, or add nodes that have some"
    )
