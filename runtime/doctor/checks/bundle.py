"""The doctor on the bundle: every hash, its encoder run once, its engines held against the GPU."""

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
        found = " ".join(str(error).split())
        if not model.exists():
            found = f"no bundle at {model}"
        return (Finding(what="bundle", found=found, verdict="FAILED", next_command=_export(model)),)
    entries = (*bundle.manifest.graphs, *bundle.manifest.files)
    graphs = [entry.title for entry in bundle.manifest.graphs]
    whole = Finding(
        what="bundle",
        found=f"{model}: {sentence_list(graphs)}; {len(entries)} files, "
        f"{sum(entry.size_bytes for entry in entries) / 1e6:.1f} MB, no byte altered",
    )
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
        return ()  # a row of its own tells
    except MotorVAEError as error:
        found = " ".join(str(error).split())
    else:
        if np.isfinite(mu).all():
            found = f"fp32 ran on the CPU: {side}x{side} to {mu.shape[1]} latents"
            return (Finding(what="encoder", found=found),)
        found = "its latents of a black image are not finite numbers"
    return (
        Finding(what="encoder", found=found, verdict="FAILED", next_command=_export(bundle.folder)),
    )


def _engines(bundle: Bundle, gpu: Gpu | NoGpu) -> tuple[Finding, ...]:
    """Tell of each engine whether it fits this machine, without loading it."""
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
    way = next_command("motorvae-export", "--model", bundle.folder, "--fp16")
    return (
        Finding(
            what="engines",
            found="none in this bundle; ONNX Runtime runs it",
            verdict="optional",
            next_command=way if isinstance(gpu, Gpu) else None,
        ),
    )


def _engine(bundle: Bundle, name: TensorRTName, entry: GraphEntry, gpu: Gpu | NoGpu) -> Finding:
    from ...engines.tensorrt.find import check_engine  # noqa: PLC0415  # with numpy

    form = "" if entry.variant == "full" else f" {entry.variant}"
    what = f"engine {entry.precision}{form}"
    try:
        if isinstance(gpu, NoGpu):
            _, path = entry.key.engine_paths(bundle.folder, name)
            engine_manifest = engine_manifest_from_json(path)
            return Finding(
                what=what,
                found=f"{title_of(name)} {engine_manifest.version}, for compute capability "
                f"{sentence_list(engine_manifest.compute_capabilities)}; no GPU here runs it",
                verdict="optional",
            )
        package = import_tensorrt(name)
        if objection := package.objection_to(gpu):
            return Finding(what=what, found=objection, verdict="optional")
        engine_manifest, _ = check_engine(bundle, entry, package, gpu)
    except MotorVAEError as error:
        again = next_command("motorvae-export", "--model", bundle.folder, "--engine", name)
        return Finding(
            what=what,
            found=" ".join(str(error).split()),
            verdict="warn",
            next_command=again if entry.precision == "fp32" else f"{again} --{entry.precision}",
        )
    gated = "verified" if engine_manifest.verification.verified else "not verified"
    return Finding(what=what, found=f"{title_of(name)} {engine_manifest.version} fits, {gated}")


def _export(model: Path) -> str:
    """Return the command that writes a bundle there, from where this machine stands."""
    output = [] if model == _DEFAULT else ["--output", model]
    export = next_command("motorvae-export", "--fp16", *output)
    return export if _LATEST.exists() else f"motorvae-train && {export}"
