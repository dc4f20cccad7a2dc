from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.bulk.encoded import Encoded, save_npz
from motorvae.runtime.bulk.parts import NpzParts, PartFacts
from motorvae.runtime.bulk.rows import NUMBERS, TEXTS, Rows, joined
from motorvae.runtime.core.errors import OutputError


def _rows(reasons: list[str], start: int = 0) -> Rows:
    count = len(reasons)
    mu = np.arange(start, start + count, dtype=np.float32)[:, None] * np.ones(8, np.float32)
    mu[[bool(reason) for reason in reasons]] = np.nan
    names = [f"picture {start + n}" for n in range(count)]
    return Rows(
        {"names": names, "sha256": ["ab"] * count, "reasons": reasons},
        {name: np.full(count, start, kind) for name, kind in NUMBERS.items()},
        {"mu": mu, "log_var": -mu},
    )


def test_parts_become_what_they_are_together(tmp_path: Path) -> None:
    parts = [
        _rows(["", "cut short", ""]),
        _rows([], 3),
        _rows(["no picture" * 9], 3),
        _rows([""], 4),
    ]
    save_npz(tmp_path / "a.npz", lambda *_: iter(parts), (2, 4), "f" * 64)
    Encoded.of_rows(joined(parts), [], (2, 4), "f" * 64).save(tmp_path / "b.npz")
    with (
        np.load(tmp_path / "a.npz", allow_pickle=False) as one,
        np.load(tmp_path / "b.npz", allow_pickle=False) as other,
    ):
        assert one["names"].tolist() == ["picture 0", "picture 2", "picture 4"]
        assert one["mu"][:, 0].tolist() == [0, 2, 4]
        assert one["failed_names"].tolist() == ["picture 1", "picture 3"]
        assert one["failed_reasons"].tolist() == ["cut short", "no picture" * 9]
        assert set(one.files) == set(other.files)
        for name in one.files:
            assert one[name].dtype == other[name].dtype
            assert np.array_equal(one[name], other[name]), name
        assert one["latent_shape"].tolist() == [2, 4]


def test_columns_are_read_once_and_alone(tmp_path: Path) -> None:
    """Reading whole parts for each of ten columns took ten times the bytes."""
    parts, asked = NpzParts(tmp_path / "a.npz"), list[tuple[str, ...]]()
    parts.folder.mkdir()
    for number in range(3):
        rows = _rows(["", "cut short"], 2 * number)
        parts.save(number, rows, PartFacts.of_rows(rows, ""))

    def rows_of(*names: str) -> Iterator[Rows]:
        for one in parts.rows(3, *names):
            asked.append((*one.latents, *one.numbers, *one.texts))
            yield one

    save_npz(tmp_path / "a.npz", rows_of, (8,), "")
    every = list(parts.rows(3))
    for name in ("mu", "log_var", *NUMBERS):
        read = [columns for columns in asked if name in columns]
        assert len(read) == 4, name  # once of each part, and of the first for its dtype
        assert read.count((name, "reasons")) == 3
    Encoded.of_rows(joined(every), [], (8,)).save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").stat().st_size == (tmp_path / "b.npz").stat().st_size


def test_gaps_are_where_they_were_in_the_data() -> None:
    encoded = Encoded.of_rows(_rows(["", "cut short", ""]), [], (8,))
    (gap,) = encoded.gaps
    assert (gap.index, gap.name, gap.reason) == (1, "picture 1", "cut short")
    assert encoded.sha256 == ["ab", "ab"]


def test_a_failed_save_keeps_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = Encoded.of_rows(_rows(["", ""]), [], (8,))
    output = tmp_path / "latents.npz"
    encoded.save(output)
    before = output.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "open", full)
    with pytest.raises(OutputError, match="No space left on device"):
        encoded.save(output)
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]


def test_an_empty_batch_joins() -> None:
    whole = joined([_rows([]), _rows([""])])
    assert len(whole) == 1
    assert set(whole.texts) == set(TEXTS)
