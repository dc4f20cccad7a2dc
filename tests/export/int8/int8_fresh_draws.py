"""How often batches of fresh images break what a bundle announces of its INT8 graphs.

    int8_fresh_draws.py RUN SOURCE --lengthen LONGER    # a run with 2048 held-out images
    motorvae-export --checkpoint LONGER --output BUNDLE --int8 --engine none
    int8_fresh_draws.py BUNDLE OTHER_SOURCE [--batches 20] [--json FILE]

SOURCE is `vehicles:SEED` with a seed that the model was not trained on, or a folder of images that
are none of the training's. The float32 graphs of the bundle are the reference. An engine that is
not installed here is stood in for by ONNX Runtime, as in verification.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motorvae.export.verify.batches import run_in_batches
from motorvae.export.verify.extremes import NEXT_IMAGES
from motorvae.export.verify.reference import Reference, spread_from_statistics
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.bundle.manifest import STATISTICS
from motorvae.runtime.core.errors import BundleError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.engines.open import open_engine
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.runtime.pixels.files.image_files import luma_from_file
from motorvae.runtime.sources.synthetic.vehicles import vehicle
from motorvae.training.checkpoint import model_from_checkpoint
from motorvae.training.dataset import reference_picture

MOST_HELD_OUT = 2048

Row = dict[str, Any]


def batches_from(source: str, spec: ModelSpec, most: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield up to `most` batches of (128, S, S) uint8 images."""
    paths = None if source.startswith("vehicles:") else sorted(Path(source).rglob("*.*"))
    for batch in range(most):
        rows = range(batch * NEXT_IMAGES, (batch + 1) * NEXT_IMAGES)
        if paths is None:
            seed = int(source.partition(":")[2])
            pictures = [vehicle(seed, row, spec.image_size)[0] for row in rows]
            yield np.stack([reference_picture(picture, spec) for picture in pictures])
        elif rows.stop <= len(paths):
            yield np.stack([reference_picture(luma_from_file(paths[row]), spec) for row in rows])


def lengthen(run: Path, source: str, output: Path) -> None:
    """Copy a run, with held-out images from a source added up to 2048, in the order of hashes."""
    spec = model_from_checkpoint(run)[1].model
    shutil.copytree(run, output, ignore=shutil.ignore_patterns("cache", "tensorboard", "*.ckpt"))
    with np.load(run / "held_out.npz") as content:
        held_out = content["images"]
    more = [*batches_from(source, spec, -(-(MOST_HELD_OUT - len(held_out)) // NEXT_IMAGES))]
    images = np.concatenate([held_out, *more])[:MOST_HELD_OUT]
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    np.savez(output / "held_out.npz", images=images[np.argsort(digests)])


def reference_of(bundle: Bundle, images: npt.NDArray[np.uint8]) -> Reference:
    """Return what the float32 graphs say of a batch."""
    with open_engine(bundle, GraphKey("encoder")) as encoder:
        latents = run_in_batches(encoder, input_from_pixels(images[:, None]))
    with open_engine(bundle, GraphKey("decoder")) as decoder:
        decoded = run_in_batches(decoder, latents["mu"])["reconstruction"]
    spread = spread_from_statistics(bundle.folder / STATISTICS, bundle.spec, error=BundleError)
    return Reference(
        name="float32 graphs",
        images=images,
        mu=latents["mu"],
        log_var=latents["log_var"],
        reconstruction=decoded,
        spread=spread,
    )


def figures_of(bundle: Bundle, reference: Reference) -> dict[str, dict[str, float]]:
    """Return the gated extremes of each INT8 graph with all its outputs on a batch of images."""
    found: dict[str, dict[str, float]] = {}
    verifier = Verifier(reference, sizes=(16,))
    for entry in bundle.manifest.graphs:
        if entry.precision != "int8" or entry.variant == "mu":
            continue
        reports = verifier.verify_file(entry.key, bundle)
        found[entry.title] = {
            metric.name: metric.value
            for report in reports
            for metric in report.metrics
            if metric.limit is not None and metric.bound is not None
        }
    return found


def announced_by(bundle: Bundle, title: str, name: str) -> tuple[float, float | None, float]:
    """Return what the manifest says of a figure: the value seen, its bound, and the limit."""
    for report in bundle.manifest.verification:
        for metric in report.metrics:
            # Of log_var, what has the name of a figure of mu is not gated.
            if (report.title, metric.name) == (title, name) and metric.limit is not None:
                return metric.value, metric.bound, metric.limit
    raise SystemExit(f"the manifest says nothing of {name} of {title}")


def main() -> None:
    """Print a table, and write every batch's figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("source")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lengthen", type=Path, metavar="LONGER")
    options = parser.parse_args()
    if options.lengthen:
        lengthen(options.bundle, options.source, options.lengthen)
        return
    bundle = load_bundle(options.bundle)
    drawn, rows = [], []
    for images in batches_from(options.source, bundle.spec, options.batches):
        drawn.append(figures_of(bundle, reference_of(bundle, images)))
        rows = rows_of(bundle, drawn)
        if options.json:  # after each batch, as many take long
            options.json.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    print(table(rows))


def rows_of(bundle: Bundle, drawn: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """Return each figure: what was seen and announced, its limit, and each batch's."""
    rows: list[Row] = []
    for title, figures in drawn[0].items():
        for name in figures:
            seen, bound, limit = announced_by(bundle, title, name)
            fresh = [round(draw[title][name], 5) for draw in drawn]
            rows.append(
                {"graph": title, "figure": name, "seen": seen, "limit": limit, "fresh": fresh}
                | {"announced": seen if bound is None else bound}
            )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return them in Markdown, and how many batches broke any."""
    lines = [
        "| graph, figure | seen | announced | limit | worst fresh | past announced | past limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    broken = np.zeros(len(rows[0]["fresh"]), np.bool_)
    for row in rows:
        sign = -1 if "PSNR" in row["figure"] else 1
        values = sign * np.array(row["fresh"])
        past, past_limit = (values > sign * row[name] for name in ("announced", "limit"))
        broken |= past
        worst = sign * values.max()
        cells = (row["seen"], row["announced"], row["limit"], worst)
        lines.append(
            f"| {row['graph']}, {row['figure']} | {' | '.join(f'{value:.3g}' for value in cells)} "
            f"| {past.sum()} of {len(past)} | {past_limit.sum()} of {len(past)} |"
        )
    share = f"{broken.sum()} of {len(broken)}"
    return "\n".join([*lines, "", f"batches of {NEXT_IMAGES} that broke any of these: {share}"])


if __name__ == "__main__":
    main()
