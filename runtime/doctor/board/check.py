"""The doctor's check of a Jetson: every finding from files, none where this is no Jetson."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..finding import Finding
from .clocks import check_clocks
from .container import check_container
from .csi import check_csi
from .heat import check_heat
from .identity import board_of, check_identity
from .power import check_power, power_modes_of
from .release import check_release
from .supply import check_supply
from .swap import check_swap
from .tree import Tree


def check_board(_model: Path, root: Path = Path("/")) -> Iterator[Finding]:
    """Read what a Jetson says of itself below a root; no program is started, and no root needed."""
    tree = Tree(root)
    board = board_of(tree)
    if board is None:
        return
    yield from check_identity(board)
    yield from check_release(tree)
    yield from check_container(tree)
    yield from check_power(tree)
    yield from check_clocks(tree, power_modes_of(tree))
    yield from check_heat(tree)
    yield from check_supply(tree, board)
    yield from check_swap(tree)
    yield from check_csi(tree)


def on_jetson(root: Path = Path("/")) -> bool:
    """Return whether this is a Jetson, whose GPU shares the computer's memory."""
    return board_of(Tree(root)) is not None
