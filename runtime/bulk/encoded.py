"""Encoded: the latents of a data set in memory; and the one .npz that results become."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.atomic_files import put_new
from ..core.errors import writing_output
from ..core.frame import Gap
from ..core.npz_archive import write_array, write_value
from ..core.system.temporaries import temporary_beside
from .rows import TEXTS, Floats, Rows

_PER_OK = ("names", "sha256")
_PER_FAILURE = {"failed_names": "names", "failed_reasons": "reasons"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Latents of N images of a data set, in its order.

    Attributes:
        names: What each row is: a file name, an address, or the position in a video.
        mu: (N, D) float32.
        log_var: (N, D) float32; None where the encoder gives none.
        gaps: What did not decode and has no row.
        remarks: What to know of what was read, and what was not taken; a line each.
        latent_shape: Of each row, which is written flat: (D,), or such as (4, 32, 32).
        weights_sha256: Identity of the model, as its manifest has it; empty where it is not known.
        sha256: Of each file's bytes, hexadecimal; empty for frames of videos.
        numbers: (N,) each: `height` and `width` in pixels, 0 where they are not known, `ood_score`
            and `is_ood`, NaN and -1 where they are not measured.
    """

    names: list[str]
    mu: Floats
    log_var: Floats | None
    gaps: list[Gap]
    remarks: list[str]
    latent_shape: tuple[int, ...]
    weights_sha256: str = ""
    sha256: list[str] = field(default_factory=list)
    numbers: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of_rows(
        cls,
        rows: Rows,
        remarks: list[str],
        latent_shape: tuple[int, ...],
        weights_sha256: str = "",
    ) -> Encoded:
        """Return the latents of rows; those that have none become gaps."""
        is_ok = rows.is_ok
        kept = np.flatnonzero(is_ok)
        log_var = rows.latents.get("log_var")
        return cls(
            names=[rows.texts["names"][row] for row in kept],
            mu=rows.latents["mu"][kept],
            log_var=None if log_var is None else log_var[kept],
            gaps=[
                Gap(int(row), rows.texts["reasons"][row], 0, rows.texts["names"][row])
                for row in np.flatnonzero(~is_ok)
            ],
            remarks=remarks,
            latent_shape=latent_shape,
            weights_sha256=weights_sha256,
            sha256=[rows.texts["sha256"][row] for row in kept],
            numbers={name: values[kept] for name, values in rows.numbers.items()},
        )

    def save(self, path: Path) -> Path | None:
        """Write an .npz file as `motorvae-encode` does. It is there whole or not at all.

        Returns where an earlier file of that name is kept, if there was one.

        Raises:
            OutputError: The file cannot be written.
        """
        count = len(self.names) + len(self.gaps)
        ok = np.ones(count, bool)
        ok[[gap.index for gap in self.gaps]] = False
        latents = {"mu": self.mu} | ({} if self.log_var is None else {"log_var": self.log_var})
        rows = Rows(
            {
                "names": _spread(self.names, [gap.name for gap in self.gaps], ok),
                "sha256": _spread(self.sha256 or [""] * len(self.names), [""] * len(self.gaps), ok),
                "reasons": _spread([""] * len(self.names), [gap.reason for gap in self.gaps], ok),
            },
            {name: _full(values, ok) for name, values in self.numbers.items()},
            {name: _full(values, ok) for name, values in latents.items()},
        )
        return save_npz(path, lambda *_: iter([rows]), self.latent_shape, self.weights_sha256)


def save_npz(
    path: Path,
    parts: Callable[..., Iterator[Rows]],
    latent_shape: tuple[int, ...],
    weights_sha256: str,
) -> Path | None:
    """Write parts that follow each other to one .npz file, which is there whole or not at all.

    `parts` is called for each column with its name, or with several; more may be in its rows.
    It holds `names`, `sha256`, `mu`, `log_var` if there is one, and numbers, of what has a latent;
    `failed_names` and `failed_reasons` of what has none; `latent_shape`, and `weights_sha256` where
    it is known. No more than a part is in memory at once. Returns where an earlier file of that
    name is kept, if there was one; OutputError where the file cannot be written.
    """
    ok = failed = 0
    widths = dict.fromkeys((*_PER_OK, *_PER_FAILURE), 1)
    dtypes: dict[str, np.dtype[Any]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, part in enumerate(parts(*TEXTS)):
        ok, failed = ok + int(part.is_ok.sum()), failed + int((~part.is_ok).sum())
        for name in widths:
            widths[name] = max([widths[name], *map(len, _texts(part, name))])
        for name, values in _arrays(next(parts())).items() if not number else ():
            dtypes[name], shapes[name] = values.dtype, values.shape[1:]

    with writing_output(path), temporary_beside(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, width in widths.items():
                count = ok if name in _PER_OK else failed
                column = _PER_FAILURE.get(name, name)
                dtype = np.dtype(f"<U{width}")
                texts = (np.array(_texts(part, name), dtype) for part in parts(column))
                write_array(archive, name, dtype, (count,), texts)
            for name, dtype in dtypes.items():
                arrays = (_arrays(part)[name][part.is_ok] for part in parts(name))
                write_array(archive, name, dtype, (ok, *shapes[name]), arrays)
            write_value(archive, "latent_shape", latent_shape)
            if weights_sha256:
                write_value(archive, "weights_sha256", weights_sha256)
        return put_new(temporary, path)


def _texts(part: Rows, name: str) -> list[str]:
    """Return a column of texts of what has a latent, or of what has none."""
    texts = part.texts[_PER_FAILURE.get(name, name)]
    reasons = part.texts["reasons"]
    if name in _PER_OK:
        return [text for text, reason in zip(texts, reasons, strict=True) if not reason]
    return [text for text, reason in zip(texts, reasons, strict=True) if reason]


def _arrays(part: Rows) -> dict[str, npt.NDArray[Any]]:
    return {**part.numbers, **part.latents}


def _spread(ok: list[str], others: list[str], is_ok: npt.NDArray[np.bool_]) -> list[str]:
    one, other = iter(ok), iter(others)
    return [next(one) if here else next(other) for here in is_ok]


def _full(values: npt.NDArray[Any], is_ok: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    found = np.zeros((len(is_ok), *values.shape[1:]), values.dtype)
    found[is_ok] = values
    return found
