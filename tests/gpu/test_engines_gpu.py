"""Engines on a real GPU: nothing of this runs without one, and nothing else proves them."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from rich.console import Console

from motorvae.export.rebuild import rebuild_engines
from motorvae.export.tensorrt.add_engines import add_engines_to_bundle
from motorvae.export.tensorrt.build import EngineBuildRequest
from motorvae.export.verify.limits import LIMITS
from motorvae.export.verify.reference import Reference, reference_from_bundle
from motorvae.export.verify.reports import encoder_reports
from motorvae.runtime.bundle.graph_key import GraphKey, Part, Precision, Variant
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.errors import BackendError, EngineError, MissingDependencyError
from motorvae.runtime.engines.base import Arrays, Backend, Batch
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from motorvae.runtime.engines.open import EngineRequest, open_cuda, open_engine
from motorvae.runtime.engines.select import select_engine
from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile, EngineManifest
from motorvae.runtime.engines.tensorrt.find import (
    check_engine,
    graphs_for_engines,
    leanest_engine,
)
from motorvae.runtime.engines.tensorrt.package import (
    TENSORRT_PACKAGES,
    TensorRTName,
    TensorRTPackage,
    import_tensorrt,
)
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.sources.synthetic.vehicles import vehicle

from ..export.engine_graphs import add_form

pytestmark = pytest.mark.gpu

FRAMES = 1000
INT8_FORMS: tuple[tuple[Part, Variant], ...] = (
    ("encoder", "luma"),
    ("encoder", "mu"),
    ("decoder", "phases"),
)


@dataclass(frozen=True)
class Built:
    """A bundle with engines of one package and precision, built on this machine."""

    bundle: Bundle
    precision: Precision
    package: TensorRTPackage
    gpu: Gpu
    engine_manifests: tuple[EngineManifest, ...]

    def open(self, *, outputs: tuple[str, ...] = (), cuda_graph: bool = True) -> Backend:
        key = GraphKey("encoder", self.precision)
        entry = leanest_engine(self.bundle, key, self.package.name, outputs)
        request = EngineRequest(backend=self.package.name, cuda_graph=cuda_graph)
        return open_engine(self.bundle, entry.key, request)

    @property
    def leanest(self) -> GraphEntry:
        """The encoder that gives both outputs and does least."""
        return self.bundle.leanest(GraphKey("encoder", self.precision, target="tensorrt"))

    @property
    def path_of_leanest(self) -> Path:
        """Its engine."""
        return self.leanest.key.engine_paths(self.bundle.folder, self.package.name)[0]


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    found = find_gpu()
    if isinstance(found, NoGpu):
        pytest.skip(f"needs an NVIDIA GPU, and there is {found.reason}")
    return found


@pytest.fixture(scope="module")
def layer(gpu: Gpu) -> str:
    """The device layer's name; what runs an engine needs one."""
    try:
        with open_cuda() as cuda:
            return f"{cuda.name} on {gpu.name}"
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=TENSORRT_PACKAGES)
def package(request: pytest.FixtureRequest, gpu: Gpu) -> TensorRTPackage:
    name: TensorRTName = request.param
    try:
        found = import_tensorrt(name)
    except (BackendError, MissingDependencyError) as error:
        pytest.skip(str(error))
    if objection := found.objection_to(gpu):
        pytest.skip(objection)
    return found


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def built(
    request: pytest.FixtureRequest,
    gpu: Gpu,
    layer: str,
    package: TensorRTPackage,
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    """Engines by the real builder. Corrupt a copy, never this one."""
    assert layer
    source: Path = request.getfixturevalue("small_bundle")  # late: making it takes torch
    folder = tmp_path_factory.mktemp(f"{package.name}-{request.param}") / "bundle"
    shutil.copytree(source, folder)
    if request.param == "int8":
        for graph, variant in INT8_FORMS:
            add_form(folder, graph, "int8", variant)
    order = EngineBuildRequest(package, gpu, request.param, BatchProfile(min=1, opt=1, max=8))
    bundle = load_bundle(folder)
    images = reference_from_bundle(bundle).images
    engine_manifests = add_engines_to_bundle(
        bundle,
        order,
        Console(quiet=True),
        on_reports=lambda _: None,
        reference=told_by_onnx_runtime(bundle, request.param, images),
    )
    return Built(bundle, request.param, package, gpu, engine_manifests)


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Built:
    """The same engines in a bundle that may be changed."""
    shutil.copytree(built.bundle.folder, tmp_path / "bundle")
    return replace(built, bundle=load_bundle(tmp_path / "bundle"))


@pytest.fixture(scope="module")
def frames(built: Built) -> Reference:
    """What ONNX Runtime says on the CPU of a thousand vehicles."""
    side = built.bundle.spec.image_size
    images = np.stack([vehicle(2, index, side)[0] for index in range(FRAMES)])
    return told_by_onnx_runtime(built.bundle, built.precision, images)


def told_by_onnx_runtime(
    bundle: Bundle, precision: Precision, images: npt.NDArray[np.uint8]
) -> Reference:
    """What the float32 graphs give, or the INT8 ones, which so small a model does not survive.

    So an INT8 engine is held against its own graph.
    """
    held = "int8" if precision == "int8" else "fp32"
    encoder, decoder = (
        graphs_for_engines(bundle, GraphKey(graph, held))[-1]  # type: ignore[arg-type]
        for graph in ("encoder", "decoder")
    )
    with (
        open_engine(bundle, encoder.key) as encode,
        open_engine(bundle, decoder.key) as decode,
    ):
        luma = images[:, None]
        found = encode.run(luma if encode.input_dtype == np.uint8 else input_from_pixels(luma))
        reconstruction = decode.run(found["mu"])["reconstruction"]
    return replace(
        reference_from_bundle(bundle),
        name=f"ONNX Runtime {held} on the CPU",
        images=images,
        mu=found["mu"],
        log_var=found["log_var"],
        reconstruction=reconstruction,
    )


def one_by_one(backend: Backend, reference: Reference) -> npt.NDArray[np.float32]:
    images = inputs_of(backend, reference)
    return np.concatenate([backend.run(images[n : n + 1])["mu"] for n in range(len(images))])


def inputs_of(backend: Backend, reference: Reference) -> Batch:
    """The images as this backend takes them."""
    luma = reference.images[:, None]
    return luma if backend.input_dtype == np.uint8 else input_from_pixels(luma)


def test_all_engines_are_verified_and_what_their_label_says(built: Built) -> None:
    graphs = graphs_for_engines(built.bundle, GraphKey("encoder", built.precision))
    graphs += graphs_for_engines(built.bundle, GraphKey("decoder", built.precision))
    assert sorted(
        engine_manifest.onnx_sha256 for engine_manifest in built.engine_manifests
    ) == sorted(entry.sha256 for entry in graphs)
    for engine_manifest in built.engine_manifests:
        assert engine_manifest.precision == built.precision
        assert (engine_manifest.gpu, engine_manifest.cuda) == (built.gpu.name, built.gpu.cuda)
        assert built.gpu.compute_capability in engine_manifest.compute_capabilities
        assert engine_manifest.precision_report.problem_with(built.precision) is None
        if built.precision == "int8":
            assert engine_manifest.precision_report.share_of_multiplications("int8") >= 0.95
        else:
            assert engine_manifest.precision_report.outputs_from == "engine inspector"
            assert min(engine_manifest.precision_report.shares(built.precision)) >= 0.95
        assert engine_manifest.verification.verified is True
        assert engine_manifest.verification.reason is None
        (entry,) = (entry for entry in graphs if entry.sha256 == engine_manifest.onnx_sha256)
        outputs = [report.output for report in engine_manifest.verification.reports]
        assert outputs == [tensor.name for tensor in entry.outputs] * 2  # batch 1, and 8
        assert {report.variant for report in engine_manifest.verification.reports} == {
            entry.variant
        }
        assert all(report.passed for report in engine_manifest.verification.reports)
        assert engine_manifest.build_seconds > 0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.update(version="1.2.3"), "engine built for TensorRT.* 1.2.3 on compute"),
        (lambda p: p.update(compute_capabilities=["1.0"]), "on compute capability 1.0; this"),
        (lambda p: p.update(platform="plan9-mips"), r"\(plan9-mips\); this machine has"),
        (lambda p: p.update(onnx_sha256="0" * 64), "engine built from another encoder"),
    ],
)
def test_a_engine_manifest_from_elsewhere_is_refused(
    copy: Built, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = copy.path_of_leanest.with_suffix(".json")
    content = orjson.loads(path.read_bytes())
    edit(content)
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(EngineError, match=message) as refused:
        copy.open()
    assert str(refused.value).endswith("or add --rebuild")


def test_an_altered_engine_never_reaches_the_gpu(copy: Built) -> None:
    path = copy.path_of_leanest
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match="was altered after it was built"):
        copy.open()


def test_a_thousand_frames_agree_with_onnx_runtime(built: Built, frames: Reference) -> None:
    with built.open() as backend:
        reports, mu = encoder_reports(backend, frames, GraphKey("encoder", built.precision))
    assert mu.shape == frames.mu.shape
    assert [clause for report in reports for clause in report.failures] == []


def test_the_form_that_gives_mu_alone_gives_the_same_mu(built: Built, frames: Reference) -> None:
    """Within what the gate allows: other kernels may add in another order."""
    with built.open(outputs=("mu",)) as backend:
        assert backend.outputs == ("mu",)
        reports, _ = encoder_reports(backend, frames, GraphKey("encoder", built.precision))
    assert [clause for report in reports for clause in report.failures] == []


def test_a_timed_run_has_all_stages(built: Built, frames: Reference) -> None:
    with built.open(cuda_graph=False) as backend:
        backend.run(inputs_of(backend, frames)[:1])
        found = [backend.repeat_timed() for _ in range(5)][-1]  # type: ignore[attr-defined]  # the engine's own verb
    assert set(found) == {"device", "h2d", "compute", "d2h", "enqueue"}
    assert min(found.values()) > 0


def test_a_graph_gives_the_same_bits(built: Built, frames: Reference) -> None:
    with built.open(cuda_graph=False) as backend:
        plain = one_by_one(backend, frames)
        parts = dict(backend.repeat_timed())  # type: ignore[attr-defined]  # the engine's own verb
    with built.open(cuda_graph=True) as backend:
        recorded = one_by_one(backend, frames)
        whole = dict(backend.repeat_timed())  # type: ignore[attr-defined]  # as above
        notes = backend.notes
    np.testing.assert_array_equal(recorded, plain)
    assert notes == ()
    assert min(parts.pop("enqueue"), whole.pop("enqueue")) > 0
    assert set(parts) == {"device", "h2d", "compute", "d2h"}
    assert min(parts.values()) >= 0
    assert parts["device"] == pytest.approx(sum(parts.values()) - parts["device"], abs=0.01)
    # TensorRT-RTX records only its kernels, so that its copies stay apart.
    assert set(whole) == (set(parts) if built.package.is_rtx else {"device"})


def test_batches_of_any_size_give_what_single_images_give(built: Built, frames: Reference) -> None:
    limit = LIMITS[built.precision].max_spread * float(frames.spread.mu.mean())
    with built.open() as backend:
        single = one_by_one(backend, frames)[:19]
        for size in (1, 2, 8, 9, 19, 1):
            images = inputs_of(backend, frames)[:size]
            np.testing.assert_allclose(backend.run(images)["mu"], single[:size], atol=limit)


def test_another_thread_gets_the_same_latents(built: Built, frames: Reference) -> None:
    found: list[Arrays] = []
    with built.open() as backend:
        image = inputs_of(backend, frames)[:1]
        here = [backend.run(image) for _ in range(3)]
        thread = threading.Thread(target=lambda: found.extend(backend.run(image) for _ in here))
        thread.start()
        thread.join()
        again = backend.run(image)
    assert len(found) == 3
    for arrays in (*here, *found, again):
        np.testing.assert_array_equal(arrays["mu"], here[0]["mu"])


def test_an_engine_that_does_not_fit_is_built_again_when_asked(copy: Built) -> None:
    if copy.precision == "int8":
        pytest.skip("so small a model has no INT8 engine that passes the bundle's own gate")
    name = copy.package.name
    copy.path_of_leanest.write_bytes(b"not an engine")
    asked = EngineRequest(backend=name, precision=copy.precision, rebuild=True)
    chosen = select_engine(copy.bundle, "encoder", asked, rebuild_engines)
    with chosen.backend as backend:
        assert backend.name.startswith(copy.package.title)
        assert chosen.remarks == ""
    bundle = load_bundle(copy.bundle.folder)
    engine_manifest, _ = check_engine(bundle, copy.leanest, copy.package, copy.gpu)
    assert engine_manifest.verification.verified is True


def test_the_doctor_leaves_a_result_of_what_ran(
    gpu: Gpu, layer: str, package: TensorRTPackage, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from motorvae.benchmarks.doctor import main
    from motorvae.benchmarks.measure.result import load_result
    from motorvae.runtime.engines.tensorrt.package import title_of

    assert layer
    output = tmp_path / "doctor-gpu.json"
    model = str(request.getfixturevalue("small_bundle"))
    code = main(["gpu", "--model", model, "--output", str(output), "--frames", "30"])
    found = load_result(output)
    # The bundle has no INT8 graphs.
    engines = [row for row in found.cases if row.engine == title_of(package.name)]
    rows = [row for row in engines if row.precision != "int8"]
    assert [(row.how, row.not_measured) for row in rows if row.status != "measured"] == []
    assert [row.equals_graph_off for row in rows] == [None, True, None, True]
    assert found.gpu is not None
    assert (code, found.gpu.name) == (0, gpu.name)
