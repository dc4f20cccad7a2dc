from __future__ import annotations

from pathlib import Path

from .frame_path import profiled


def test_at_most_ten_modules_know_of_a_frame(small_bundle: Path) -> None:
    """The walk of one frame, from its source to its row in a file, as the design draws it."""
    calls = profiled(small_bundle, "synthetic?fps=max&size=64&frames=80")
    knowing = {module.removeprefix("motorvae.runtime.") for module, _ in calls.knowing}
    walk = {"stream.capture_thread", "stream.mailbox", "stream.encode_loop", "sinks.fanout"}
    assert knowing > walk
    assert len(knowing) <= 10
