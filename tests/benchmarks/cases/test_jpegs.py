from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motorvae.benchmarks.cases import jpegs
from motorvae.benchmarks.under_test.scenes import frame_of, jpeg_of
from motorvae.benchmarks.under_test.stream_process import StreamProcess
from motorvae.runtime.core.system.other_core import other_core
from motorvae.runtime.pixels.jpeg import jpeg_header, pixels_of_jpeg


def test_both_forms_are_measured_on_one_core_and_two(
    small_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpegs, "SIZES", ((640, 480),))
    words = [str(small_bundle), "--samples", "2", "--rounds", "1", "--frames", "10"]
    options = ["--", "--trust", "--ood", "none", "--backend", "onnx"]
    assert jpegs.main([*words, *options]) == 0
    hot, streams = capsys.readouterr().out.split("\n\n")
    assert [line.split(" |")[0] for line in hot.splitlines()[2:]] == [
        f"| 640x480 {form}, {way}"
        for form in ("without markers", "with markers")
        for way in ("Huffman codes alone", "luma, one core", "luma, two cores")
    ]
    rows = [line.split(" | ") for line in streams.splitlines()[2:]]
    assert [row[0] for row in rows] == [
        f"| 640x480 {way}" for way in ("without markers", "with markers, one core", "with markers")
    ]
    ages = [float(row[1]) for row in rows]
    assert min(ages) > 0


@pytest.mark.skipif(other_core() is None, reason="this needs two cores")
def test_one_way_decodes_on_one_core(small_bundle: Path) -> None:
    """Told by the process itself, which then ends before it opens anything."""
    tell = """
from motorvae.runtime.stream.options import StreamOptions
print(StreamOptions(("0",), "x", latency="lowest").cores_for_decoding, flush=True)
"""
    cores = []
    for _, change in jpegs._STREAMS.values():
        with StreamProcess(("--camera", "0", "--model", str(small_bundle)), change + tell) as it:
            cores.append(int(it.rows(1)[0]))
    assert cores[1] == 1
    assert cores[0] == cores[2] > 1


def test_markers_change_no_pixel() -> None:
    frame = frame_of(640, 480, 0)
    plain, marked = jpeg_of(frame).tobytes(), jpeg_of(frame, 40).tobytes()
    header = jpeg_header(marked)
    assert header is not None
    assert header.restart_interval == 40
    first, second = (pixels_of_jpeg(data, "grey") for data in (plain, marked))
    assert first is not None
    assert second is not None
    assert np.array_equal(first, second)
