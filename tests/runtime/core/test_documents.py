from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.documents import arrays_from_npz
from motorvae.runtime.core.errors import BundleError


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        arrays_from_npz(path, error=BundleError, again="export again")
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith("export again")
    return message


def test_every_array_is_read_with_its_dtype_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mean=np.arange(3.0), images=np.zeros((2, 4, 4), np.uint8))
    found = arrays_from_npz(path, error=BundleError, again="export again")
    assert sorted(found) == ["images", "mean"]
    assert (found["images"].shape, found["images"].dtype) == ((2, 4, 4), np.uint8)
    np.testing.assert_array_equal(found["mean"], [0, 1, 2])


def test_only_the_keys_that_are_needed_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, mean=np.arange(3.0), thing=np.array({"a": 1}, dtype=object))
    assert list(arrays_from_npz(path, ("mean",), error=BundleError, again="again")) == ["mean"]
    with pytest.raises(BundleError, match=r"cannot read 'mean', 'spread' from .*a.npz: .*; again"):
        arrays_from_npz(path, ("mean", "spread"), error=BundleError, again="again")


def test_what_is_no_file_of_arrays_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert "No such file" in refused(path)
    path.write_bytes(b"")
    refused(path)
    path.write_bytes(b"not an archive")
    refused(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    assert "one array without a name" in refused(path)
    np.savez(path, thing=np.array({"a": 1}, dtype=object))
    assert "pickle" in refused(path).lower()
    np.savez_compressed(path, mean=np.random.default_rng(0).random(1000))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path)
    path.write_bytes(whole[:300] + bytes(40) + whole[340:])
    refused(path)
