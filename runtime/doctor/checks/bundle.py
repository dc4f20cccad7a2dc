"""The doctor's check of the bundle: every hash, its encoder run once, its engines and the GPU."""

from __future__ import annotations

from pathlib import Path

from ...bundle.graph_key import GraphKey
from ...bundle.load import Bundle, load_bundle
from ...bundle.manifest import GraphEntry
from ...core.errors import (
    BundleError,
    MissingDependencyError,
    MotorVAEError,
    next_command,
    sentence_list,
)
from ...engines.gpu_info import Gpu, NoGpu, find_gpu
from ...engines.tensorrt.engine_manifest import engine_manifest_from_json
from ...engines.tensorrt.package import TENSORRT_PACKAGES, TensorRTName, import_tensorrt, title_of
from ..finding import Finding

_LATEST = Path("runs/latest")
_DEFAULT = Path("bundle")


def check_bundle(model: Path) -> tuple[Finding, ...]:
    """Read the bundle as a stream would, and look at each engine in it."""
    try:
        bundle = load_bundle(model)
    except BundleError as error:
        found = str(error) if model.exists() else f"no bundle at {model}"
        return (Finding("bundle", found, "FAILED", _export(model)),)
    entries = (*bundle.manifest.graphs, *bundle.manifest.files)
    graphs = sentence_list([entry.title for entry in bundle.manifest.graphs])
    megabytes = sum(entry.size_bytes for entry in entries) / 1e6
    size = f"{len(entries)} files, {megabytes:.1f} MB, no byte altered"
    whole = Finding("bundle", f"{model}: {graphs}; {size}")
    return (whole, *_encoder(bundle), *_engines(bundle, find_gpu()))


def _encoder(bundle: Bundle) -> tuple[Finding, ...]:
    """Encode a black image on the CPU."""
    try:
        import numpy as np  # noqa: PLC0415  # may be what is missing

        from ...engines.open import open_engine  # noqa: PLC0415  # with numpy

        side = bundle.spec.image_size
        with open_engine(bundle, GraphKey("encoder")) as backend:
            mu = backend.run(np.zeros((1, 1, side, side), np.float32))["mu"]
    except (MissingDependencyError, ModuleNotFoundError):
        return ()  # it has a row of its own
    except MotorVAEError as error:
        problem = str(error)
    else:
        if np.isfinite(mu).all():
            found = f"fp32 ran on the CPU: {side}x{side} to {mu.shape[1]} latents"
            return (Finding("encoder", found),)
        problem = "its latents of a black image are not finite numbers"
    return (Finding("encoder", problem, "FAILED", _export(bundle.folder)),)


def _engines(bundle: Bundle, gpu: Gpu | NoGpu) -> tuple[Finding, ...]:
    """Return for each engine whether it fits this machine, without loading it."""
    try:
        from ...engines.tensorrt.find import graphs_with_engine, precisions_with_engine  # noqa: PLC0415  # with numpy
    except ModuleNotFoundError:
        return ()
    found = tuple(
        _engine(bundle, package, entry, gpu)
        for package in TENSORRT_PACKAGES
        for precision in precisions_with_engine(bundle, "encoder", package)
        for entry in graphs_with_engine(bundle, GraphKey("encoder", precision), package)
    )
    if found:
        return found
    command = next_command("motorvae-export", "--model", bundle.folder, "--fp16")
    useful = command if isinstance(gpu, Gpu) else None
    return (Finding("engines", "none in this bundle; ONNX Runtime runs it", "optional", useful),)


def _engine(bundle: Bundle, name: TensorRTName, entry: GraphEntry, gpu: Gpu | NoGpu) -> Finding:
    from ...engines.tensorrt.find import check_engine  # noqa: PLC0415  # with numpy

    variant = "" if entry.variant == "full" else f" {entry.variant}"
    what = f"engine {entry.precision}{variant}"
    try:
        if isinstance(gpu, NoGpu):
            _, path = entry.key.engine_paths(bundle.folder, name)
            manifest = engine_manifest_from_json(path)
            capabilities = sentence_list(manifest.compute_capabilities)
            return Finding(
                what,
                f"{title_of(name)} {manifest.version}, for compute capability {capabilities}; "
                "no GPU here runs it",
                "optional",
            )
        package = import_tensorrt(name)
        if objection := package.objection_to(gpu):
            return Finding(what, objection, "optional")
        manifest, _ = check_engine(bundle, entry, package, gpu)
    except MotorVAEError as error:
        again = next_command("motorvae-export", "--model", bundle.folder, "--engine", name)
        precision = "" if entry.precision == "fp32" else f" --{entry.precision}"
        return Finding(what, str(error), "warn", f"{again}{precision}")
    verified = "verified" if manifest.verification.verified else "not verified"
    return Finding(what, f"{title_of(name)} {manifest.version} fits, {verified}")


def _export(model: Path) -> str:
    """Return the command that writes a bundle there, with the training that it may need first."""
    output = [] if model == _DEFAULT else ["--output", model]
    export = next_command("motorvae-export", "--fp16", *output)
    return export if _LATEST.exists() else f"motorvae-train && {export}"
