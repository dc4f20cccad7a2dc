"""Where an engine comes from: this machine, a trusted key, or nobody knows."""

from __future__ import annotations

from ...bundle.graph_key import ENGINES
from ...bundle.load import Bundle
from ...bundle.manifest import MANIFEST, Manifest
from ...core.documents import document_from_bytes
from ...core.errors import EngineError, EngineFitError, MissingDependencyError, SigningError
from ...signing.bundle_signature import signed_bundle
from ...signing.machine_key import machine_key
from .engine_manifest import ReadEngineManifest


def check_origin(bundle: Bundle, read: ReadEngineManifest) -> tuple[str, ...]:
    """Make sure that this machine built an engine, or that a trusted key signed its bundle.

    An engine is a program: whoever made it does what they like as the user who loads it. Here that
    is the one whose hash its engine manifest has. Returned is what to know of its origin, a clause
    each. An EngineFitError where that is not known, and an EngineError, which names what to do,
    where this machine's key is of no use.
    """
    file = read.path.with_suffix(".engine").name
    broken: SigningError | None = None
    not_ours = ""
    try:
        not_ours = _why_not_ours(read)
    except SigningError as error:
        broken = error
    if not (broken or not_ours):
        return ()
    try:
        signers = _signers(bundle, read, file)
    except (SigningError, MissingDependencyError) as error:
        unsigned = f"its bundle's signature is of no use: {error}"
    else:
        if signers:
            return (f"this engine's bundle was signed by {signers}",)
        unsigned = "its bundle is not signed"
    if broken is not None:
        context = f"nothing says whether this machine built {file}, and {unsigned}"
        raise EngineError(str(broken), context=context) from broken
    raise EngineFitError(f"{file} was not built by this machine ({not_ours}), and {unsigned}")


def _why_not_ours(read: ReadEngineManifest) -> str:
    """Return why this machine does not know an engine for its own; "" where it does."""
    tag, key = read.manifest.built_here, machine_key()
    if tag is None:
        return "its engine manifest has no tag"
    if key is None:
        return "this machine has no key yet, and so it has built none"
    if tag.key_id != key.key_id:
        return f"its tag is of key {tag.key_id[:8]}, and this machine's is {key.key_id[:8]}"
    return "" if read.is_tagged_by(key) else "its tag is of another engine or engine manifest"


def _signers(bundle: Bundle, read: ReadEngineManifest, file: str) -> str:
    """Return in words who signed an engine, its engine manifest and its bundle's manifest."""
    signed = signed_bundle(bundle.folder, hash_all=False)
    if signed is None:
        return ""
    signed.check(read.manifest.engine.model_copy(update={"file": f"{ENGINES}/{file}"}))
    signed.check_bytes(f"{ENGINES}/{read.path.name}", read.content)
    now = document_from_bytes(
        signed.read(bundle.folder, MANIFEST),
        bundle.folder / MANIFEST,
        Manifest,
        error=SigningError,
        again="export the bundle again",
    )
    if now != bundle.manifest:
        raise SigningError(f"{MANIFEST!r} was altered since it was read")
    return signed.titles
