from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.bulk.encoded import Encoded
from motorvae.runtime.bulk.inputs import Inputs
from motorvae.runtime.core.errors import ConfigError, SourceError


def _tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def files(image_folder: Path) -> dict[str, bytes]:
    return {f"frame{n}.png": (image_folder / f"frame{n}.png").read_bytes() for n in range(6)}


@pytest.fixture
def expected(image_folder: Path, encoded_of: Callable[..., Encoded]) -> Encoded:
    return encoded_of([image_folder])


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz")])
def test_a_shard_gives_the_latents_of_its_files(
    tmp_path: Path,
    files: dict[str, bytes],
    encoded_of: Callable[..., Encoded],
    expected: Encoded,
    suffix: str,
    mode: str,
) -> None:
    shard = _tar(tmp_path / f"a{suffix}", {**files, "frame0.cls": b"3", "frame0.json": b"{}"}, mode)
    encoded = encoded_of([shard])
    assert encoded.names == [f"{shard}/{name}" for name in files]
    assert np.allclose(encoded.mu, expected.mu[:6], atol=1e-6)
    (remark,) = encoded.remarks
    assert remark.endswith("2 not taken: no picture (.cls, .json)")


@pytest.mark.parametrize("kind", [".tar", ".tar.gz"])
def test_a_shard_that_is_cut_short_gives_what_is_before_and_says_so(
    tmp_path: Path, files: dict[str, bytes], encoded_of: Callable[..., Encoded], kind: str
) -> None:
    shard = _tar(tmp_path / f"a{kind}", files, "w:gz" if kind.endswith("gz") else "w")
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * 0.6)])
    encoded = encoded_of([shard])
    assert 0 < len(encoded.names) < 6
    assert encoded.names == [f"{shard}/{name}" for name in list(files)[: len(encoded.names)]]
    assert 1 <= len(encoded.gaps) <= 2  # the one that is cut, and what no longer follows it
    assert "shard" in encoded.gaps[-1].reason


def test_a_damaged_shard_does_not_end_the_others(
    tmp_path: Path, files: dict[str, bytes], encoded_of: Callable[..., Encoded]
) -> None:
    for number in range(3):
        _tar(tmp_path / f"s-{number}.tar", files)
    (tmp_path / "s-1.tar").write_bytes(b"\xff" * 4096)
    encoded = encoded_of([f"{tmp_path}/s-{{0..2}}.tar"])
    assert len(encoded.names) == 12
    (gap,) = encoded.gaps
    assert gap.name == f"{tmp_path}/s-1.tar"
    assert gap.reason.startswith("the shard cannot be read")


def test_braces_count_with_their_zeros(inputs_of: Callable[..., Inputs], tmp_path: Path) -> None:
    for number in range(8, 12):
        _tar(tmp_path / f"s-{number:03d}.tar", {})
    inputs = inputs_of(f"{tmp_path}/s-{{008..011}}.tar")
    assert inputs._texts == [f"{tmp_path}/s-{number:03d}.tar" for number in range(8, 12)]
    with pytest.raises(ConfigError, match=r"\{5\.\.2\} counts from a number to a larger one"):
        inputs_of(f"{tmp_path}/s-{{5..2}}.tar")
    with pytest.raises(ConfigError, match=r"counts 10,000,000 shards, and 1,000,000 are allowed"):
        inputs_of("s-{0..9999999}.tar")


def test_a_pattern_of_shards_takes_them_in_natural_order(
    inputs_of: Callable[..., Inputs], tmp_path: Path
) -> None:
    for number in (1, 2, 10):
        _tar(tmp_path / f"s{number}.tar", {})
    inputs = inputs_of(f"{tmp_path}/s*.tar")
    assert inputs._texts == [f"{tmp_path}/s{number}.tar" for number in (1, 2, 10)]
    with pytest.raises(SourceError, match="nothing matches"):
        inputs_of(f"{tmp_path}/t*.tar")


def test_a_broken_video_among_other_inputs_is_a_failure(
    image_folder: Path, tmp_path: Path, encoded_of: Callable[..., Encoded]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 4096)
    encoded = encoded_of([image_folder, tmp_path / "broken.mp4", image_folder / "frame0.png"])
    assert len(encoded.names) == 13
    (gap,) = encoded.gaps
    assert gap.name == str(tmp_path / "broken.mp4")
    assert gap.reason
    with pytest.raises(SourceError):
        encoded_of([tmp_path / "broken.mp4"])


def test_a_list_is_read_from_its_own_folder(
    image_folder: Path, encoded_of: Callable[..., Encoded], expected: Encoded
) -> None:
    listing = image_folder.parent / f"{image_folder.name}.txt"
    lines = ["\ufeff" + f"{image_folder.name}/frame7.png", "", str(image_folder / "frame2.png")]
    listing.write_text("\r\n".join([*lines, "nowhere.png"]) + "\n", encoding="utf-8")
    encoded = encoded_of([listing])
    assert encoded.names == [lines[0].lstrip("\ufeff"), lines[2]]
    assert np.allclose(encoded.mu, expected.mu[[7, 2]], atol=1e-6)
    (gap,) = encoded.gaps
    assert (gap.name, gap.reason) == ("nowhere.png", "cannot be read: No such file or directory")


def test_names_of_several_lists_begin_with_the_list(
    image_folder: Path, inputs_of: Callable[..., Inputs], tmp_path: Path
) -> None:
    absolute = str(image_folder / "frame2.png")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "list.txt").write_text(f"img.png\n{absolute}\nhttp://host/c.png\n")
    lists = [tmp_path / name / "list.txt" for name in ("a", "b")]
    assert [item.name for item in inputs_of(lists[0])] == ["img.png", absolute, "http://host/c.png"]
    assert [item.name for item in inputs_of(*lists)] == [
        *(f"{lists[0]}/img.png", absolute, "http://host/c.png"),
        *(f"{lists[1]}/img.png", absolute, "http://host/c.png"),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\n", "line 1 is no UTF-8"),
        (b"a.png\n\xff\n\n\xfe\n", "line 2 is no UTF-8"),
        ("a.png\nb.png\n".encode("utf-16"), "line 1 is no UTF-8"),
        (b"x" * 200_000, "line 1 has 65536 bytes or more"),
        (b"\0\1\n" * 1000, "line 1 holds a NUL"),
    ],
)
def test_a_list_that_is_no_text_is_refused(
    tmp_path: Path, inputs_of: Callable[..., Inputs], content: bytes, words: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    items = iter(inputs_of(tmp_path / "a.txt"))
    with pytest.raises(SourceError, match=rf"a\.txt: {words}.*: give one path or address"):
        next(items)


def test_a_picture_that_is_called_a_list_is_refused(
    image_folder: Path, tmp_path: Path, inputs_of: Callable[..., Inputs]
) -> None:
    (tmp_path / "a.txt").write_bytes((image_folder / "frame0.png").read_bytes())
    with pytest.raises(SourceError, match=r"a\.txt: line \d+ is no UTF-8: give one path"):
        list(inputs_of(tmp_path / "a.txt"))


def test_a_bad_line_of_a_list_is_a_failure_like_another(
    tmp_path: Path, image_folder: Path, encoded_of: Callable[..., Encoded]
) -> None:
    listing, good = tmp_path / "a.txt", str(image_folder / "frame0.png").encode()
    long = b"y" * 200_000
    lines = [good, b"\xff.png", good, long, b"a\0b.png", b"", good, b"x" * 65_535 + b"\xc3\xa9"]
    listing.write_bytes(b"\n".join([*lines, good]))
    encoded = encoded_of([listing])
    assert encoded.names == [good.decode()] * 4
    assert [(gap.index, gap.name, gap.reason) for gap in encoded.gaps] == [
        (1, f"{listing}:2", "the line is no UTF-8"),
        (3, f"{listing}:4", "the line has 65536 bytes or more"),
        (4, f"{listing}:5", "the line holds a NUL, as no text does"),
        (6, f"{listing}:8", "the line has 65536 bytes or more"),
    ]


def test_a_row_of_a_table_that_is_no_text_is_a_failure(
    tmp_path: Path, image_folder: Path, encoded_of: Callable[..., Encoded]
) -> None:
    pa = pytest.importorskip("pyarrow")
    good = str(image_folder / "frame0.png").encode()
    texts = pa.array([good, b"\xff.png", good]).view(pa.string())
    table = tmp_path / "a.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"path": texts}), table)
    encoded = encoded_of([table])
    assert len(encoded.names) == 2
    (gap,) = encoded.gaps
    assert (gap.name, gap.reason) == (f"{table}:2", "the line is no UTF-8")


def test_a_table_s_column_names_images(
    tmp_path: Path, image_folder: Path, encoded_of: Callable[..., Encoded], expected: Encoded
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    paths = [str(image_folder / f"frame{n}.png") for n in (4, 1)]
    table = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [*paths, None], "label": [1, 2, 3]}), table)
    encoded = encoded_of([table])
    assert encoded.names == paths
    assert np.allclose(encoded.mu, expected.mu[[4, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("column", "words"),
    [("image", "has no column 'image', but path, label"), ("label", "column 'label' is int64")],
)
def test_a_wrong_column_is_named(
    tmp_path: Path, inputs_of: Callable[..., Inputs], column: str, words: str
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"path": ["a.png"], "label": [1]}), tmp_path / "list.parquet")
    with pytest.raises(SourceError, match=words):
        list(inputs_of(tmp_path / "list.parquet", column=column))


def test_each_third_frame_of_a_video(
    clips: dict[str, Path], encoded_of: Callable[..., Encoded], inputs_of: Callable[..., Inputs]
) -> None:
    clip = clips["h264.mp4"]
    whole = encoded_of([clip])
    names = [item.name for item in inputs_of(clip, every=3)]
    assert names == whole.names[::3] == [f"{clip}#{n:06d}" for n in range(0, 24, 3)]


def test_names_of_several_inputs_tell_them_apart(
    tmp_path: Path, files: dict[str, bytes], inputs_of: Callable[..., Inputs]
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("frame0.png", "frame1.png"):
            (tmp_path / folder / name).write_bytes(files[name])
    names = [item.name for item in inputs_of(tmp_path / "a", tmp_path / "b")]
    assert names == [
        f"{tmp_path}/{folder}/{name}" for folder in "ab" for name in ("frame0.png", "frame1.png")
    ]


def test_a_stamp_changes_with_the_file(
    tmp_path: Path, files: dict[str, bytes], inputs_of: Callable[..., Inputs]
) -> None:
    path = tmp_path / "frame0.png"
    path.write_bytes(files["frame0.png"])
    inputs = inputs_of(tmp_path)
    (before,) = (item.stamp for item in inputs)
    assert [item.stamp for item in inputs] == [before]
    path.write_bytes(files["frame1.png"] + b"\0")
    assert [item.stamp for item in inputs] != [before]


def test_a_video_that_was_replaced_is_another_one(
    inputs_of: Callable[..., Inputs], clips: dict[str, Path], tmp_path: Path
) -> None:
    video = tmp_path / "a.mp4"

    def stamps() -> set[str]:
        return {item.stamp for item in inputs_of(video, every=12)}

    video.write_bytes(clips["h264.mp4"].read_bytes())
    (before,) = stamps()
    os.utime(video, ns=(0, 0))
    assert before not in stamps()


def test_names_of_several_inputs_are_paths(
    inputs_of: Callable[..., Inputs],
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = (image_folder / "frame0.png").read_bytes()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("x.png", "y.png"):
            (tmp_path / folder / name).write_bytes(data)
    monkeypatch.setenv("HOME", str(tmp_path))
    inputs = inputs_of(f"{tmp_path}/*/x.png", "~/b", "~/a/y.png")
    names = ["a/x.png", "b/x.png", "b/x.png", "b/y.png", "a/y.png"]
    assert [item.name for item in inputs] == [f"{tmp_path}/{name}" for name in names]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_a_column_of_texts_of_any_kind_and_what_is_missing_in_it(
    kind: str, inputs_of: Callable[..., Inputs], tmp_path: Path
) -> None:
    """pandas writes categories as dictionaries."""
    pa = pytest.importorskip("pyarrow")
    texts = pa.array(["a.png", None, "b.png", "", "a.png"])
    made = texts.dictionary_encode() if kind == "dictionary" else texts.cast(kind)
    pytest.importorskip("pyarrow.parquet").write_table(
        pa.table({"path": made}), tmp_path / "list.parquet"
    )
    inputs = inputs_of(tmp_path / "list.parquet")
    assert [item.name for item in inputs] == ["a.png", "b.png", "a.png"]
    assert inputs.remarks == [f"{tmp_path}/list.parquet: 2 not taken: no text in column 'path'"]
