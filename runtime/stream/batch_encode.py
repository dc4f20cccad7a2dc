"""A whole data set through the encoder, in batches, to one .npz file."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from ..bundle.load import Bundle
from ..core.atomic_files import check_writable, put_new
from ..core.errors import BackendError, ConfigError, DataError, writing_output
from ..core.frame import Gap
from ..core.spec import Matrix, ModelSpec
from ..core.system.temporaries import temporary_beside
from ..engines.base import Backend
from ..engines.open import EngineRequest
from ..engines.select import Rebuild, SelectedEngine, select_engine
from ..pixels.convert import write_input
from ..sources.base import AS_IT_COMES, CaptureRequest, FrameSource, fitted_from_item
from ..sources.open import open_source


@dataclass(frozen=True, slots=True)
class Encoded:
    """Latents of N images of a data set, in its order.

    Attributes:
        names: What each row is: a file name, or the position in a video.
        mu: (N, D) float32.
        log_var: (N, D) float32; None where the encoder gives none.
        gaps: What did not decode and has no row.
        remarks: What to know of what was read, and what was not taken; a line each.
        latent_shape: Of each row, which is written flat: (D,), or such as (4, 32, 32).
        weights_sha256: Identity of the model, as its manifest has it; empty where it is not known.
    """

    names: list[str]
    mu: npt.NDArray[np.float32]
    log_var: npt.NDArray[np.float32] | None
    gaps: list[Gap]
    remarks: list[str]
    latent_shape: tuple[int, ...]
    weights_sha256: str = ""

    def save(self, path: Path) -> Path | None:
        """Write `names`, `mu`, `log_var` if there is one, and `latent_shape` to an .npz file.

        So is `weights_sha256` where it is known. The file is there whole or not at all.

        Returns where an earlier file of that name is kept, if there was one.

        Raises:
            OutputError: The file cannot be written.
        """
        arrays = {"names": np.asarray(self.names), "mu": self.mu}
        arrays |= {} if self.log_var is None else {"log_var": self.log_var}
        arrays |= {"weights_sha256": np.asarray(self.weights_sha256)} if self.weights_sha256 else {}
        with writing_output(path), temporary_beside(path) as temporary:
            with temporary.open("wb") as file:
                # The stub mixes up its keywords.
                np.savez(file, latent_shape=self.latent_shape, **arrays)  # type: ignore[arg-type]
            return put_new(temporary, path)


def check_encoding(
    batch_size: int, output: Path | None, asked: CaptureRequest = AS_IT_COMES
) -> None:
    """Refuse numbers out of range, an unknown matrix, and an output that is not to be."""
    matrix, track, max_picture = asked.matrix, asked.track, asked.max_picture
    if track is not None and track < 1:
        raise ConfigError(f"track={track} is out of range: take a number from 1, or leave it out")
    if matrix is not None and matrix not in (known := get_args(Matrix)):
        raise ConfigError(f"matrix={str(matrix)[:40]!r}: take {', '.join(known)}, or leave it out")
    if not 0 < max_picture < math.inf:
        raise ConfigError(f"max_picture={max_picture} is out of range: take megapixels above 0")
    if not 1 <= batch_size <= 1024:
        raise ConfigError(f"batch_size={batch_size} is out of range: take 1 to 1024")
    if output is not None:
        if output.suffix != ".npz":
            raise ConfigError(f"output={str(output)!r}: name a file ending in .npz")
        check_writable(output)


@contextlib.contextmanager
def opened_data(
    bundle: Bundle,
    data: str,
    engine: EngineRequest,
    rebuild: Rebuild | None = None,
    *,
    asked: CaptureRequest = AS_IT_COMES,
) -> Iterator[tuple[FrameSource, SelectedEngine]]:
    """Open a bundle's encoder and a source that has an end, for `encode_source`.

    The spec of what is `asked` for is the bundle's.
    """
    choice = select_engine(bundle, "encoder", engine, rebuild)
    with choice.backend, open_source(data, replace(asked, spec=bundle.spec)) as source:
        if source.live:
            raise ConfigError(f"{source.name} is live and has no end: use motorvae-stream for it")
        yield source, choice


def encode_source(
    source: FrameSource,
    backend: Backend,
    spec: ModelSpec,
    *,
    batch_size: int,
    weights_sha256: str = "",
    progress: Callable[[], None] = lambda: None,
) -> Encoded:
    """Encode every frame of a source that has an end; what does not decode is kept as a gap.

    One run of the engine takes `batch_size` frames; `progress` is called for each frame or gap.
    `weights_sha256` says of which model the latents are, for the file.

    Raises:
        DataError: Nothing decoded.
        BackendError: The encoder failed, or a latent is not finite.
    """
    batch = np.empty((batch_size, *spec.input_shape), backend.input_dtype)
    names: list[str] = []
    gaps: list[Gap] = []
    latents: dict[str, list[npt.NDArray[np.float32]]] = {"mu": []}
    latents |= {"log_var": []} if spec.has_log_var else {}

    def run_pending(pending: list[str]) -> None:
        results = backend.run(batch[: len(pending)])
        for name, parts in latents.items():
            finite = np.isfinite(values := results[name]).all(axis=1)
            if not finite.all():
                raise BackendError(
                    f"the latent of {pending[int(np.argmin(finite))]} is not finite: "
                    "export the bundle again and read its verification"
                )
            parts.append(values)
        names.extend(pending)

    pending: list[str] = []
    while (item := source.read()) is not None:
        progress()
        pixels = fitted_from_item(item, spec)
        if isinstance(pixels, Gap):
            gaps.append(pixels)
            continue
        write_input(pixels, batch[len(pending)])
        pending.append(item.name or f"{source.name}#{item.index:06d}")
        if len(pending) == batch_size:
            run_pending(pending)
            pending = []
    if pending:
        run_pending(pending)
    if not names:
        reason = f" (first: {gaps[0].reason})" if gaps else ""
        raise DataError(f"nothing in {source.name} decodes{reason}: name other images or video")
    found = {name: np.concatenate(parts) for name, parts in latents.items()}
    shape = spec.latent_shape or (spec.latent_size,)
    return Encoded(
        names, found["mu"], found.get("log_var"), gaps, source.remarks, shape, weights_sha256
    )
