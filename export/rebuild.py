"""An engine that does not fit this machine, built again by the export: what `--rebuild` does."""

from __future__ import annotations

import contextlib

from ..runtime.bundle.graph_key import GraphKey, Part
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.core.command import print_sentence, stderr_console
from ..runtime.core.errors import ConfigError, EngineError, StepFailedError, next_command
from ..runtime.core.system.children import python_module
from ..runtime.engines.open import EngineRequest
from ..runtime.engines.tensorrt.engine_manifest import engine_manifest_from_json
from ..runtime.engines.tensorrt.find import graphs_with_engine
from .steps import run_process


def rebuild_engines(bundle: Bundle, part: Part, request: EngineRequest) -> Bundle:
    """Build a bundle's engines of one package and precision again, for batches and core of the old.

    A process of its own does it: what a builder takes of a GPU's memory is free again when it ends.
    The new engine is not tuned, as a stream waits for it; a line says so where the old one was. A
    ConfigError is raised where the request names no package, and a StepFailedError where the
    export failed, which has said why.
    """
    package, precision = request.backend, request.precision or "fp16"
    if package not in {"tensorrt", "tensorrt-rtx"}:
        raise ConfigError(f"backend={package} builds no engine: name tensorrt or tensorrt-rtx")
    options = ["--model", str(bundle.folder)]
    was_tuned = False
    options += ["--engine", package, *([] if precision == "fp32" else [f"--{precision}"])]
    with contextlib.suppress(EngineError):  # the old engine manifest may be what is broken
        for entry in graphs_with_engine(bundle, GraphKey(part, precision), package)[:1]:
            paths = entry.key.engine_paths(bundle.folder, package)
            manifest = engine_manifest_from_json(paths[1])
            was_tuned = bool(manifest.routes)
            options += ["--batch", manifest.profile.text]
            if (placed := manifest.precision_report.dla) is not None:
                options += ["--use-dla-core", str(placed.core)]
                options += ["--allow-gpu-fallback"] if placed.on_gpu else []
    if code := run_process(python_module("motorvae.export.cli", *options)):
        raise StepFailedError(
            f"building the engine again failed with exit code {code}: read what motorvae-export "
            "said above"
        )
    if was_tuned:
        again = next_command("motorvae-export", *options, "--tune")
        print_sentence(
            stderr_console(), f"the old engine was tuned, the new one is not; to tune it: {again}"
        )
    return load_bundle(bundle.folder)
