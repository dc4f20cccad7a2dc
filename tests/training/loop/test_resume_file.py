from __future__ import annotations

import os
import random
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from motorvae.runtime.core.errors import CheckpointError, OutputError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training.checkpoint import DataSummary, RunConfig
from motorvae.training.loop import resume_file
from motorvae.training.loop.resume_file import ResumeFileIO
from motorvae.training.options import TrainOptions

SPEC = ModelSpec(image_size=32, channels=(4, 8), latent_size=4)


def run_of(started: str) -> RunConfig:
    return RunConfig(
        started=started,
        model=SPEC,
        options=TrainOptions(),
        data=DataSummary(kind="vehicles", source="vehicles", train=9, held_out=1, skipped=0),
        precision="32-true",
        versions={},
    )


RUN = run_of("2026-01-02T03:04:05+00:00")
CONTENT = {"motorvae": {"schedule": {"step": 7}}, "weights": torch.arange(300.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "resume.ckpt"
    ResumeFileIO(RUN).save_checkpoint(CONTENT, file)
    return file


def refused(path: Path, run: RunConfig = RUN) -> str:
    with pytest.raises(CheckpointError, match=r"^cannot resume from .*start a new run$") as caught:
        ResumeFileIO(run).load_checkpoint(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_saved_is_read_and_torch_reads_it_too(path: Path) -> None:
    found = ResumeFileIO(RUN).load_checkpoint(path)
    assert torch.equal(found["weights"], CONTENT["weights"])
    assert torch.load(path, weights_only=True)["motorvae"] == CONTENT["motorvae"]
    assert zipfile.ZipFile(path).testzip() is None


@pytest.mark.parametrize("seed", range(40))
def test_any_other_byte_is_noticed(path: Path, seed: int) -> None:
    dice, content = random.Random(seed), bytearray(path.read_bytes())
    at = dice.randrange(len(content)) if seed else len(content) - 1
    content[at] ^= dice.randrange(1, 256)
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("left", [0, 1, 22, 79, 80, 500, -1, -64, -80])
def test_a_file_that_is_cut_short_is_refused(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])
    assert "cut short, or no resume file of this version" in refused(path)


def test_a_file_of_another_run_is_refused(path: Path) -> None:
    assert "it is of another run" in refused(path, run_of("2026-01-02T03:04:06+00:00"))


@pytest.mark.parametrize(
    "put",
    [
        lambda path: torch.save({"a": 1}, path),
        lambda path: path.write_bytes(b"PK\5\6" + bytes(18)),
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
    ],
    ids=["torch", "empty zip", "folder", "fifo", "zeros", "loop"],
)
def test_what_is_not_ours_is_refused(path: Path, put: Callable[[Path], None]) -> None:
    path.unlink()
    put(path)
    assert "[Errno" not in refused(path)


def test_a_size_that_no_such_run_has_is_refused_unread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_file, "_digest", lambda *_: pytest.fail("it was read"))
    with path.open("r+b") as file:
        file.truncate(10 << 30)
    assert "it has 10737418240 bytes, and at most" in refused(path)


def test_a_disk_that_fills_up_is_an_output_error_and_the_earlier_file_stays(path: Path) -> None:
    earlier, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"^cannot write .*resume.ckpt: File too large; "):
            ResumeFileIO(RUN).save_checkpoint({"weights": torch.arange(30_000.0)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == earlier
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("fit", "is_ours"), [("stretch", True), ("pad", False)])
def test_a_file_of_a_version_with_fewer_fields_is_known_by_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: str, is_ours: bool
) -> None:
    model = f'{{"image_size":32,"channels":[4,8],"latent_size":4,"fit":"{fit}","matrix":"bt601"}}'
    with monkeypatch.context() as earlier:
        earlier.setattr(resume_file, "_identity", lambda run: f"{run.started} {model}")
        ResumeFileIO(RUN).save_checkpoint(CONTENT, tmp_path / "resume.ckpt")
    if is_ours:
        assert ResumeFileIO(RUN).load_checkpoint(tmp_path / "resume.ckpt")["motorvae"]
    else:
        assert "it is of another run" in refused(tmp_path / "resume.ckpt")
