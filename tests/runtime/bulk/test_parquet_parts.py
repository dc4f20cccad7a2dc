from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.encode_cli import EncodeOptions

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def images(image_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        name = f"frame{number}.png"
        (folder / name).write_bytes((image_folder / name).read_bytes())
    (folder / "frame2.png").write_bytes(b"no picture")
    return folder


def test_each_image_has_a_row_and_failures_their_reason(
    encode: Callable[..., Any], images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latents.parquet"
    done = encode(images, "--output", output, "--part-images", 2)
    assert done.code == 1
    assert "1 of 5 did not decode and have no latent" in done.stderr
    files = sorted(path.name for path in output.glob("part-*"))
    assert files == [f"part-{n:06d}.parquet" for n in range(3)]
    rows = pq.read_table(output).to_pylist()  # passes over _job.json
    assert [row["name"] for row in rows] == [f"frame{n}.png" for n in range(5)]
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok", "ok"]
    failed = rows[2]
    assert failed["reason"] == "corrupt, cut short, or not an image"
    assert failed["mu"] is failed["log_var"] is failed["width"] is failed["ood_score"] is None
    assert len(failed["sha256"]) == 64  # it could be read

    encode(images, "--output", tmp_path / "latents.npz")
    with np.load(tmp_path / "latents.npz") as held:
        ok = [row for row in rows if row["status"] == "ok"]
        assert held["names"].tolist() == [row["name"] for row in ok]
        assert np.array_equal(held["mu"], np.array([row["mu"] for row in ok], np.float32))
        assert held["log_var"].tolist() == [row["log_var"] for row in ok]
        assert held["width"].tolist() == [row["width"] for row in ok]
        assert held["failed_names"].tolist() == ["frame2.png"]
        assert held["failed_reasons"].tolist() == [failed["reason"]]


def test_a_whole_folder_is_kept_under_a_number(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latents.parquet"
    assert encode(image_folder, "--output", output).code == 0
    done = encode(image_folder, "--output", output)
    assert f"the earlier {output} is kept as {tmp_path / 'latents.1.parquet'}" in done.stderr
    assert pq.read_table(tmp_path / "latents.1.parquet").num_rows == 12
    assert pq.read_table(output).num_rows == 12


@pytest.mark.parametrize(("latent_size", "most"), [(4096, 524_287), (2048, 1_048_575)])
def test_a_part_of_more_numbers_than_a_list_counts_is_refused_before_the_work(
    latent_size: int, most: int
) -> None:
    bundle: Any = SimpleNamespace(spec=ModelSpec(latent_size=latent_size))

    def options(part_images: int) -> EncodeOptions:
        return EncodeOptions(output=Path("a.parquet"), part_images=part_images)

    options(most).check_parts(bundle)
    replace(options(most + 1), output=Path("a.npz")).check_parts(bundle)
    words = f"part_images={most + 1} with latents of {latent_size} numbers .* take up to {most}"
    with pytest.raises(ConfigError, match=words):
        options(most + 1).check_parts(bundle)


def test_a_part_that_is_too_large_is_one_line_and_leaves_nothing(
    encode: Callable[..., Any], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("motorvae.runtime.encode_cli._MOST_NUMBERS", 31)  # latents have 8
    done = encode(images, "--output", tmp_path / "a.parquet", "--part-images", 4)
    assert done.code == 1
    (line,) = done.stderr.splitlines()
    assert "--part-images=4 with latents of 8 numbers" in line
    assert "take up to 3" in line
    assert not (tmp_path / "a.parquet").exists()
