from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from motorvae.runtime.sources.video.inputs import PipeReader


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_it_opens_before_anybody_writes_and_ends_with_the_writer(pipe: Path) -> None:
    with PipeReader(str(pipe), 60) as reader:
        writer = threading.Thread(target=pipe.write_bytes, args=(b"12345",))
        writer.start()
        assert reader.read(3) == b"123"
        assert reader.read(3) == b"45"
        assert reader.read(3) == b""
        writer.join()


def test_silence_is_an_error_before_and_after_the_first_byte(pipe: Path) -> None:
    with PipeReader(str(pipe), 0.05) as reader:
        with pytest.raises(TimeoutError, match=r"nothing came for 0\.05 s"):
            reader.read(1)
        with pipe.open("wb", buffering=0) as writer:
            writer.write(b"1")
            assert reader.read(9) == b"1"
            with pytest.raises(TimeoutError, match="nothing came"):
                reader.read(1)


def test_closed_twice_and_read_afterwards(pipe: Path) -> None:
    reader = PipeReader(str(pipe), 60)
    reader.close()
    reader.close()
    assert reader.read(1) == b""
