"""What `--prune-channels` does to INT8 encoders of models of several unlike data sets.

    pruning_table.py OUT.json --bundles DIR NAME=RUN,FRESH ... [NAME=OTHER ...]
    pruning_table.py OUT.json --bundles DIR --times --rounds 12

RUN is a finished training run, FRESH images like those that it learned: a folder, a video, or
vehicles:SEED with a seed that is not the run's. OTHER are further images that no run has learned.
Of each run two bundles are written into DIR, NAME/plain and NAME/pruned, by the functions of
motorvae-export and with its gate, but without decoders, whose search takes most of an export; what
is there already is taken, as are bundles that were exported whole. Then every model sees its own
fresh images, those altered and made as the export's trial of out-of-distribution detection does,
and the images of all others. Errors are of `mu` against the float32 graph of the same bundle, over
spreads (the limit of a largest one is 0.25); `lost` is the share of images with a latent past that
limit, and `silent` that of images which are past it and not `is_ood`. With --times the encoders of
all bundles in DIR take turns at batch 1 on two threads, and OUT.json gets the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from motorvae.benchmarks.measure.rounds import RoundPlan, interleaved, stopwatch
from motorvae.benchmarks.under_test.scenes import images_from_source, vehicles
from motorvae.export import bundle as bundle_module
from motorvae.export.bundle import write_bundle
from motorvae.export.graph_folder import GraphFolder
from motorvae.export.int8.graphs import Int8Search
from motorvae.export.onnx_export import onnx_from_model
from motorvae.export.ood import altered_images, made_images
from motorvae.export.verify.batches import run_in_batches
from motorvae.export.verify.limits import LIMITS
from motorvae.export.verify.reference import (
    held_out_from_run,
    reference_from_bundle,
)
from motorvae.export.verify.torch_reference import reference_from_model
from motorvae.runtime.bundle.graph_key import PARTS, GraphKey, Target
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.base import Backend
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.ood.detector import OODDetector, ood_detector_from_bundle
from motorvae.runtime.pixels.convert import batch_of, input_from_pixels
from motorvae.training.checkpoint import model_from_checkpoint, weights_and_statistics

FORMS = {"plain": False, "pruned": True}
ENGINES: tuple[Target, ...] = ("onnx", "openvino")
SEED, THREADS, CALLS = 2026, 2, 5
FLOAT_JUDGES = 64
"""So many held-out images judge the float32 graphs, which are not what is looked at here."""
LIMIT = LIMITS["int8"].max_spread

Pictures = npt.NDArray[np.uint8]
Row = dict[str, Any]


class EncodersOnly(Int8Search):
    """The search for INT8 graphs of a model without a decoder."""

    def __init__(self, files: GraphFolder, *args: Any, **options: Any) -> None:
        spec = files.spec.model_copy(update={"has_decoder": False})
        files = GraphFolder(files.folder, spec, files.weights_sha256)
        super().__init__(files, *args, **options)


def write_encoders(run: Path, output: Path, *, pruned: bool) -> None:
    """Export a run as motorvae-export does, but for INT8 decoders."""
    model, config = model_from_checkpoint(run, "best")
    weights, path = weights_and_statistics(run, "best")
    held_out, spread = held_out_from_run(run, config.model, path.name)
    with patch.object(bundle_module, "Int8Search", EncodersOnly):
        write_bundle(
            output,
            graphs={part: onnx_from_model(model, config.model, part) for part in PARTS},
            spec=config.model,
            weights_sha256=sha256_of(weights),
            statistics=path,
            reference=reference_from_model(model, held_out[:FLOAT_JUDGES], spread),
            held_out=held_out,
            precisions=("int8",),
            targets=ENGINES,
            prune_channels=pruned,
            on_reports=lambda _, searched: [
                print(f"{output}: {one.sentence}") for one in searched if not one.passed
            ],
        )


def images_of(text: str, count: int, spec: ModelSpec) -> Pictures:
    """Return (N, S, S) uint8 of a source, or of built-in vehicles."""
    if text.startswith("vehicles:"):
        return vehicles(int(text.partition(":")[2]), count, spec)
    return images_from_source(text, count, spec)


def what_is_there(bundle: Bundle) -> Row:
    """Return what the manifest says of the INT8 encoders: channels, bytes, what the gate saw."""
    found: Row = {}
    for entry in bundle.manifest.graphs:
        if (entry.graph, entry.precision, entry.variant) != ("encoder", "int8", "luma"):
            continue
        assert entry.calibration is not None
        reports = [one for one in bundle.manifest.verification if one.title == entry.title]
        metrics = [one for report in reports for one in report.metrics if one.limit is not None]
        found[entry.made_for or ""] = {
            "channels": list(entry.calibration.channels),
            "excluded": list(entry.calibration.excluded),
            "calibrated": entry.calibration.images,
            "judged": entry.calibration.judged,
            "bytes": len(bundle.content(bundle.entry(replace(entry.key, variant="mu")))),
            "gate": {
                one.name: {"value": one.value, "bound": one.bound, "limit": one.limit}
                for one in metrics
            },
        }
    return found


def judged_on(bundle: Bundle, kinds: dict[str, Pictures]) -> dict[str, dict[str, Row]]:
    """Return for each engine and each kind of images how far INT8 is from float32."""
    reference = reference_from_bundle(bundle)
    scale, units = reference.scale, reference.judged_units
    detector = ood_detector_from_bundle(bundle)
    assert isinstance(detector, OODDetector), detector
    with open_engine(bundle, GraphKey("encoder")) as backend:
        true = {
            name: run_in_batches(backend, input_from_pixels(batch_of(images)))["mu"]
            for name, images in kinds.items()
        }
    looks = {name: [detector.appearance(one) for one in images] for name, images in kinds.items()}
    found: dict[str, dict[str, Row]] = {}
    for engine in ENGINES:
        with contextlib.ExitStack() as stack:
            key = GraphKey("encoder", "int8", "luma", engine)
            if not any(entry.key == key for entry in bundle.manifest.graphs):
                continue
            backend = stack.enter_context(open_engine(bundle, key, EngineRequest(engine)))
            found[engine] = {}
            for name, images in kinds.items():
                mu = run_in_batches(backend, batch_of(images))["mu"]
                error = (np.abs(mu - true[name]) / scale)[:, units]
                pairs = zip(mu, looks[name], strict=True)
                flagged = np.array([detector.scored(one, None, look).is_ood for one, look in pairs])
                lost = error.max(axis=1) > LIMIT
                found[engine][name] = {
                    "images": len(images),
                    "max": float(error.max()),
                    "rms": float(np.sqrt((error**2).mean())),
                    # Of latents this far out even a right graph's error counts less.
                    "of_mu": float(np.sqrt((error**2).mean() / _energy(true[name], scale, units))),
                    "flagged": float(flagged.mean()),
                    "lost": float(lost.mean()),
                    "silent": float((lost & ~flagged).mean()),
                }
    return found


def _energy(mu: npt.NDArray[np.float32], scale: Any, units: Any) -> float:
    return float((((mu / scale)[:, units]) ** 2).mean())


def times_of(folder: Path, rounds: int) -> list[Row]:
    """Time encoders that give `mu`, all forms and engines in turns."""
    runs: dict[tuple[str, str, str], Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        for path in sorted(folder.glob("*/*/manifest.json")):
            bundle = load_bundle(path.parent)
            image = batch_of(reference_from_bundle(bundle).images[:1])
            for engine in ENGINES:
                backend = stack.enter_context(_lean(bundle, engine))
                key = path.parent.parent.name, engine, path.parent.name
                runs[key] = lambda backend=backend, image=image: backend.run(image)  # type: ignore[misc]
        laps = {key: stopwatch(run, "run") for key, run in runs.items()}
        plan = RoundPlan(samples=rounds * CALLS, warmup=0, settle=1, turn=CALLS)
        taken = interleaved(laps, plan)
    samples = {key: [ns / 1e6 for ns in all_ns["run"]] for key, all_ns in taken.items()}
    rows = []
    for name, engine, form in samples:
        if form == "plain" and (name, engine, "pruned") in samples:
            both = {one: samples[name, engine, one] for one in FORMS}
            p50 = {one: statistics.median(values) for one, values in both.items()}
            least = {one: min(values) for one, values in both.items()}
            rows.append(
                {"model": name, "engine": engine, "p50_ms": p50, "least_ms": least}
                | {"share": p50["pruned"] / p50["plain"]}
                | {"least_share": least["pruned"] / least["plain"]}
            )
            print(
                f"| {name} | {engine} | {p50['plain']:.2f} | {p50['pruned']:.2f} | "
                f"{rows[-1]['share']:.2f} | {rows[-1]['least_share']:.2f} |"
            )
    return rows


def _lean(bundle: Bundle, engine: Target) -> contextlib.AbstractContextManager[Backend]:
    key = GraphKey("encoder", "int8", "mu", engine)
    return open_engine(bundle, key, EngineRequest(engine, threads=THREADS))


def kinds_of(name: str, fresh: dict[str, str], count: int, spec: ModelSpec) -> dict[str, Pictures]:
    """Return fresh images, the same altered, made ones, and those of the other sets."""
    known = images_of(fresh[name], count, spec)
    kinds = {"fresh": known} | altered_images(known, SEED)
    kinds |= made_images(SEED, min(count, 48), spec.picture_shape)
    others = {other: images_of(text, count, spec) for other, text in fresh.items() if other != name}
    return kinds | others


def main() -> None:
    """Write OUT.json, and print a table for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", metavar="NAME=RUN,FRESH")
    parser.add_argument("--bundles", type=Path, required=True)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--rounds", type=int, default=12)
    given = parser.parse_intermixed_args()
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    if given.times:
        found["times"] = times_of(given.bundles, given.rounds)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        return
    named = dict(text.split("=", 1) for text in given.sets)
    runs = {name: text.split(",")[0] for name, text in named.items() if "," in text}
    fresh = {name: text.split(",")[-1] for name, text in named.items()}
    for name, run in runs.items():
        there = found.setdefault("models", {}).setdefault(name, {})
        for form, is_pruned in FORMS.items():
            folder = given.bundles / name / form
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                write_encoders(Path(run), folder, pruned=is_pruned)
            bundle = load_bundle(folder)
            kinds = kinds_of(name, fresh, given.images, bundle.spec)
            there[form] = {"graphs": what_is_there(bundle), "images": judged_on(bundle, kinds)}
            given.out.write_text(json.dumps(found, indent=1) + "\n")
        show(name, there)


def show(name: str, there: Row) -> None:
    """Print a model's table: each kind of images by engine, INT8 with all channels and pruned."""
    for engine in ENGINES:
        graphs = {form: there[form]["graphs"].get(engine) for form in FORMS}
        print(f"\n{name}, {engine}: {graphs}\n")
        print(
            "| images | max | RMS | lost | silent | pruned: max | RMS | lost | silent | flagged |"
        )
        for kind in there["plain"]["images"].get(engine, ()):
            cells = []
            for form in FORMS:
                one = there[form]["images"].get(engine, {}).get(kind)
                if one is not None:
                    cells.append(f"{one['max']:.3g} | {one['rms']:.3g} | {one['lost']:.0%}")
                    cells.append(f"{one['silent']:.0%}")
            flagged = there["plain"]["images"][engine][kind]["flagged"]
            print(f"| {kind} | {' | '.join(cells)} | {flagged:.0%} |")


if __name__ == "__main__":
    main()
