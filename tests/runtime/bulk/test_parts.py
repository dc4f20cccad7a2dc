"""Parts, whose they are, and what is deleted of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bulk.parts import Job, NpzParts, PartFacts, begun, model_hash
from motorvae.runtime.bulk.rows import NUMBERS, Rows
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import ConfigError, OutputError

FACTS = PartFacts(2, 0, "0" * 64)


@pytest.fixture
def parts(tmp_path: Path, job: Job) -> NpzParts:
    made = NpzParts(tmp_path / "latents.npz")
    made.begin(job)
    rows = Rows(
        {name: ["a", "b"] for name in ("names", "sha256")} | {"reasons": ["", ""]},
        {name: np.zeros(2, dtype) for name, dtype in NUMBERS.items()},
        {"mu": np.zeros((2, 4), np.float32)},
    )
    for number in range(3):
        made.save(number, rows, FACTS)
    return made


def _begun(parts: NpzParts, job: Job, *, restart: bool) -> Job:
    return begun(parts, job, restart=restart, is_size_asked=False)


def test_parts_that_no_job_is_with_are_of_nobody_knows_which_model(
    parts: NpzParts, job: Job
) -> None:
    """As a kill leaves them while a folder is deleted."""
    (parts.folder / "job.json").unlink()
    _begun(parts, job, restart=False)
    assert parts.finished() == []


def test_parts_are_deleted_from_the_last_on_and_the_job_after_them(
    parts: NpzParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted = []
    unlink = Path.unlink

    def noted(path: Path, *, missing_ok: bool = False) -> None:
        deleted.append(path.name)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", noted)
    parts.clear()
    assert deleted == [*(f"part-00000{n}.npz" for n in (2, 1, 0)), "job.json"]
    assert not parts.folder.exists()


def test_what_others_put_there_stays(parts: NpzParts) -> None:
    (parts.folder / "thesis.txt").write_text("years of work")
    parts.clear()
    assert [path.name for path in parts.folder.iterdir()] == ["thesis.txt"]


def test_a_restart_deletes_what_a_link_leads_to(parts: NpzParts, job: Job, tmp_path: Path) -> None:
    parts.folder.rename(tmp_path / "elsewhere")
    parts.folder.symlink_to(tmp_path / "elsewhere")
    _begun(parts, job, restart=True)
    assert parts.finished() == []
    assert parts.folder.is_symlink()


def test_a_restart_that_cannot_delete_is_refused(parts: NpzParts, job: Job) -> None:
    path = parts.path(1)
    path.unlink()
    path.mkdir()  # nobody, not even root, can unlink that
    with pytest.raises(OutputError, match="cannot write"):
        _begun(parts, job, restart=True)
    assert parts.job() is not None


@pytest.mark.parametrize("at", range(0, 2000, 37))
def test_a_part_with_a_changed_byte_is_damaged_or_as_it_was(parts: NpzParts, at: int) -> None:
    data = bytearray(parts.path(0).read_bytes())
    data[at % len(data)] ^= 0x55
    parts.path(0).write_bytes(data)
    with contextlib.suppress(OutputError):
        (found,) = parts.rows(1)
        assert found.texts["names"] == ["a", "b"]


ORT, OPENVINO = "ONNX Runtime 1.27.0 CPUExecutionProvider", "OpenVINO 2026.1.0 CPU"


@pytest.mark.parametrize(
    ("precision", "engine", "words"),
    [
        ("fp32", "OpenVINO 2026.1.0 CPU", ""),
        ("fp32", "ONNX Runtime 1.28.0 CUDAExecutionProvider", ""),
        ("fp16", "TensorRT 10.9", r"another precision \(fp32, and here fp16\): finish it"),
    ],
)
def test_another_engine_goes_on_and_is_written_down_and_another_precision_does_not(
    parts: NpzParts, job: Job, precision: str, engine: str, words: str
) -> None:
    other = job.model_copy(update={"precision": precision, "engines": (engine,)})
    if words:
        with pytest.raises(ConfigError, match=words):
            _begun(parts, other, restart=False)
        return
    found = begun(parts, other, restart=False, is_size_asked=False)
    assert found.engines == (ORT, engine)
    parts.begin(found)
    for again in (job, other):
        assert begun(parts, again, restart=False, is_size_asked=False) == found
    assert len(parts.finished()) == 3


@pytest.mark.parametrize(
    ("engine", "is_refused"), [(OPENVINO, True), (ORT.replace("27", "28"), False)]
)
def test_int8_of_another_engine_is_another_quantization(
    parts: NpzParts, job: Job, engine: str, is_refused: bool
) -> None:
    parts.begin(job.model_copy(update={"precision": "int8"}))
    other = job.model_copy(update={"precision": "int8", "engines": (engine,)})
    if is_refused:
        with pytest.raises(ConfigError, match=r"engine for INT8 \(ONNX .*, and here OpenVINO"):
            _begun(parts, other, restart=False)
    else:
        _begun(parts, other, restart=False)


@pytest.mark.parametrize(
    ("change", "is_other"),
    [
        (lambda manifest: manifest["model"].update(fit="crop"), True),
        (lambda manifest: manifest["model"].update(mean=[0.5]), True),
        (lambda manifest: manifest.update(created="2026-01-01T00:00:00Z", remarks=["new"]), False),
    ],
)
def test_equal_weights_with_other_pixels_are_another_job(
    bundle_copy: Path,
    change_manifest: Callable[[Path, Callable[[dict[str, Any]], object]], None],
    parts: NpzParts,
    job: Job,
    change: Callable[[dict[str, Any]], object],
    is_other: bool,
) -> None:
    """Rows of one result must not be of pictures that were fitted in two ways."""

    def now() -> Job:
        bundle = load_bundle(bundle_copy, hash_all=False)
        return job.model_copy(update={"model": model_hash(bundle, "fp32", is_scored=True)})

    parts.begin(now())
    change_manifest(bundle_copy, change)
    if is_other:
        with pytest.raises(ConfigError, match="with another model: finish it"):
            _begun(parts, now(), restart=False)
    else:
        assert _begun(parts, now(), restart=False).model == now().model
