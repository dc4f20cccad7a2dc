from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_the_command_writes_a_folder(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "latents.npz"
    done = encode(image_folder, "--output", output)
    assert done.code == 0
    assert f"12 latents of {image_folder} in {output}" in done.stderr
    assert done.stdout == ""
    assert [path.name for path in output.parent.iterdir()] == ["latents.npz"]
    with np.load(output) as saved:
        assert len(saved["mu"]) == 12
        assert saved["latent_shape"].tolist() == [8]


def test_the_command_writes_a_video_named_by_frame(
    encode: Callable[..., Any], clips: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "latents.npz"
    assert encode(clips["h264.mp4"], "--output", output).code == 0
    with np.load(output) as saved:
        assert saved["names"].tolist() == [f"{clips['h264.mp4']}#{i:06d}" for i in range(24)]


def test_the_command_goes_on_past_a_bad_file_and_counts_it(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("frame0.png", "frame2.png"):
        (folder / name).write_bytes((image_folder / name).read_bytes())
    (folder / "frame1.png").write_bytes(b"no picture")
    output = tmp_path / "latents.npz"
    done = encode(folder, "--output", output)
    assert done.code == 1
    assert "skipped frame1.png: corrupt, cut short, or not an image" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"motorvae-encode: 1 of 3 did not decode and have no latent; the others are in {output}"
    )
    with np.load(output) as saved:
        assert saved["names"].tolist() == ["frame0.png", "frame2.png"]


def test_of_many_bad_files_the_first_are_named(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    names = [str(image_folder / "frame0.png"), *(f"nowhere{n}.png" for n in range(30))]
    (tmp_path / "list.txt").write_text("\n".join(names))
    done = encode(tmp_path / "list.txt", "--output", tmp_path / "latents.npz", "--part-images", 4)
    assert done.stderr.count("skipped nowhere") == 20
    assert "and 10 more" in done.stderr
    assert "30 of 31 did not decode" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--output", "latents.csv"], "output='latents.csv': name a file ending in .npz"),
        (["--batch-size", "0"], "--batch-size=0 is out of range: take 1 to 1024"),
        (["--part-images", "0"], "--part-images=0 is out of range: take 1 to"),
        (["--every", "0"], "every=0 is out of range: take a number from 1"),
        (["--workers", "0"], "workers=0 is out of range: take 1 to 1024"),
        (["--ood-above", "0"], "--ood-above=0.0 is out of range: take a percentile above 0"),
        (["--threads", "0"], "threads=0 is out of range"),
        (["--provider", "warp"], "provider 'warp' is not in this ONNX Runtime"),
        (["--model", "nowhere"], "no bundle at nowhere: run motorvae-export --output nowhere"),
        (["--output", "/proc/latents.npz"], "cannot write /proc/latents.npz"),
    ],
)
def test_the_command_refuses_in_one_line_and_writes_nothing(
    encode: Callable[..., Any],
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in encode(image_folder, *args).error
    assert list(tmp_path.iterdir()) == []


def test_without_data_it_says_what_to_name(encode: Callable[..., Any]) -> None:
    done = encode()
    assert done.code == 2
    assert "no data: name a folder, a pattern, a list, shards or a video" in done.stderr


def test_the_command_does_not_replace_a_folder(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "latents.npz").mkdir()
    done = encode(image_folder, "--output", tmp_path / "latents.npz")
    assert "exists and is not a file" in done.error


def _cut_off(tmp_path: Path, job: str) -> Path:
    """A run of one part, as a kill leaves it."""
    folder = tmp_path / "latents.npz.parts"
    folder.mkdir()
    (folder / "job.json").write_text(job)
    return folder


def test_a_run_of_another_job_is_refused_until_it_is_said_what_to_do(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from motorvae.runtime.bulk.parts import NpzParts

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "latents.npz"
    common = ("--output", output, "--part-images", 4)
    with monkeypatch.context() as patch:
        save = NpzParts.save

        def save_two(self: NpzParts, number: int, *rest: Any) -> None:
            save(self, number, *rest) if number < 2 else killed()

        patch.setattr(NpzParts, "save", save_two)
        done = encode(image_folder, *common)
    assert done.code == 130
    assert f"8 images are kept in {output}.parts: the same command goes on there" in done.stderr

    done = encode(image_folder, *common, "--every", 2)
    assert done.error.splitlines()[-1].endswith(
        f"{output}.parts holds a run that was cut off, with another every: finish it with the same "
        "options; to begin anew, say --restart"
    )
    noted = tmp_path / "latents.npz.parts" / "job.json"
    written = noted.read_text()
    assert "ONNX Runtime" in written
    noted.write_text(written.replace("ONNX Runtime", "Other Runtime"))
    done = encode(image_folder, *common)
    assert done.code == 0
    assert f"12 latents of {image_folder} in {output}, 8 of them by an earlier run" in done.stderr
    assert "encoded by Other Runtime" in done.stderr
    assert ": fp32 latents are equal within the gate" in done.stderr
    assert not (tmp_path / "latents.npz.parts").exists()


def test_restart_begins_anew(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    folder = _cut_off(tmp_path, "no json")
    output = tmp_path / "latents.npz"
    assert "job.json is not JSON" in encode(image_folder, "--output", output).error
    assert folder.exists()
    assert encode(image_folder, "--output", output, "--restart").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]


def test_a_terminal_that_is_closed_fails_no_encoding(
    script: Callable[[str], str], small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    terminal, theirs = pty.openpty()
    output = tmp_path / "latents.npz"
    command = [script("motorvae-encode"), str(image_folder), "--model", str(small_bundle)]
    with subprocess.Popen(
        [*command, "--output", str(output)], stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        os.close(terminal)
        assert process.wait(60) == 0
    with np.load(output) as saved:
        assert len(saved["mu"]) == 12


def test_what_is_read_is_not_written(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    table = pytest.importorskip("pyarrow").table({"path": [str(image_folder / "frame0.png")]})
    listing = tmp_path / "list.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(table, listing)
    done = encode(listing, "--output", listing)
    assert "list.parquet is in what is written: name another --output" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["list.parquet"]


def test_an_earlier_result_keeps_its_name_where_nothing_takes_its_place(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    output, empty = tmp_path / "all.parquet", tmp_path / "empty"
    assert encode(image_folder, "--output", output).code == 0
    empty.mkdir()
    assert "there is no image in" in encode(empty, "--output", output).stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "empty"]
    assert (output / "part-000000.parquet").exists()


def test_a_result_of_nobody_knows_what_is_set_aside_by_a_restart(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "all.parquet"
    assert encode(image_folder, "--output", output).code == 0
    (output / "_job.json").write_text("no json")
    assert "_job.json is not JSON" in encode(image_folder, "--output", output).error
    done = encode(image_folder, "--output", output, "--restart")
    assert done.code == 0
    assert f"is kept as {tmp_path / 'all.1.parquet'}" in "".join(done.stderr.splitlines())
    assert (tmp_path / "all.1.parquet" / "part-000000.parquet").exists()


def test_credentials_of_addresses_are_not_written_down(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("pyarrow")
    address = "memory://me:SECRET@bucket/a.png?sig=SECRET"
    encode(image_folder / "frame0.png", address, "--output", tmp_path / "all.parquet")
    written = b"".join(path.read_bytes() for path in (tmp_path / "all.parquet").iterdir())
    assert b"memory://***@bucket/a.png" in written
    assert b"SECRET" not in written


def test_a_disk_that_fills_up_in_the_end_loses_no_part(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "latents.npz"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("motorvae.runtime.bulk.encoded.put_new", full)
        done = encode(image_folder, "--output", output)
    assert f"12 images are kept in {output}.parts" in "".join(done.stderr.splitlines())
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "12 of them by an earlier run" in encode(image_folder, "--output", output).stderr


@pytest.mark.parametrize("output", ["latents.npz", "all.parquet"])
def test_failures_are_retried_in_their_places(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path, output: str
) -> None:
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("pyarrow")
    files, path = fsspec.filesystem("memory"), tmp_path / output
    names = [f"memory://flaky/{number}.png" for number in range(10)]
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join(names))
    for number in (0, 3, 4, 9):
        data = (image_folder / f"frame{number}.png").read_bytes()
        files.pipe(f"/flaky/{number}.png", data)
    options = (listing, "--output", path, "--part-images", 4)
    try:
        done = encode(*options)
        assert done.code == 1
        assert done.stderr.endswith("--retry-failures tries 6 again that could not be read\n")
        done = encode(*options, "--retry-failures", "--every", 2)
        assert f"{path}" in done.error
        assert "holds a result with another every" in done.error
        for number in range(10):
            files.pipe(f"/flaky/{number}.png", (image_folder / f"frame{number}.png").read_bytes())
        done = encode(*options, "--retry-failures")
        assert done.code == 0
        assert f"10 latents of {listing} in {path}, 4 of them by an earlier run" in done.stderr
    finally:
        files.rm("/flaky", recursive=True)
    if output.endswith(".npz"):
        assert (tmp_path / "latents.1.npz").exists()
        assert not (tmp_path / "latents.npz.parts").exists()
        with np.load(path) as held:
            assert held["names"].tolist() == names
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        assert table["name"].to_pylist() == names
        assert {*table["status"].to_pylist()} == {"ok"}


def test_without_failures_that_may_pass_nothing_is_retried(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "latents.npz"
    assert encode(image_folder, "--output", output, "--retry-failures").code == 0
    before = output.read_bytes()
    done = encode(image_folder, "--output", output, "--retry-failures")
    assert "nothing of it is known that another try may read" in done.error
    assert "take one of them" in encode(image_folder, "--restart", "--retry-failures").error
    assert [path.name for path in tmp_path.iterdir()] == ["latents.npz"]
    assert output.read_bytes() == before


def test_a_file_gets_a_line_of_progress_each_minute_and_no_bar(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{image_folder}/frame0.png\nnowhere.png\n")
    options = (listing, "--batch-size", 1, "--workers", 1, "--output", tmp_path / "a.npz")
    progress = re.compile(r"^\d+ images?\b.*", re.MULTILINE)
    assert progress.findall(encode(*options).stderr) == []
    monkeypatch.setattr("motorvae.runtime.encode_cli._LINE_EACH_S", 0.0)
    found = progress.findall(encode(*options).stderr)
    assert list(dict.fromkeys(found)) == ["1 image", "2 images, 1 failed"]


def test_a_terminal_shows_how_many_failed(
    script: Callable[[str], str], small_bundle: Path, image_folder: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(f"{image_folder}/frame0.png\nnowhere.png\n")
    terminal, theirs = pty.openpty()
    command = [script("motorvae-encode"), str(listing), "--model", str(small_bundle), "--no-ood"]
    with subprocess.Popen(
        [*command, "--output", str(tmp_path / "a.npz")], stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the process has ended, and nobody else writes
            while more := os.read(terminal, 4096):
                shown += more
        assert process.wait(60) == 1
    os.close(terminal)
    assert b"2 images, 1 failed" in shown


def test_a_finished_result_with_a_damaged_part_is_left_as_it_is(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    output, listing = tmp_path / "all.parquet", tmp_path / "list.txt"
    names = [f"{image_folder}/frame{number}.png" for number in range(8)]
    listing.write_text("\n".join([*names, "nowhere.png"]))
    options = (listing, "--output", output, "--part-images", 2)
    assert encode(*options).code == 1
    (output / "part-000000.parquet").write_bytes(b"damaged")
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    done = encode(*options, "--retry-failures")
    assert "the data or a part changed since the result was finished" in done.stderr
    assert done.code == 1
    assert "kept" not in done.stderr
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_retry_that_gains_nothing_leaves_the_result_alone(
    encode: Callable[..., Any], image_folder: Path, tmp_path: Path
) -> None:
    listing, output = tmp_path / "list.txt", tmp_path / "latents.npz"
    names = [str(path) for path in sorted(image_folder.glob("*.png"))[:3]]
    listing.write_text("\n".join([*names, "nowhere.png"]))
    assert encode(listing, "--output", output).code == 1
    before = output.stat()
    again = encode(listing, "--output", output, "--retry-failures")
    assert f"3 latents of {listing} in {output}, 3 of them by an earlier run" in again.stderr
    assert output.stat() == before
    assert not (tmp_path / "latents.1.npz").exists()
    Path(names[0]).rename(tmp_path / "away.png")
    refused = encode(listing, "--output", output, "--retry-failures")
    assert "which stays as it is: leave --retry-failures out" in refused.stderr
    assert output.stat() == before
    (tmp_path / "away.png").rename(names[0])
    (tmp_path / "nowhere.png").write_bytes(Path(names[0]).read_bytes())
    mended = encode(listing, "--output", output, "--retry-failures")
    assert mended.code == 0
    assert f"4 latents of {listing} in {output}, 3 of them by an earlier run" in mended.stderr
    assert "data changed" not in mended.stderr
