from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from motorvae.export.table import verification_table
from motorvae.export.verify import (
    LIMITS,
    Reference,
    decoder_reports,
    encoder_reports,
    floored_spread,
    neighbour_agreement,
    worst_cosine,
    worst_psnr_db,
)
from motorvae.runtime.backend import open_onnx
from motorvae.runtime.bundle import GraphName, GraphReport


def metric(report: GraphReport, name: str) -> float:
    return next(m.value for m in report.metrics if m.name == name)


@pytest.fixture
def encoder(graphs: dict[GraphName, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(graphs["encoder"])
    return path


def test_true_graph_passes_and_every_figure_is_there(encoder: Path, reference: Reference) -> None:
    with open_onnx(encoder) as backend:
        (mu, log_var), _ = encoder_reports(backend, reference, "fp32")
    assert mu.passed
    assert log_var.passed
    assert mu.images == len(reference.images)
    assert mu.engine.startswith("ONNX Runtime")
    assert [m.name for m in mu.metrics if m.limit is not None] == [
        "NaN or Inf values",
        "max error / spread over data",
        "RMS error / spread over data",
    ]
    assert metric(mu, "cosine, worst image") == pytest.approx(1, abs=1e-6)
    assert metric(mu, "agreement of the 10 nearest neighbours") > 0.99


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_drifted_latent_of_one_image_fails_the_gate(
    encoder: Path, reference: Reference, precision: str
) -> None:
    drifted = reference.mu.copy()
    drifted[3, 2] += 1.1 * LIMITS[precision].max_spread * reference.spread.mu[2]
    with open_onnx(encoder) as backend:
        (mu, log_var), _ = encoder_reports(backend, replace(reference, mu=drifted), precision)
    assert not mu.passed
    assert log_var.passed
    expected = 1.1 * LIMITS[precision].max_spread
    assert metric(mu, "max error / spread over data") == pytest.approx(expected, rel=0.05)


def test_errors_are_in_the_units_they_claim(encoder: Path, reference: Reference) -> None:
    shift = 0.25
    moved = replace(reference, mu=reference.mu + np.float32(shift))
    with open_onnx(encoder) as backend:
        (mu, _), _ = encoder_reports(backend, moved, "fp32")
    assert metric(mu, "max error") == pytest.approx(shift, rel=1e-4)
    assert metric(mu, "RMS error") == pytest.approx(shift, rel=1e-4)
    relative = shift / reference.spread.mu
    assert metric(mu, "max error / spread over data") == pytest.approx(relative.max(), rel=1e-3)
    rms = np.sqrt(np.mean(relative**2))
    assert metric(mu, "RMS error / spread over data") == pytest.approx(rms, rel=1e-3)
    deviation = np.exp(reference.log_var / 2).min()
    found = metric(mu, "max error / posterior deviation")
    assert found == pytest.approx(shift / deviation, rel=1e-3)


def test_not_finite_outputs_are_counted_and_fail(
    graphs: dict[GraphName, bytes], reference: Reference, tmp_path: Path
) -> None:
    import onnx
    import onnx_ir as ir

    model = ir.from_proto(onnx.load_from_string(graphs["encoder"]))
    bias = model.graph.initializers["mu.bias"]
    values = bias.const_value.numpy().copy()
    values[1] = np.nan
    bias.const_value = ir.tensor(values, name="mu.bias")
    path = tmp_path / "nan.onnx"
    ir.save(model, path)
    with open_onnx(path) as backend:
        (mu, log_var), _ = encoder_reports(backend, reference, "fp16")
    assert metric(mu, "NaN or Inf values") == len(reference.images)
    assert not mu.passed
    assert log_var.passed
    gated = [m for m in mu.metrics if m.limit is not None]
    assert not any(m.passed for m in gated)


def test_decoder_is_held_to_its_psnr(
    graphs: dict[GraphName, bytes], reference: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(graphs["decoder"])
    noisy = reference.reconstruction.copy()
    noisy[0] += np.float32(1e-3)  # 60 dB: enough for FP16, too little for float32
    with open_onnx(path) as backend:
        (true,) = decoder_reports(backend, reference, "fp32", encoded=reference.mu)
        (strict,) = decoder_reports(
            backend, replace(reference, reconstruction=noisy), "fp32", encoded=reference.mu
        )
        (loose,) = decoder_reports(
            backend, replace(reference, reconstruction=noisy), "fp16", encoded=reference.mu
        )
    assert true.passed
    assert not strict.passed
    assert loose.passed
    assert metric(strict, "PSNR, worst image") == pytest.approx(60, abs=0.1)


def test_way_through_both_graphs_is_held_to_the_same_psnr(
    graphs: dict[GraphName, bytes], reference: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(graphs["decoder"])
    with open_onnx(path) as backend:
        (report,) = decoder_reports(backend, reference, "fp16", encoded=reference.mu[::-1].copy())
    failed = [m.name for m in report.metrics if not m.passed]
    assert failed == ["PSNR through both graphs"]


def test_collapsed_latent_does_not_divide_by_nothing() -> None:
    spread = floored_spread(np.array([1.0, 1.0, 0.0, 1e-9]))
    assert spread[0] == 1.0
    assert spread[2] == spread[3] == pytest.approx(0.01 * np.sqrt(0.5))
    assert (floored_spread(np.zeros(3)) > 0).all()


@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_neighbours_agree_with_themselves_and_under_rotation(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((n, d))
    assert neighbour_agreement(latents, latents) == 1.0
    turned = latents @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    assert neighbour_agreement(turned, latents) > 0.9


def test_unrelated_latents_share_few_neighbours() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 200, 16))
    assert neighbour_agreement(one, other) < 0.15


def test_psnr_and_cosine_by_hand() -> None:
    one = np.zeros((2, 1, 2, 2))
    other = one.copy()
    assert worst_psnr_db(one, other) == float("inf")
    other[1] = 0.1
    assert worst_psnr_db(one, other) == pytest.approx(20.0)
    assert worst_cosine(np.array([[1.0, 0], [1, 1]]), np.array([[1.0, 0], [1, 0]])) == (
        pytest.approx(np.sqrt(0.5))
    )


def test_table_shows_every_output_and_the_limit_it_was_held_to(
    encoder: Path, reference: Reference
) -> None:
    with open_onnx(encoder) as backend:
        good, _ = encoder_reports(backend, reference, "fp32")
        bad, _ = encoder_reports(backend, replace(reference, mu=reference.mu + 1), "fp32")
    for reports, verdict in ((good, "ok"), (bad, "FAILED")):
        text = io.StringIO()
        Console(file=text, width=80).print(verification_table(reports))
        printed = text.getvalue()
        assert verdict in printed
        assert "reported" in printed
        assert "≤ 0.001" in printed
        for name in ("mu", "log_var", "posterior deviation"):
            assert name in printed
        assert max(len(line) for line in printed.splitlines()) <= 80
