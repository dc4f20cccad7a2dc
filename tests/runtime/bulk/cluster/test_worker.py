from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bulk.cluster.worker import Answer, Facts, Worker, WorkerRequest
from motorvae.runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from motorvae.runtime.bulk.inputs import Inputs
from motorvae.runtime.core.errors import BundleError, ConfigError
from motorvae.runtime.core.packages import own_version
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.pixels.picture import USUAL_LIMIT

pa = pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def _back_again() -> Iterator[None]:
    """A worker goes to the folder where the run was started."""
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.fixture
def request_of(small_bundle: Path, tmp_path: Path) -> WorkerRequest:
    files = {path.name: path.read_bytes() for path in small_bundle.iterdir() if path.is_file()}
    pool = PoolRequest(EngineRequest(), USUAL_LIMIT, workers=2)
    return WorkerRequest(own_version(), str(tmp_path), lambda: files, pool)


def _asked(worker: Worker, question: Any, number: int = 3) -> Any:
    table = pa.table({"number": [number], "content": [pickle.dumps(question)]})
    answered = worker(table)
    assert answered.column("number").to_pylist() == [number]
    return pickle.loads(answered.column("content").to_pylist()[0])  # noqa: S301  # our own


def test_a_worker_says_what_it_runs_on(request_of: WorkerRequest) -> None:
    facts = _asked(Worker(request_of), None)
    assert isinstance(facts, Facts)
    assert (facts.precision, facts.batch_size > 0) == ("fp32", True)


def test_a_worker_encodes_as_this_machine_does_and_leaves_no_bundle_behind(
    request_of: WorkerRequest,
    image_folder: Path,
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paths are relative to the folder of the run, and one picture does not decode."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    for path in image_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "frame3.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    listing = Path("list.txt")
    listing.write_text("\n".join(f"frame{n}.png" for n in range(12)))
    items = list(inputs_of(listing))
    batches = [items[:5], items[5:]]
    monkeypatch.chdir("/")
    answer = _asked(Worker(request_of), batches)
    assert isinstance(answer, Answer)
    monkeypatch.chdir(tmp_path)
    for found, here in zip(answer.rows, pool.rows(batches), strict=True):
        assert found.texts == here.texts
        assert np.array_equal(found.latents["mu"], here.latents["mu"], equal_nan=True)
    assert [len(rows.failures) for rows in answer.rows] == [1, 0]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_another_version_is_refused_by_the_node(request_of: WorkerRequest) -> None:
    answer = _asked(Worker(replace(request_of, version="0.0.1")), None)
    assert isinstance(answer, ConfigError)
    assert "on node " in str(answer)
    assert "and 0.0.1 where the run was started: install the same one on each" in str(answer)


def test_a_bundle_that_was_altered_on_its_way_is_refused(request_of: WorkerRequest) -> None:
    files = dict(request_of.files())
    files["encoder.onnx"] = files["encoder.onnx"][:-1] + b"?"
    files["encoder.mu.onnx"] = files.get("encoder.mu.onnx", b"?")[:-1] + b"?"
    answer = _asked(Worker(replace(request_of, files=lambda: files)), [[]])
    assert isinstance(answer, BundleError)
    assert "was altered" in str(answer)


@pytest.mark.parametrize("kind", ["folder", "pattern", "list", "tar", "tgz", "video"])
def test_items_of_every_kind_go_to_another_process(
    kind: str,
    image_folder: Path,
    clips: dict[str, Path],
    inputs_of: Callable[..., Inputs],
    pool: EncoderPool,
    tmp_path: Path,
) -> None:
    import tarfile

    path: object = {"folder": image_folder, "video": clips["h264.mp4"]}.get(kind)
    if kind == "pattern":
        path = f"{image_folder}/*.png"
    elif kind == "list":
        path = tmp_path / "list.txt"
        (tmp_path / "list.txt").write_text(f"{image_folder}/frame0.png\nhttp://127.0.0.1:9/a.png")
    elif kind in {"tar", "tgz"}:
        path = tmp_path / f"shard.{kind}"
        with tarfile.open(str(path), "w:gz" if kind == "tgz" else "w") as tar:
            tar.add(image_folder / "frame0.png", "frame0.png")
    items = list(inputs_of(path))[:3]
    again = pickle.loads(pickle.dumps(items))  # noqa: S301  # our own
    here, there = pool.rows_of(items), pool.rows_of(again)
    assert here.texts == there.texts
    assert np.array_equal(here.latents["mu"], there.latents["mu"], equal_nan=True)
