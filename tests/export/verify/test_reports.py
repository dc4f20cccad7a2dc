from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from rich.console import Console

from motorvae.export.tables import verification_table
from motorvae.export.transforms.io_variants import luma_from_float, mu_from_encoder
from motorvae.export.verify.batches import BATCH_SIZES, run_in_batches
from motorvae.export.verify.limits import LIMITS
from motorvae.export.verify.reference import Reference, Spread
from motorvae.export.verify.reports import advice_on, decoder_report, encoder_reports
from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision
from motorvae.runtime.bundle.manifest import GraphReport
from motorvae.runtime.engines.open import open_file
from motorvae.runtime.pixels.convert import input_from_pixels

ENCODER, DECODER = GraphKey("encoder"), GraphKey("decoder")


def metric(report: GraphReport, name: str) -> float:
    return next(m.value for m in report.metrics if m.name == name)


@pytest.fixture
def encoder(graphs: dict[Part, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(graphs["encoder"])
    return path


def test_true_graph_passes_and_every_figure_is_there(encoder: Path, reference: Reference) -> None:
    with open_file(encoder) as backend:
        (mu, log_var), _ = encoder_reports(backend, reference, ENCODER)
    assert mu.passed
    assert log_var.passed
    assert mu.images == len(reference.images)
    assert mu.engine.startswith("ONNX Runtime")
    assert [m.name for m in mu.metrics if m.limit is not None] == [
        "NaN or Inf values",
        "max error / spread over data",
        "RMS error / spread over data",
        "worst probe image, RMS error / distance from the mean",
        "median probe image, RMS error / distance from the mean",
    ]
    assert [m.name for m in log_var.metrics if m.limit is not None] == [
        "NaN or Inf values",
        "max error of deviation, RMS of an image",
        "RMS error of deviation",
        "worst probe image, RMS error of deviation / distance from the mean",
        "median probe image, RMS error of deviation / distance from the mean",
    ]
    assert metric(mu, "cosine, worst image") == pytest.approx(1, abs=1e-6)
    assert metric(mu, "agreement of the 10 nearest neighbours") > 0.99


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_drifted_latent_of_one_image_fails_the_gate(
    encoder: Path, reference: Reference, precision: str
) -> None:
    drifted = reference.mu.copy()
    drifted[3, 2] += 1.1 * LIMITS[precision].max_spread * reference.spread.mu[2]
    with open_file(encoder) as backend:
        (mu, log_var), _ = encoder_reports(
            backend, replace(reference, mu=drifted), GraphKey("encoder", precision)
        )
    assert not mu.passed
    assert log_var.passed
    expected = 1.1 * LIMITS[precision].max_spread
    assert metric(mu, "max error / spread over data") == pytest.approx(expected, rel=0.05)


def test_errors_are_in_the_units_they_claim(encoder: Path, reference: Reference) -> None:
    shift = 0.25
    moved = replace(reference, mu=reference.mu + np.float32(shift))
    with open_file(encoder) as backend:
        (mu, _), _ = encoder_reports(backend, moved, ENCODER)
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
    graphs: dict[Part, bytes], reference: Reference, tmp_path: Path
) -> None:
    model = ir.from_proto(onnx.load_from_string(graphs["encoder"]))
    bias = model.graph.initializers["mu.bias"]
    values = bias.const_value.numpy().copy()
    values[1] = np.nan
    bias.const_value = ir.tensor(values, name="mu.bias")
    path = tmp_path / "nan.onnx"
    ir.save(model, path)
    with open_file(path) as backend:
        (mu, log_var), _ = encoder_reports(backend, reference, GraphKey("encoder", "fp16"))
    assert metric(mu, "NaN or Inf values") == len(reference.images)
    assert not mu.passed
    assert log_var.passed
    gated = [m for m in mu.metrics if m.limit is not None]
    assert not any(m.passed for m in gated)


def test_decoder_is_held_to_its_psnr(
    graphs: dict[Part, bytes], reference: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(graphs["decoder"])
    noisy = reference.reconstruction.copy()
    noisy[0] += np.float32(1e-3)  # 60 dB: enough for FP16, too little for float32
    with open_file(path) as backend:
        true = decoder_report(backend, reference, DECODER, encoded=reference.mu)
        strict = decoder_report(
            backend,
            replace(reference, reconstruction=noisy),
            DECODER,
            encoded=reference.mu,
        )
        loose = decoder_report(
            backend,
            replace(reference, reconstruction=noisy),
            GraphKey("decoder", "fp16"),
            encoded=reference.mu,
        )
    assert true.passed
    assert not strict.passed
    assert loose.passed
    assert metric(strict, "PSNR, worst image") == pytest.approx(60, abs=0.1)


class OnDemand:
    """Reconstructions that are there only while they are looked at."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.most = 0

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(self._images[rows]))
        return self._images[rows]


def test_no_decoder_report_asks_for_more_than_a_batch_of_reconstructions(
    graphs: dict[Part, bytes], reference: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(graphs["decoder"])
    # Enough latents for a run at each batch size.
    reference = reference.rows(np.arange(sum(BATCH_SIZES)) % len(reference.images))
    lazy = OnDemand(np.asarray(reference.reconstruction))
    with open_file(path) as backend:
        whole = decoder_report(backend, reference, DECODER, encoded=reference.mu)
        parts = decoder_report(
            backend,
            replace(reference, reconstruction=lazy),
            DECODER,
            encoded=reference.mu,
        )
    assert parts == whole
    assert lazy.most == max(BATCH_SIZES)


def test_way_through_both_graphs_is_held_to_the_same_psnr(
    graphs: dict[Part, bytes], reference: Reference, tmp_path: Path
) -> None:
    path = tmp_path / "decoder.onnx"
    path.write_bytes(graphs["decoder"])
    with open_file(path) as backend:
        report = decoder_report(
            backend, reference, GraphKey("decoder", "fp16"), encoded=reference.mu[::-1].copy()
        )
    failed = [m.name for m in report.metrics if not m.passed]
    assert failed == ["PSNR through both graphs"]


def test_encoder_of_luma_and_mu_alone_is_held_to_mu(
    graphs: dict[Part, bytes], reference: Reference, tmp_path: Path
) -> None:
    model = ir.from_proto(onnx.load_from_string(graphs["encoder"]))
    luma_from_float(model)
    mu_from_encoder(model)
    ir.save(model, tmp_path / "mu.onnx")
    with open_file(tmp_path / "mu.onnx") as backend:
        good, mu = encoder_reports(backend, reference, ENCODER)
        bad, _ = encoder_reports(backend, replace(reference, mu=reference.mu[::-1]), ENCODER)
    assert [report.output for report in good] == ["mu"]
    np.testing.assert_allclose(mu, reference.mu, atol=1e-4)
    assert good[0].passed
    assert not bad[0].passed


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_log_var_is_held_to_the_deviation_it_stands_for(
    encoder: Path, reference: Reference, precision: Precision
) -> None:
    limit = LIMITS[precision].max_deviation
    assert limit is not None
    verdicts = []
    for factor in (0.9, 1.1):
        wrong = reference.log_var.copy()
        wrong[3] -= 2 * np.log1p(factor * limit)
        with open_file(encoder) as backend:
            (_, log_var), _ = encoder_reports(
                backend, replace(reference, log_var=wrong), GraphKey("encoder", precision)
            )
        assert metric(log_var, "max error of deviation, RMS of an image") == pytest.approx(
            factor * limit, rel=0.01
        )
        verdicts.append(log_var.passed)
        assert not any(m.limit for m in log_var.metrics if "spread" in m.name)
    assert verdicts == [True, False]


def test_deviation_next_to_nothing_may_be_any_such(encoder: Path, reference: Reference) -> None:
    """Beside a spread of 1, a deviation of 3e-9 or of 5e-9 is none; one of 0.3 is not."""
    with open_file(encoder) as backend:
        found = run_in_batches(backend, input_from_pixels(reference.images[:, None]))["log_var"]
    verdicts = []
    for level in (-39.0, 2 * np.log(0.3 * reference.scale[2])):
        shifted = WithLogVar(found, level)
        true = reference.log_var.copy()
        true[:, 2] = level - 1  # off by 65 %
        judged = replace(reference, log_var=true, probes=None)
        (_, log_var), _ = encoder_reports(
            shifted, judged, GraphKey("encoder", "int8"), sizes=(len(true),)
        )
        verdicts.append(log_var.passed)
    assert verdicts == [True, False]


class WithLogVar:
    """An encoder whose unit 2 has one log_var for all images."""

    name, outputs, input_dtype = "by hand", ("mu", "log_var"), np.dtype(np.float32)

    def __init__(self, log_var: np.ndarray, level: float) -> None:
        self._log_var = log_var.copy()
        self._log_var[:, 2] = level

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        assert len(batch) == len(self._log_var)
        return {"mu": np.zeros_like(self._log_var), "log_var": self._log_var}


def test_int8_latents_that_lose_their_neighbours_fail(encoder: Path, reference: Reference) -> None:
    """A drift within the limits of every latent that still makes others the nearest."""
    many = replace(reference, spread=Spread(reference.spread.mu * 1e3, reference.spread.log_var))
    moved = np.random.default_rng(0).permutation(reference.mu)
    with open_file(encoder) as backend:
        (mu, _), _ = encoder_reports(backend, replace(many, mu=moved), GraphKey("encoder", "int8"))
    assert [m.name for m in mu.metrics if not m.passed] == [
        "agreement of the 10 nearest neighbours"
    ]


def test_table_shows_each_graph_s_worst_figures_and_what_they_are_held_to(
    encoder: Path, reference: Reference
) -> None:
    with open_file(encoder) as backend:
        good, _ = encoder_reports(backend, reference, ENCODER)
        bad, _ = encoder_reports(backend, replace(reference, mu=reference.mu + 1), ENCODER)
    for reports, verdict in ((good, "ok"), (bad, "FAILED")):
        text = io.StringIO()
        Console(file=text, width=80).print(verification_table(reports))
        lines = text.getvalue().splitlines()
        (held_to,) = (line for line in lines if line.startswith(" fp32, held to"))
        assert f"≤ {LIMITS['fp32'].max_spread:g} " in held_to
        (row,) = (line for line in lines if line.startswith(" encoder fp32"))
        assert row.split()[-1] == verdict
        worst = max(metric(report, "max error / spread over data") for report in reports)
        assert f"{worst:.2g}" in row
        assert max(map(len, lines)) <= 80


def failed_report(precision: Precision) -> GraphReport:
    return GraphReport(
        graph="encoder",
        precision=precision,
        output="mu",
        engine="any",
        reference="any",
        images=1,
        metrics=(),
    )


def test_equal_images_need_unlike_ones(reference: Reference) -> None:
    equal = replace(reference, images=np.repeat(reference.images[:1], 24, axis=0))
    found = advice_on([failed_report("fp16")], equal)
    assert found.startswith("all 24 held-out images are equal or nearly so: train on more images")
    assert found.endswith("or leave out --fp16")
    one = replace(reference, images=reference.images[:1])
    assert advice_on([failed_report("fp32")], one).startswith("there is one held-out image")


def test_collapsed_model_needs_another_beta(reference: Reference) -> None:
    nothing = replace(reference.spread, mu=np.full(8, 1e-4))
    found = advice_on([failed_report("int8")], replace(reference, spread=nothing))
    assert found.startswith("none of the 8 latent units carries information")
    assert "smaller beta in --betas" in found


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_young_model_needs_more_steps(reference: Reference, precision: Precision) -> None:
    found = advice_on([failed_report(precision)], reference)
    assert found == f"train for more steps, or leave out --{precision}"


def test_float32_that_fails_on_a_sound_model_is_no_matter_of_training(reference: Reference) -> None:
    assert "export again" in advice_on([failed_report("fp32"), failed_report("fp16")], reference)
    alike = replace(reference, mu=reference.mu + np.float32(1e5))
    assert advice_on([failed_report("fp32")], alike) == "train for more steps"
