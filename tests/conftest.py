"""A real bundle of a small model, for every test that runs one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.spec import ModelSpec

SMALL = ModelSpec(image_size=32, channels=(4, 8, 8, 16, 16), latent_size=8)


@pytest.fixture(autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """Each test, and what it starts, hears signals as in a terminal; afterwards all is as before.

    A process that a script starts in the background ignores SIGINT, and hands that on.
    """
    heard = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    earlier = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in earlier.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _keys_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines are tagged with a key of the tests' own, and the user's is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Which graphs were opened is remembered for one session: each is tried once at most.

    Those of `small_bundle` never are, as the export that writes it remembers them. The caches of
    other programs, such as the list of fonts, stay in use.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    folder, users = tmp_path_factory.mktemp("cache"), Path(given or Path.home() / ".cache")
    for other in users.iterdir() if users.is_dir() else ():
        if other.name != "motorvae":
            (folder / other.name).symlink_to(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield


@pytest.fixture(scope="session")
def small_spec() -> ModelSpec:
    return SMALL


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle written by the real export, float32 and FP16. Corrupt a copy, never this one."""
    return _bundle(tmp_path_factory.mktemp("small"), SMALL, ["fp16"], image_count=24)


@pytest.fixture(scope="session")
def external_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `small_bundle`, with heads so large that weights lie in `weights.bin`."""
    spec = ModelSpec(image_size=64, channels=(8, 16, 32), latent_size=32)
    return _bundle(tmp_path_factory.mktemp("external"), spec, ["fp16"], image_count=48)


@pytest.fixture(scope="session")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `small_bundle`, float32 and INT8: untrained weights pass that gate in few layers only."""
    spec = ModelSpec(image_size=32, channels=(8, 16), latent_size=8)
    return _bundle(tmp_path_factory.mktemp("int8"), spec, ["int8"], image_count=48)


def _bundle(folder: Path, spec: ModelSpec, precisions: list[Any], *, image_count: int) -> Path:
    from dataclasses import replace

    import torch
    from torch import nn

    from motorvae.export.bundle import write_bundle
    from motorvae.export.onnx_export import onnx_from_model
    from motorvae.export.verify.reference import Spread
    from motorvae.export.verify.torch_reference import reference_from_model
    from motorvae.runtime.bundle.graph_key import PARTS
    from motorvae.runtime.sources.synthetic.vehicles import vehicle
    from motorvae.training.dataset import DataSet
    from motorvae.training.latent_statistics import latent_statistics
    from motorvae.training.model import MotorVAE, decoding_of, encoding_of

    images = np.stack([vehicle(1, index, spec.image_size)[0] for index in range(image_count)])
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    model = MotorVAE(spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics become those of the one pass below
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.2)
    with torch.no_grad():
        model.train()(torch.from_numpy(images[:, None] / np.float32(255)))
    model.eval()
    torch.random.set_rng_state(state)

    ones = np.ones(spec.latent_size)
    first = reference_from_model(model, images, Spread(mu=ones, log_var=ones))
    mu, log_var = (values.astype(np.float64).std(axis=0) for values in (first.mu, first.log_var))
    statistics = folder / "latents.npz"
    rows = np.arange(len(images))
    # The same images set the statistics: so few others would make it a matter of luck.
    data = DataSet(images, [str(row) for row in rows], train=rows, held_out=rows, skipped=0)
    np.savez(statistics, **latent_statistics(data, spec, encoding_of(model), decoding_of(model)))
    write_bundle(
        folder / "bundle",
        graphs={graph: onnx_from_model(model, spec, graph) for graph in PARTS},
        spec=spec,
        weights_sha256="ab" * 32,
        statistics=statistics,
        reference=replace(first, spread=Spread(mu=mu, log_var=log_var)),
        precisions=precisions,
        on_reports=lambda *_: None,
    )
    return folder / "bundle"


@pytest.fixture(scope="session")
def rtx_bundle(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with FP16 engines by the real TensorRT-RTX builder. Corrupt a copy, never this one."""
    from rich.console import Console

    from motorvae.export.tensorrt.add_engines import add_engines_to_bundle
    from motorvae.export.tensorrt.build import EngineBuildRequest
    from motorvae.runtime.bundle.load import load_bundle
    from motorvae.runtime.engines.gpu_info import NoGpu
    from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile
    from motorvae.runtime.engines.tensorrt.package import import_tensorrt

    folder = tmp_path_factory.mktemp("rtx") / "bundle"
    shutil.copytree(small_bundle, folder)
    request = EngineBuildRequest(
        import_tensorrt("tensorrt-rtx"), NoGpu("no GPU here"), "fp16", BatchProfile()
    )
    add_engines_to_bundle(
        load_bundle(folder), request, Console(quiet=True), on_reports=lambda _: None
    )
    return folder


@pytest.fixture
def bundle_copy(small_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that may be corrupted."""
    copy = tmp_path / "bundle"
    shutil.copytree(small_bundle, copy)
    return copy


@pytest.fixture
def change_manifest() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """Change a bundle's manifest by a function of its JSON."""

    def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
        path = folder / "manifest.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        edit(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return change
