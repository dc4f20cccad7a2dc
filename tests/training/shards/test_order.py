from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.training.shards.order import EpochOrder, Rows

IMAGES, RUN = 2000, 20
HELD_OUT = 7  # each so many-th


def _order(seed: int = 1, epoch: int = 0, window: int = 8) -> EpochOrder:
    rows = np.arange(IMAGES)
    train = rows[rows % HELD_OUT > 0]
    starts = np.searchsorted(train, np.arange(0, IMAGES + RUN, RUN))
    return EpochOrder(train, starts, window, seed=seed, epoch=epoch)


def _whole(order: EpochOrder) -> Rows:
    return order.rows(0, IMAGES - len(range(0, IMAGES, HELD_OUT)))


def test_each_training_image_comes_once() -> None:
    assert sorted(_whole(_order())) == [row for row in range(IMAGES) if row % HELD_OUT]


def test_seed_and_epoch_decide_the_order() -> None:
    first = _whole(_order())
    np.testing.assert_array_equal(first, _whole(_order()))
    for other in (_order(seed=2), _order(epoch=1)):
        assert np.mean(first == _whole(other)) < 0.05


@pytest.mark.parametrize("begins", [(0, 300, 7, 1690), (1000,), (300, 0)])
def test_any_part_is_that_of_the_whole(begins: Sequence[int]) -> None:
    whole, order = _whole(_order()), _order()
    for begin in begins:
        np.testing.assert_array_equal(order.rows(begin, 24), whole[begin : begin + 24])


def test_a_window_mixes_runs_of_everywhere_and_reads_no_other() -> None:
    """A batch comes from nearly as many places as it has images, and a window from `window`."""
    order, whole = _order(), _whole(_order())
    runs: npt.NDArray[np.int64] = whole // RUN
    ends = order._ends
    assert {len(set(part)) for part in np.split(runs, ends[:-1])} == {7, 8}
    # In a window there is no trace of the order in which images lie.
    first = whole[: ends[0]]
    followed = np.mean(np.diff(first) == 1)
    assert followed < 0.05
    # Runs come from all over the set: drawn anew in each epoch.
    assert np.ptp(runs[: ends[0]]) > 60
    assert set(runs[: ends[0]]) != set(_whole(_order(epoch=1))[: ends[0]] // RUN)


def test_a_set_of_one_window_is_shuffled_as_a_whole() -> None:
    whole = _whole(_order(window=1000))
    assert np.mean(np.abs(np.diff(whole)) < RUN) < 0.05


def test_windows_know_what_share_of_them_is_done() -> None:
    order = _order()
    end = int(order._ends[0])
    assert order.window_at(0) == (0, 0.0)
    assert order.window_at(end // 2) == (0, pytest.approx(0.5, abs=0.01))
    assert order.window_at(end) == (1, 0.0)
    assert order.window_at(int(order._ends[-1])) == (len(order.windows), 0.0)
