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

from motorvae.export.engine_bundle import EngineOrder, add_engines_to_bundle
from motorvae.export.reference import reference_from_bundle
from motorvae.export.verify import Reference, encoder_reports
from motorvae.runtime.backend import Arrays, Backend, open_backend
from motorvae.runtime.bundle import Bundle, Precision, load_bundle
from motorvae.runtime.choice import Wish, choose_backend
from motorvae.runtime.cuda import open_cuda
from motorvae.runtime.driver import Gpu, NoGpu, find_gpu
from motorvae.runtime.engines import check_engine, engine_paths, open_engine
from motorvae.runtime.errors import BackendError, EngineError, MissingDependencyError
from motorvae.runtime.flavours import FLAVOURS, Flavour, FlavourName, open_flavour
from motorvae.runtime.frames import input_from_luma
from motorvae.runtime.passport import BatchProfile, Passport
from motorvae.runtime.vehicles import vehicle

pytestmark = pytest.mark.gpu

FRAMES = 1000


@dataclass(frozen=True)
class Built:
    """A bundle with engines of one flavour and precision, built on this machine."""

    bundle: Bundle
    precision: Precision
    flavour: Flavour
    gpu: Gpu
    passports: tuple[Passport, ...]

    def open(self, *, cuda_graph: bool = True) -> Backend:
        backend, _ = open_engine(
            self.bundle, "encoder", self.precision, self.flavour, self.gpu, cuda_graph=cuda_graph
        )
        return backend


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


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest, gpu: Gpu) -> Flavour:
    name: FlavourName = request.param
    try:
        found = open_flavour(name)
    except (BackendError, MissingDependencyError) as error:
        pytest.skip(str(error))
    if objection := found.objection_to(gpu):
        pytest.skip(objection)
    return found


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def built(
    request: pytest.FixtureRequest,
    gpu: Gpu,
    layer: str,
    flavour: Flavour,
    tmp_path_factory: pytest.TempPathFactory,
) -> Built:
    """Engines by the real builder. Corrupt a copy, never this one."""
    assert layer
    source: Path = request.getfixturevalue("small_bundle")  # late: making it takes torch
    folder = tmp_path_factory.mktemp(f"{flavour.name}-{request.param}") / "bundle"
    shutil.copytree(source, folder)
    order = EngineOrder(flavour, gpu, request.param, BatchProfile(min=1, opt=1, max=8))
    passports = add_engines_to_bundle(
        load_bundle(folder), order, Console(quiet=True), on_reports=lambda _: None
    )
    return Built(load_bundle(folder), request.param, flavour, gpu, passports)


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Built:
    """The same engines in a bundle that may be changed."""
    shutil.copytree(built.bundle.folder, tmp_path / "bundle")
    return replace(built, bundle=load_bundle(tmp_path / "bundle"))


@pytest.fixture(scope="module")
def frames(request: pytest.FixtureRequest) -> Reference:
    """What ONNX Runtime says on the CPU, in float32, of a thousand vehicles."""
    bundle = load_bundle(request.getfixturevalue("small_bundle"))
    images = np.stack([vehicle(2, index, bundle.spec.image_size)[0] for index in range(FRAMES)])
    with open_backend(bundle, "encoder") as backend:
        found = backend.run(input_from_luma(images[:, None]))
    return replace(
        reference_from_bundle(bundle),
        name="ONNX Runtime float32 on the CPU",
        images=images,
        mu=found["mu"],
        log_var=found["log_var"],
    )


def one_by_one(backend: Backend, reference: Reference) -> npt.NDArray[np.float32]:
    images = input_from_luma(reference.images[:, None])
    return np.concatenate([backend.run(images[n : n + 1])["mu"] for n in range(len(images))])


def test_both_engines_are_verified_and_what_their_label_says(built: Built) -> None:
    assert [passport.graph for passport in built.passports] == ["encoder", "decoder"]
    for passport in built.passports:
        assert passport.precision == built.precision
        assert (passport.gpu, passport.cuda) == (built.gpu.name, built.gpu.cuda)
        assert built.gpu.compute_capability in passport.compute_capabilities
        assert passport.receipt.outputs_from == "engine inspector"
        assert min(passport.receipt.shares(built.precision)) >= 0.95
        assert passport.verification.verified is True
        assert passport.verification.reason is None
        outputs = [report.output for report in passport.verification.reports]
        assert outputs == (["mu", "log_var"] if passport.graph == "encoder" else ["reconstruction"])
        assert all(report.passed for report in passport.verification.reports)
        assert passport.build_seconds > 0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda p: p.update(version="1.2.3"), "engine built for TensorRT.* 1.2.3 on compute"),
        (lambda p: p.update(compute_capabilities=["1.0"]), "on compute capability 1.0; this"),
        (lambda p: p.update(platform="plan9-mips"), r"\(plan9-mips\); this machine has"),
        (lambda p: p.update(onnx_sha256="0" * 64), "engine built from another encoder"),
    ],
)
def test_a_passport_from_elsewhere_is_refused(
    copy: Built, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    _, path = engine_paths(copy.bundle.folder, "encoder", copy.precision, copy.flavour.name)
    content = orjson.loads(path.read_bytes())
    edit(content)
    path.write_bytes(orjson.dumps(content))
    with pytest.raises(EngineError, match=message) as refused:
        copy.open()
    assert str(refused.value).endswith("or add --rebuild")


def test_an_altered_engine_never_reaches_the_gpu(copy: Built) -> None:
    path, _ = engine_paths(copy.bundle.folder, "encoder", copy.precision, copy.flavour.name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match="was altered after it was built"):
        copy.open()


def test_a_thousand_frames_agree_with_onnx_runtime(built: Built, frames: Reference) -> None:
    with built.open() as backend:
        reports, mu = encoder_reports(backend, frames, built.precision)
    assert mu.shape == frames.mu.shape
    assert [clause for report in reports for clause in report.failures] == []


def test_a_graph_gives_the_same_bits(built: Built, frames: Reference) -> None:
    with built.open(cuda_graph=False) as backend:
        plain = one_by_one(backend, frames)
        parts = backend.repeat_timed()  # type: ignore[attr-defined]  # the engine's own verb
    with built.open(cuda_graph=True) as backend:
        recorded = one_by_one(backend, frames)
        whole = backend.repeat_timed()  # type: ignore[attr-defined]  # as above
        notes = backend.notes
    np.testing.assert_array_equal(recorded, plain)
    assert notes == ()
    assert set(parts) == {"device", "h2d", "compute", "d2h"}
    assert min(parts.values()) >= 0
    assert parts["device"] == pytest.approx(sum(parts.values()) - parts["device"], abs=0.01)
    # TensorRT-RTX records only its kernels, so that its copies stay apart.
    assert set(whole) == (set(parts) if built.flavour.is_rtx else {"device"})


def test_batches_of_any_size_give_what_single_images_give(built: Built, frames: Reference) -> None:
    limit = {"fp32": 1e-3, "fp16": 5e-2}[built.precision] * float(frames.spread.mu.mean())
    with built.open() as backend:
        single = one_by_one(backend, frames)[:19]
        for size in (1, 2, 8, 9, 19, 1):
            images = input_from_luma(frames.images[:size, None])
            np.testing.assert_allclose(backend.run(images)["mu"], single[:size], atol=limit)


def test_another_thread_gets_the_same_latents(built: Built, frames: Reference) -> None:
    image = input_from_luma(frames.images[:1, None])
    found: list[Arrays] = []
    with built.open() as backend:
        here = [backend.run(image) for _ in range(3)]
        thread = threading.Thread(target=lambda: found.extend(backend.run(image) for _ in here))
        thread.start()
        thread.join()
        again = backend.run(image)
    assert len(found) == 3
    for arrays in (*here, *found, again):
        np.testing.assert_array_equal(arrays["mu"], here[0]["mu"])


def test_an_engine_that_does_not_fit_is_built_again_when_asked(copy: Built) -> None:
    name = copy.flavour.name
    path, _ = engine_paths(copy.bundle.folder, "encoder", copy.precision, name)
    path.write_bytes(b"not an engine")
    wish = Wish(backend=name, precision=copy.precision, rebuild=True)
    chosen = choose_backend(copy.bundle, "encoder", wish)
    with chosen.backend as backend:
        assert backend.name.startswith(copy.flavour.title)
        assert chosen.remarks == ""
    bundle = load_bundle(copy.bundle.folder)
    passport, _ = check_engine(bundle, "encoder", copy.precision, copy.flavour, copy.gpu)
    assert passport.verification.verified is True


def test_the_doctor_leaves_a_receipt_of_what_ran(
    gpu: Gpu, layer: str, flavour: Flavour, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from motorvae.benchmarks.doctor import main
    from motorvae.benchmarks.doctor_receipt import load_receipt
    from motorvae.runtime.flavours import title_of

    assert layer
    output = tmp_path / "doctor-gpu.json"
    model = str(request.getfixturevalue("small_bundle"))
    code = main(["gpu", "--model", model, "--output", str(output), "--frames", "30"])
    found = load_receipt(output)
    rows = [row for row in found.rows if row.engine == title_of(flavour.name)]
    assert [(row.title, row.reason) for row in rows if row.status != "measured"] == []
    assert [row.equals_graph_off for row in rows] == [None, True, None, True]
    assert (code, found.gpu.name) == (0, gpu.name)
