"""A whole data set through the encoder, in batches, to one .npz file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.atomic_files import check_replaceable_file, check_writable, replaced_file
from ..core.errors import BackendError, ConfigError, DataError
from ..core.frame import Gap
from ..core.spec import ModelSpec
from ..engines.base import Backend
from ..pixels.convert import fitted_luma, luma_from_image, write_input
from ..sources.base import FrameSource

LARGEST_BATCH = 1024


@dataclass(slots=True)
class Encoded:
    """Latents of a data set in its order.

    Attributes:
        names: What each row is: a file name, or the position in a video.
        mu: One (n, D) float32 array per batch.
        log_var: As `mu`.
        gaps: What did not decode and has no row.
    """

    names: list[str] = field(default_factory=list)
    mu: list[np.ndarray] = field(default_factory=list)
    log_var: list[np.ndarray] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write `names`, `mu` and `log_var` to an .npz file, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                names=np.asarray(self.names),
                mu=np.concatenate(self.mu),
                log_var=np.concatenate(self.log_var),
            )


def check_npz(output: Path) -> None:
    """Refuse an output that cannot become an .npz file, before work is spent on it.

    Raises:
        ConfigError: Another suffix.
        OutputError: A folder has that name, or nothing can be written there.
    """
    if output.suffix != ".npz":
        raise ConfigError(f"output={str(output)!r}: name a file ending in .npz")
    check_replaceable_file(output)
    check_writable(output)


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch that is empty or beyond reason.

    Raises:
        ConfigError: Outside 1 to `LARGEST_BATCH`.
    """
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise ConfigError(f"batch_size={batch_size} is out of range: take 1 to {LARGEST_BATCH}")


def encode_source(
    source: FrameSource,
    backend: Backend,
    spec: ModelSpec,
    *,
    batch_size: int,
    progress: Callable[[], None] = lambda: None,
) -> Encoded:
    """Encode every frame of a source that has an end; what does not decode is kept as a gap.

    Args:
        source: A video or a folder of images.
        backend: An opened encoder.
        spec: The model's sizes and frame fit.
        batch_size: Frames per run of the engine.
        progress: Called once for each frame or gap.

    Raises:
        ConfigError: `batch_size` is out of range, or the source is live and never ends.
        DataError: Nothing decoded.
        BackendError: The encoder failed, or a latent is not finite.
    """
    check_batch_size(batch_size)
    if source.live:
        raise ConfigError(f"{source.name} is live and has no end: use motorvae-stream for it")
    side = spec.image_size
    batch = np.empty((batch_size, 1, side, side), backend.input_dtype)
    encoded = Encoded()
    pending: list[str] = []

    def run_pending() -> None:
        results = backend.run(batch[: len(pending)])
        for values, parts in (
            (results["mu"], encoded.mu),
            (results["log_var"], encoded.log_var),
        ):
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                raise BackendError(
                    f"the latent of {pending[int(np.argmin(finite))]} is not finite: "
                    "export the bundle again and read its verification"
                )
            parts.append(values)
        encoded.names.extend(pending)
        pending.clear()

    while (item := source.read()) is not None:
        progress()
        if isinstance(item, Gap):
            encoded.gaps.append(item)
            continue
        write_input(fitted_luma(luma_from_image(item.image), spec), batch[len(pending), 0])
        pending.append(item.name or f"{source.name}#{item.index:06d}")
        if len(pending) == batch_size:
            run_pending()
    if pending:
        run_pending()
    if not encoded.names:
        reason = f" (first: {encoded.gaps[0].reason})" if encoded.gaps else ""
        raise DataError(f"nothing in {source.name} decodes{reason}: name other images or video")
    return encoded
