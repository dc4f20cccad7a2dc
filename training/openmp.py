"""How idle threads of OpenMP wait, which must be said before torch is loaded."""

from __future__ import annotations

import os

OPENMP_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""What a user may have set to say how idle threads of OpenMP wait."""


def let_idle_threads_sleep() -> None:
    """Let OpenMP's idle threads sleep instead of spin; call this before torch is loaded.

    A spinning thread takes its core from the one that it waits for wherever other processes want
    the cores, too. Nothing is changed where the user has said how threads are to wait.
    """
    if not any(name in os.environ for name in OPENMP_WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
