from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from motorvae.export.verify.reference import ImagesOnDisk, Reference, reference_from_graphs

from ..conftest import SPEC

Write = Callable[..., None]


@pytest.fixture
def folder(write: Write, tmp_path: Path) -> Path:
    write(tmp_path / "bundle", precisions=())
    return tmp_path / "bundle"


def test_float32_graphs_say_what_torch_says_and_leave_no_file(
    folder: Path, reference: Reference
) -> None:
    before = sorted(folder.iterdir())
    found = reference_from_graphs(folder, SPEC, reference.images[:21], reference)
    assert sorted(folder.iterdir()) == before
    assert (found.name, len(found.images)) == ("float32 ONNX graphs", 21)
    np.testing.assert_allclose(found.mu, reference.mu[:21], atol=1e-5)
    np.testing.assert_allclose(found.log_var, reference.log_var[:21], atol=1e-5)
    images = found.reconstruction[:]
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, np.asarray(reference.reconstruction)[:21], atol=3e-5)
    np.testing.assert_array_equal(found.rows(slice(1, None, 4)).reconstruction[2], images[9])
    assert found.probes is reference.probes


def test_images_on_disk_are_read_by_slice_and_by_index(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((7, 1, 4, 4), np.float32)
    stored = ImagesOnDisk(tmp_path, [images[:4], images[4:]])
    assert len(stored) == 7
    np.testing.assert_allclose(stored[2:5], images[2:5], atol=3e-5)
    np.testing.assert_allclose(stored[np.array([6, 0])], images[[6, 0]], atol=3e-5)
    assert not [*tmp_path.iterdir()]
