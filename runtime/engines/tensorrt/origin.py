"""Where an engine comes from: this machine, a trusted key, or nobody knows."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import EngineError, EngineFitError, SigningError
from ...signing.machine_key import machine_key
from .engine_manifest import ReadEngineManifest


def check_origin(engine: Path, read: ReadEngineManifest) -> tuple[str, ...]:
    """Make sure that this machine built an engine, whose hash its engine manifest has.

    An engine is a program: whoever made it does what they like as the user who loads it. Returned
    is what to know of its origin, a clause each. An EngineFitError where it is not known, and an
    EngineError, which names what to do, where this machine's key is of no use.
    """
    tag = read.manifest.built_here
    try:
        key = machine_key()
    except SigningError as error:
        raise EngineError(
            str(error), context=f"nothing tells {engine.name} from a foreign one"
        ) from error
    if tag is None:
        reason = "its engine manifest has no tag"
    elif key is None:
        reason = "this machine has no key yet, and so it has built none"
    elif tag.key_id != key.key_id:
        reason = f"its tag is of key {tag.key_id[:8]}, and this machine's is {key.key_id[:8]}"
    elif not read.is_tagged_by(key):
        reason = "its tag is of another engine or engine manifest"
    else:
        return ()
    raise EngineFitError(f"{engine.name} was not built by this machine ({reason})")
