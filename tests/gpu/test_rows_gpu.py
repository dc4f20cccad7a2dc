"""ONNX Runtime's and torch's encoders on a GPU that may have no TensorRT; the same checks on a CPU.

The rows of the CPU show that the checks can pass and fail; they prove nothing of a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from motorvae.benchmarks.cases.gpu import OneByOne, measure, planned_cases
from motorvae.export.verify.limits import LIMITS
from motorvae.export.verify.reference import Reference, reference_from_bundle
from motorvae.export.verify.reports import decoder_report, encoder_reports
from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.lifecycle import Closing
from motorvae.runtime.engines.base import Arrays, Backend, Batch
from motorvae.runtime.engines.gpu_info import NoGpu, find_gpu
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.sources.synthetic.vehicles import vehicle

FRAMES = 200
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
FORMS: tuple[tuple[Part, tuple[str, ...]], ...] = (
    ("encoder", ("mu", "log_var")),
    ("encoder", ("mu",)),
    ("decoder", ("reconstruction",)),
)
"""What a stream asks for: with `--ood both`, with `mu` or `none`, with `--reconstruct`."""


def skip_without_gpu() -> None:
    found = find_gpu()
    if isinstance(found, NoGpu):
        pytest.skip(f"needs an NVIDIA GPU, and there is {found.reason}")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("cpu", id="onnx-cpu"),
        pytest.param("cuda", id="onnx-cuda", marks=pytest.mark.gpu),
    ],
)
def provider(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda":
        skip_without_gpu()
        import onnxruntime as ort

        if "CUDAExecutionProvider" not in ort.get_available_providers():
            pytest.skip("this ONNX Runtime has no CUDA provider: pip install 'motorvae[gpu]'")
    return name


@dataclass(frozen=True)
class Opened:
    """A bundle, and what its float32 graphs give in ONNX Runtime on the CPU for vehicles."""

    bundle: Bundle
    provider: str
    reference: Reference

    def entry(self, graph: Part, precision: Precision, outputs: tuple[str, ...]) -> GraphEntry:
        key = GraphKey(graph, precision, target="onnx")
        return self.bundle.leanest(key, outputs, on_cpu=self.provider == "cpu")

    def open(self, entry: GraphEntry) -> Backend:
        return open_engine(self.bundle, entry.key, EngineRequest(provider=self.provider))


@pytest.fixture(scope="module")
def opened(small_bundle: Path, provider: str) -> Opened:
    bundle = load_bundle(small_bundle)
    return Opened(bundle, provider, told_by_the_cpu(bundle))


def told_by_the_cpu(bundle: Bundle) -> Reference:
    side = bundle.spec.image_size
    images = np.stack([vehicle(2, index, side)[0] for index in range(FRAMES)])
    with (
        open_engine(bundle, GraphKey("encoder")) as encode,
        open_engine(bundle, GraphKey("decoder")) as decode,
    ):
        found = encode.run(input_from_pixels(images[:, None]))
        image = decode.run(found["mu"])["reconstruction"]
    return replace(
        reference_from_bundle(bundle),
        name="ONNX Runtime fp32 on the CPU",
        images=images,
        mu=found["mu"],
        log_var=found["log_var"],
        reconstruction=image,
    )


def inputs_of(backend: Backend, reference: Reference) -> Batch:
    luma = reference.images[:, None]
    return luma if backend.input_dtype == np.uint8 else input_from_pixels(luma)


def failures_of(backend: Backend, reference: Reference, entry: GraphEntry) -> list[str]:
    """Return what is past the gate, one image at a time as in a stream."""
    if entry.graph == "encoder":
        reports, _ = encoder_reports(backend, reference, entry.key, sizes=(1,))
    else:
        encoded = reference.mu
        report = decoder_report(backend, reference, entry.key, encoded=encoded, sizes=(1,))
        reports = (report,)
    return [clause for report in reports for clause in report.failures]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("graph", "outputs"), FORMS)
def test_the_form_that_a_stream_takes_is_past_the_gate(
    opened: Opened, graph: Part, outputs: tuple[str, ...], precision: Precision
) -> None:
    entry = opened.entry(graph, precision, outputs)
    with opened.open(entry) as backend:
        assert backend.outputs == tuple(tensor.name for tensor in entry.outputs)
        assert set(outputs) <= set(backend.outputs)
        assert failures_of(backend, opened.reference, entry) == []


class Off(OneByOne):
    """An engine whose outputs are wrong by a tenth."""

    def run(self, batch: Batch) -> Arrays:
        return {name: 1.1 * values for name, values in super().run(batch).items()}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("graph", "outputs"), FORMS)
def test_a_form_that_is_off_is_not(
    opened: Opened, graph: Part, outputs: tuple[str, ...], precision: Precision
) -> None:
    entry = opened.entry(graph, precision, outputs)
    with opened.open(entry) as backend:
        assert failures_of(Off(backend), opened.reference, entry) != []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batches_of_any_size_give_what_single_images_give(
    opened: Opened, precision: Precision
) -> None:
    limit = LIMITS[precision].max_spread * float(opened.reference.spread.mu.mean())
    with opened.open(opened.entry("encoder", precision, ("mu",))) as backend:
        images = inputs_of(backend, opened.reference)
        single = np.concatenate([backend.run(images[n : n + 1])["mu"] for n in range(19)])
        for size in (1, 2, 8, 9, 19, 1):
            found = backend.run(images[:size])["mu"]
            np.testing.assert_allclose(found, single[:size], atol=limit)


def test_another_thread_gets_the_same_latents(opened: Opened) -> None:
    found: list[npt.NDArray[np.float32]] = []
    with opened.open(opened.entry("encoder", "fp32", ("mu",))) as backend:
        image = inputs_of(backend, opened.reference)[:1]
        here = backend.run(image)["mu"]
        thread = threading.Thread(target=lambda: found.append(backend.run(image)["mu"]))
        thread.start()
        thread.join()
    (there,) = found
    np.testing.assert_array_equal(there, here)


@pytest.mark.gpu
def test_the_doctor_measures_onnx_runtime_and_torch(
    trained: tuple[Path, Bundle], tmp_path: Path
) -> None:
    skip_without_gpu()
    from motorvae.benchmarks.doctor import main
    from motorvae.benchmarks.measure.result import load_result

    run, bundle = trained
    output = tmp_path / "doctor-gpu.json"
    args = ["--model", str(bundle.folder), "--checkpoint", str(run), "--output", str(output)]
    main(["gpu", *args, "--frames", "30"])
    rows = load_result(output).cases
    drifted = [(row.how, row.not_measured) for row in rows if row.status == "drifted"]
    assert drifted == []
    ran = [row for row in rows if row.status == "measured"]
    if not ran:
        pytest.skip("; ".join(dict.fromkeys(row.not_measured or "" for row in rows)))
    assert {row.engine for row in ran} & {"ONNX Runtime CUDA", "torch CUDA"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    """A training run, and a bundle of its weights: float32, without a gate, as it learned little.

    The gate of the export is not what is tested here.
    """
    from motorvae.export.bundle import write_bundle
    from motorvae.export.onnx_export import onnx_from_model
    from motorvae.export.verify.reference import Spread
    from motorvae.export.verify.torch_reference import reference_from_model
    from motorvae.runtime.bundle.graph_key import PARTS
    from motorvae.runtime.core.atomic_files import sha256_of
    from motorvae.training.checkpoint import WEIGHTS_NAME, model_from_checkpoint
    from motorvae.training.options import TrainOptions
    from motorvae.training.train import train

    folder = tmp_path_factory.mktemp("trained")
    run = train(
        TrainOptions(
            output=folder / "runs",
            name="small",
            image_size=32,
            channels=(4, 8, 8, 16, 16),
            latent_size=8,
            batch_size=8,
            epochs=(1, 1),
            vehicles_count=48,
            precision="32-true",
            accelerator="cpu",
            devices="1",
        )
    ).folder
    model, spec = model_from_checkpoint(run)[0], model_from_checkpoint(run)[0].spec
    images = np.stack([vehicle(1, index, spec.image_size)[0] for index in range(24)])
    ones = np.ones(spec.latent_size)
    reference = reference_from_model(model, images, Spread(mu=ones, log_var=ones))
    write_bundle(
        folder / "bundle",
        graphs={graph: onnx_from_model(model, spec, graph) for graph in PARTS},
        spec=spec,
        weights_sha256=sha256_of(run / WEIGHTS_NAME),
        statistics=run / "latents.npz",
        reference=reference,
        precisions=[],
        on_reports=lambda *_: None,
    )
    return run, load_bundle(folder / "bundle")


class TorchOnCpu(Closing):
    """The same weights in torch's eager float32, with the verbs of a backend."""

    input_dtype: np.dtype[Any] = np.dtype(np.float32)
    outputs: tuple[str, ...] = ("mu", "log_var")
    name, notes, threads = "torch on the CPU", (), 1

    def __init__(self, run: Path) -> None:
        from motorvae.training.checkpoint import model_from_checkpoint

        self._encoder = model_from_checkpoint(run)[0].encoder.eval()

    def run(self, batch: Batch) -> Arrays:
        import torch

        with torch.inference_mode():
            mu, log_var = self._encoder(torch.from_numpy(batch))
        return {"mu": mu.numpy(), "log_var": log_var.numpy()}

    def check_tensors(self, *_: object) -> None:
        """Nothing to check."""

    def close(self) -> None:
        """Nothing to close."""


def torch_on_the_gpu(run: Path, bundle: Bundle) -> tuple[Backend, Any]:
    skip_without_gpu()
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no GPU")
    from motorvae.benchmarks.under_test.torch_models import TorchEncoder

    backend = TorchEncoder(run, bundle)
    return backend, backend.repeat_timed


@pytest.mark.parametrize(
    "open_torch",
    [
        pytest.param(lambda run, _bundle: (TorchOnCpu(run), None), id="torch-cpu"),
        pytest.param(torch_on_the_gpu, id="torch-cuda", marks=pytest.mark.gpu),
    ],
)
def test_torchs_row_is_past_the_gate_and_another_models_is_not(
    trained: tuple[Path, Bundle],
    open_torch: Callable[[Path, Bundle], tuple[Backend, Callable[[], Mapping[str, float]] | None]],
) -> None:
    run, bundle = trained
    backend, repeat = open_torch(run, bundle)
    reference = reference_from_bundle(bundle)
    (row,) = planned_cases()[-1]
    with backend:
        found, mu = measure(row, backend, reference, frames=30, repeat=repeat)
        others = replace(reference, mu=reference.mu + 1)
        drifted, _ = measure(row, backend, others, frames=30, repeat=repeat)
    assert (found.status, found.not_measured) == ("measured", None)
    assert len(mu) == 30
    assert drifted.status == "drifted"
