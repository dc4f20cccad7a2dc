from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.row import COLUMNS, SCHEMA, Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec

pytest.importorskip("mcap")

from mcap.exceptions import EndOfFile  # needs the package
from mcap.reader import make_reader
from mcap.records import Message, Metadata
from mcap.stream_reader import StreamReader

from motorvae.runtime.sinks.mcap_file import McapSink, json_schema_of

FACTS = RunFacts(
    ModelSpec(image_size=32, latent_size=3),
    ("front", "/dev/video0"),
    "ab" * 32,
    "onnxruntime cpu",
    lossless=True,
)
WRITING = """
import sys
import numpy as np
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.core.row import Row, RunFacts
from motorvae.runtime.sinks.open import open_sink
model = ModelSpec(image_size=32, latent_size=3)
facts = RunFacts(model, ("front", "/dev/video0"), "ab" * 32, "onnxruntime cpu", lossless=True)
sink = open_sink(sys.argv[1], facts)
for index in range(30):
    sink.write(Row(index, 100 + index, 1.0, 0, "ok", np.ones(3, np.float32), "front"))
    if index % 10 == 9 and index < 25:
        sink.flush()
print("written", flush=True)
sys.stdin.read()
"""


def row_at(index: int, camera: str = "front", **facts: Any) -> Row:
    return Row(index, 100 + index, 0.5, 0, "ok", np.full(3, index, np.float32), camera, **facts)


def records_in(path: Path) -> Iterator[Any]:
    """All records up to the end or to where the file was cut off."""
    with path.open("rb") as file:
        try:
            yield from StreamReader(file, validate_crcs=True).records
        except (EndOfFile, struct.error):
            return


def indexes_in(path: Path) -> list[int]:
    return [
        json.loads(record.data)["index"]
        for record in records_in(path)
        if isinstance(record, Message)
    ]


def test_each_camera_has_its_topic_and_the_end_its_own(tmp_path: Path) -> None:
    path = tmp_path / "latents.mcap"
    before_ns = time.time_ns()
    with McapSink(str(path), FACTS) as sink:
        sink.write(row_at(0, kl=0.5))
        sink.write(Row(4, 9, None, 2, "lost", camera="/dev/video0", reason="gone"))
        sink.write(Row(2, 3, None, 0, "end", summary={"rows": 2}))
    with path.open("rb") as file:
        found = [
            (channel.topic, message.log_time, json.loads(message.data), schema)
            for schema, channel, message in make_reader(file).iter_messages()
        ]
    lost, first, end = sorted(found, key=lambda item: item[1])
    assert lost[:3] == (
        "/dev/video0/latents",
        9,
        {
            "index": 4,
            "captured_ns": 9,
            "dropped": 2,
            "status": "lost",
            "camera": "/dev/video0",
            "reason": "gone",
            "schema": SCHEMA,
        },
    )
    assert first[:2] == ("/front/latents", 100)
    assert (first[2]["mu"], first[2]["kl"], first[2]["age_ms"]) == ([0.0, 0.0, 0.0], 0.5, 0.5)
    assert end[0] == "/end"
    assert end[1] >= before_ns
    assert end[2]["summary"] == {"rows": 2}
    assert {(item[3].name, item[3].encoding) for item in found} == {
        ("motorvae.LatentRow", "jsonschema")
    }
    assert json.loads(found[0][3].data) == json_schema_of(FACTS)


def test_the_schema_has_every_key_of_a_message_with_its_type(tmp_path: Path) -> None:
    kinds = {"integer": int, "number": float, "boolean": bool, "string": str}
    values: dict[type, Any] = {int: 3, float: 2.5, bool: True, str: "ok"}
    row = Row(mu=np.ones(3, np.float32), **{name: values[kind] for name, kind in COLUMNS.items()})
    row.camera, row.summary = "front", {}
    with McapSink(str(tmp_path / "a.mcap"), FACTS) as sink:
        sink.write(row)
    (message,) = [r for r in records_in(tmp_path / "a.mcap") if isinstance(r, Message)]
    properties = json_schema_of(FACTS)["properties"]
    content = json.loads(message.data)
    assert set(content) == set(properties)
    for name, kind in COLUMNS.items():
        assert kinds[properties[name]["type"]] is kind
        assert type(content[name]) is kind


def test_the_metadata_names_schema_and_model(tmp_path: Path) -> None:
    McapSink(str(tmp_path / "a.mcap"), FACTS).close()
    (record,) = [r for r in records_in(tmp_path / "a.mcap") if isinstance(r, Metadata)]
    assert record.name == "motorvae"
    assert record.metadata == {
        "schema_version": str(SCHEMA),
        "weights_sha256": "ab" * 32,
        "backend": "onnxruntime cpu",
        "latent_size": "3",
        "latent_shape": "3",
    }


def test_a_killed_process_leaves_what_it_flushed(tmp_path: Path) -> None:
    path = tmp_path / "latents.mcap"
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    assert indexes_in(path) == list(range(20))


def test_a_file_cut_off_anywhere_reads_up_to_its_last_whole_chunk(tmp_path: Path) -> None:
    path, ends = tmp_path / "latents.mcap", []
    with McapSink(str(path), FACTS) as sink:
        for index in range(4):
            sink.write(row_at(index))
            sink.flush()
            ends.append(path.stat().st_size)
    data = path.read_bytes()
    cut = tmp_path / "cut.mcap"
    for length in range(ends[0], ends[-1]):
        cut.write_bytes(data[:length])
        whole = [index for index, end in enumerate(ends) if end <= length]
        found = indexes_in(cut)
        assert found[: len(whole)] == whole
        assert len(found) <= len(whole) + 1  # the chunk may be whole before its index is


def test_a_full_disk_leaves_whole_chunks_only(tmp_path: Path, python: Callable[..., Any]) -> None:
    path = tmp_path / "latents.mcap"
    done = python(
        "import os, resource, signal, sys\n"
        "import numpy as np\n"
        "from motorvae.runtime.core.errors import OutputError\n"
        "from motorvae.runtime.core.spec import ModelSpec\n"
        "from motorvae.runtime.core.row import Row, RunFacts\n"
        "from motorvae.runtime.sinks.open import open_sink\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "model = ModelSpec(image_size=32, latent_size=3)\n"
        "sink = open_sink(sys.argv[1], RunFacts(model, ('a',), '', '', lossless=True))\n"
        "def write(index):\n"
        "    sink.write(Row(index, index, 1.0, 0, 'ok', np.ones(3, np.float32), 'a'))\n"
        "    sink.flush()\n"
        "write(0)\n"
        "write(1)\n"
        "size = os.stat(sys.argv[1]).st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))\n"
        "try: write(2)\n"
        "except OutputError as error: print(error)\n"
        "print(sink.rows, os.stat(sys.argv[1]).st_size - size)\n"
        "sink.close()\n",
        path,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"cannot write {path}: File too large; the 2 rows before it are whole; "
        "make room or choose another --output",
        "2 0",
    ]
    assert indexes_in(path) == [0, 1]
