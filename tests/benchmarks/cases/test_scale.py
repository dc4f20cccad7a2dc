from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from motorvae.benchmarks.cases import latencies, scale


def test_cameras_are_counted_and_drawn(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, drawn = tmp_path / "scale.json", tmp_path / "scale.svg"
    words = [str(small_bundle), "--cameras", "2", "--fps", "20", "--seconds", "0.5"]
    words += ["--rounds", "2"]
    options = ["--", "--backend", "onnx", "--trust", "--ood", "none"]
    assert scale.main([*words, "--json", str(kept), "--plot", str(drawn), *options]) == 0
    rounds = json.loads(kept.read_text())
    assert [found["processes"] for found in rounds] == [1, 2, 1, 2]
    for found in rounds:
        assert found["cameras"] == 2
        assert found["offered_per_s"] == 40
        assert 10 < found["latents_per_s"] < 80
        assert 0 < found["age_p50_ms"] <= found["age_p99_ms"]
        assert found["processor_ms"] > 0
    said = capsys.readouterr().out.splitlines()
    assert "latents_per_s" in said[0]
    for line, mine in zip(said[1:], (rounds[::2], rounds[1::2]), strict=True):
        ages = [found["age_p50_ms"] for found in mine]
        least, most = map(float, line.split()[-2:])
        assert (least, most) == pytest.approx((min(ages), max(ages)), rel=1e-3)
    picture = ET.fromstring(drawn.read_text())  # noqa: S314  # we wrote it
    names = [part.get("id", "") for part in picture.iter()]
    assert sum(name.startswith("axes_") for name in names) == 3


def test_no_round_is_no_run(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scale.main([str(small_bundle), "--rounds", "0"])
    assert "--rounds 0: at least 1" in capsys.readouterr().err


def test_each_choice_of_latency_is_measured_against_a_floor(
    small_bundle: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "latencies.json"
    words = [str(small_bundle), "--precision", "fp32", "--rounds", "1", "--frames", "20"]
    options = ["--", "--trust", "--ood", "none"]
    assert latencies.main([*words, "--json", str(kept), *options]) == 0
    results = json.loads(kept.read_text())
    assert list(results["floor_ms"]) == ["decode and convert", "encode"]
    assert [one["latency"] for one in results["found"]] == ["lowest", "balanced", "economy"]
    floor_ms = sum(results["floor_ms"].values())
    for one in results["found"]:
        assert one["over_floor"] == pytest.approx(one["age_p50_ms"] / floor_ms, abs=0.02)
        assert one["age_p50_ms"] >= one["capture"]
