from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from motorvae.runtime.core.errors import OutputError
from motorvae.runtime.core.row import SCHEMA, Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec

zmq = pytest.importorskip("zmq")

from motorvae.runtime.sinks import zeromq  # noqa: E402  # needs the package
from motorvae.runtime.sinks.zeromq import ZmqSink  # noqa: E402  # likewise

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "zmq_subscriber.py"
FACTS = RunFacts(
    ModelSpec(image_size=32, latent_size=3),
    ("front", "rear"),
    "ab" * 32,
    "onnxruntime cpu",
    lossless=False,
)
PATIENCE_MS = 60_000


def row_at(index: int, camera: str = "front", **facts: Any) -> Row:
    mu = np.array([index, -0.5, 1e-9], np.float32)
    return Row(index, 100 + index, 0.5, 0, "ok", mu, camera, **facts)


@pytest.fixture
def sink() -> Iterator[ZmqSink]:
    with ZmqSink("zmq://:0", FACTS) as opened:
        yield opened


@pytest.fixture
def subscriber(sink: ZmqSink) -> Iterator[Any]:
    """Subscribed and known to be: the first row has been through."""
    with zmq.Context() as context, context.socket(zmq.SUB) as opened:
        opened.linger = 0
        opened.subscribe(b"")
        opened.connect(sink.name.replace("zmq://", "tcp://"))
        while not opened.poll(20):
            sink.write(row_at(0))
        while opened.poll(20):
            opened.recv_multipart()
        yield opened


def received(subscriber: Any) -> list[bytes]:
    assert subscriber.poll(PATIENCE_MS)
    parts: list[bytes] = subscriber.recv_multipart()
    return parts


def test_a_row_is_camera_facts_and_raw_latents(sink: ZmqSink, subscriber: Any) -> None:
    sink.write(row_at(7, "rear", kl=0.5, duplicate=False))
    topic, header, raw = received(subscriber)
    assert topic == b"rear"
    assert orjson.loads(header) == {
        "index": 7,
        "captured_ns": 107,
        "age_ms": 0.5,
        "dropped": 0,
        "status": "ok",
        "camera": "rear",
        "duplicate": False,
        "kl": 0.5,
        "schema": SCHEMA,
        "dtype": "<f4",
        "shape": [3],
    }
    assert np.array_equal(np.frombuffer(raw, "<f4"), np.array([7, -0.5, 1e-9], np.float32))


def test_a_row_without_a_latent_has_an_empty_part(sink: ZmqSink, subscriber: Any) -> None:
    sink.write(Row(1, 2, None, 3, "lost", camera="front", reason="gone"))
    sink.write(Row(2, 3, None, 0, "end", summary={"rows": 2}))
    topic, header, raw = received(subscriber)
    assert (topic, raw, orjson.loads(header)["shape"]) == (b"front", b"", [0])
    topic, header, raw = received(subscriber)
    assert (topic, raw, orjson.loads(header)["summary"]) == (b"end", b"", {"rows": 2})


def test_only_this_machine_hears_unless_another_interface_is_named(sink: ZmqSink) -> None:
    assert sink.name.startswith("zmq://127.0.0.1:")
    with ZmqSink("zmq://0.0.0.0:0", FACTS) as everywhere:
        assert everywhere.name.startswith("zmq://0.0.0.0:")


def test_a_taken_port_is_said(sink: ZmqSink) -> None:
    with pytest.raises(OutputError) as caught:
        ZmqSink(sink.name, FACTS)
    assert str(caught.value) == (
        f"cannot listen on {sink.name}: Address already in use; "
        "name another port, or an address of this machine"
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_said(host: str) -> None:
    with pytest.raises(OutputError, match=f"cannot listen on zmq://{host}:5556: .*; name another"):
        ZmqSink(f"zmq://{host}:5556", FACTS)


def test_a_subscriber_that_does_not_read_holds_nobody_back(sink: ZmqSink, subscriber: Any) -> None:
    count = 20_000  # more than both ends and the sockets between them keep
    for index in range(count):
        sink.write(row_at(index))
    assert sink.rows >= count
    first = orjson.loads(received(subscriber)[1])["index"]
    assert first == 0


def test_the_example_prints_rows_in_its_own_process_up_to_the_end_row(sink: ZmqSink) -> None:
    address = sink.name.replace("zmq://", "tcp://")
    with subprocess.Popen(
        [sys.executable, str(EXAMPLE), address], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        # Who subscribes late has missed what was before: publish until the first row arrives.
        while not select.select([process.stdout], [], [], 0.02)[0]:
            assert process.poll() is None
            sink.write(row_at(5))
        assert process.stdout.readline().startswith("front 5 ok [")
        sink.write(Row(6, 7, None, 0, "lost", camera="rear", reason="gone"))
        sink.write(Row(7, 8, None, 0, "end"))
        sink.close()
        rest = process.stdout.read().splitlines()
        assert process.wait(60) == 0
    assert set(rest[:-2]) <= {"front 5 ok [ 5.0e+00 -5.0e-01  1.0e-09]"}
    assert rest[-2:] == ["rear 6 lost []", "end 7 end []"]


def test_a_peer_with_too_many_topics_is_thrown_out_and_others_come_back(
    sink: ZmqSink,
    subscriber: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(zeromq, "MOST_TOPICS", 100)
    with zmq.Context() as context, context.socket(zmq.SUB) as hostile:
        hostile.linger = 0
        hostile.connect(sink.name.replace("zmq://", "tcp://"))
        for topic in range(300):
            hostile.subscribe(b"%d" % topic)
        told = ""
        while "more than 100 topics were subscribed to" not in told:
            sink.write(row_at(1))
            told += capsys.readouterr().err
        assert sink.name in told
    while subscriber.poll(0):
        subscriber.recv_multipart()
    while not subscriber.poll(20):
        sink.write(row_at(2))
    assert received(subscriber)[0] == b"front"


def test_a_peer_with_a_topic_that_is_too_long_is_disconnected(
    sink: ZmqSink, subscriber: Any
) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as hostile:
        hostile.linger = 0
        hostile.monitor("inproc://events", zmq.EVENT_DISCONNECTED)
        hostile.connect(sink.name.replace("zmq://", "tcp://"))
        hostile.subscribe(b"x" * 4000)
        with context.socket(zmq.PAIR) as events:
            events.connect("inproc://events")
            assert events.poll(PATIENCE_MS)
            hostile.disable_monitor()
    sink.write(row_at(3))
    assert received(subscriber)[0] == b"front"


def test_a_latent_of_maps_has_its_shape_in_the_header() -> None:
    spec = ModelSpec(image_size=32, channels=None, latent_size=12, latent_shape=(2, 3, 2))
    mu = np.arange(12, dtype=np.float32)
    with (
        ZmqSink("zmq://:0", replace(FACTS, model=spec)) as sink,
        zmq.Context() as context,
        context.socket(zmq.SUB) as opened,
    ):
        opened.linger = 0
        opened.subscribe(b"")
        opened.connect(sink.name.replace("zmq://", "tcp://"))
        while not opened.poll(20):
            sink.write(Row(0, 1, 2.0, 0, "ok", mu, "front"))
        _, header, raw = opened.recv_multipart()
    shape = orjson.loads(header)["shape"]
    assert np.frombuffer(raw, "<f4").reshape(shape)[1, 2, 0] == 10
