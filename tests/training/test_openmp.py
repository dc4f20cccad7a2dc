from __future__ import annotations

import os

import pytest

from motorvae.training.openmp import OPENMP_WAITING, let_idle_threads_sleep


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPENMP_WAITING:
        # Set first, so that what the code under test sets is taken back, too.
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


def test_idle_threads_sleep_by_default() -> None:
    let_idle_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", OPENMP_WAITING)
def test_what_the_user_said_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    let_idle_threads_sleep()
    assert {other: os.environ.get(other) for other in OPENMP_WAITING} == {
        other: "7" if other == name else None for other in OPENMP_WAITING
    }
