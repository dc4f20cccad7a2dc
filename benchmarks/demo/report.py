"""The demo's picture: originals over reconstructions, latents over time, stage latencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import orjson
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import load_bundle
from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.errors import DataError
from ...runtime.core.frame import Frame
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.open import open_engine
from ...runtime.pixels.convert import fitted_from_image
from ...runtime.sources.open import open_source

COLUMNS = 10
STAGES = ("capture", "convert", "wait", "encode", "emit", "age")


def draw_report(path: Path, *, bundle: Path, video: Path, rows: Path) -> None:
    """Draw the report of one stream of a video, from its bundle and its rows, to a PNG."""
    latent_rows = [row for row in rows_of(rows) if row["status"] == "ok"]
    if not latent_rows:
        raise DataError(f"{rows} holds no latent: stream the video again")
    model = load_bundle(bundle)
    # The middles of equal stretches.
    picked = [latent_rows[len(latent_rows) * (2 * i + 1) // (2 * COLUMNS)] for i in range(COLUMNS)]
    originals = _frames_at(video, {row["index"] for row in picked}, model.spec)
    latents = np.asarray([row["mu"] for row in picked], np.float32)
    with open_engine(model, GraphKey("decoder")) as decoder:
        reconstructions = decoder.run(latents)["reconstruction"][:, 0]

    with mpl.rc_context({"font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left"}):
        figure = Figure(figsize=(12, 8.6), layout="constrained")
        grid = GridSpec(4, COLUMNS, figure=figure, height_ratios=(1, 1, 2.7, 1.9))
        for column, row in enumerate(picked):
            pair = (originals[row["index"]], reconstructions[column])
            for line, image in enumerate(pair):
                axes = figure.add_subplot(grid[line, column])
                axes.imshow(image, cmap="gray", vmin=0, vmax=255 if line == 0 else 1)
                axes.set(xticks=[], yticks=[])
                if line == 0:
                    axes.set_title(f"frame {row['index']}", loc="center", fontsize=8)
                if column == 0:
                    axes.set_ylabel("reconstruction" if line else "original")
        _draw_latents(figure, grid, latent_rows)
        _draw_stages(figure, grid, latent_rows)
        with replaced_file(path) as temporary:
            figure.savefig(temporary, dpi=110)


def _draw_latents(figure: Figure, grid: GridSpec, rows: list[dict[str, Any]]) -> None:
    """Every latent over time, most varying first, as lines of a map."""
    axes = figure.add_subplot(grid[2, :])
    mu = np.asarray([row["mu"] for row in rows], np.float32)
    start_ns = rows[0]["captured_ns"]
    seconds = [(row["captured_ns"] - start_ns) / 1e9 for row in rows]
    order = np.argsort(-mu.var(axis=0))
    bound = float(np.percentile(np.abs(mu), 99)) or 1.0
    # Edges half way between frames, so that a dropped frame shows as a wider column.
    middles = (np.asarray(seconds[1:]) + np.asarray(seconds[:-1])) / 2
    edges = np.concatenate(([seconds[0]], middles, [seconds[-1] + 1e-3]))
    drawn = axes.pcolormesh(
        edges,
        np.arange(mu.shape[1] + 1),
        mu[:, order].T,
        cmap="RdBu_r",
        vmin=-bound,
        vmax=bound,
        rasterized=True,
    )
    axes.invert_yaxis()
    axes.set(xlabel="seconds since the first frame", ylabel="latent, most varying first")
    axes.set_title(f"mu of {len(rows)} frames, {mu.shape[1]} latents")
    figure.colorbar(drawn, ax=axes, pad=0.01, fraction=0.03, label="mu")


def _draw_stages(figure: Figure, grid: GridSpec, rows: list[dict[str, Any]]) -> None:
    """Every frame's stage times as points, with median and 99th percentile in words."""
    axes = figure.add_subplot(grid[3, :])
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, len(rows))
    for position, stage in enumerate(STAGES):
        times_ms = np.asarray([row[f"{stage}_ms"] for row in rows])
        axes.plot(times_ms, position + jitter, ".", markersize=3, alpha=0.4, color="#0072b2")
        p50, p99 = np.percentile(times_ms, (50, 99))
        axes.plot([p50, p50], [position - 0.38, position + 0.38], color="#d55e00", linewidth=2)
        axes.annotate(
            f"median {p50:.2f}, p99 {p99:.2f}",
            (0.005, position),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            color="#444444",
        )
    axes.set_yticks(range(len(STAGES)), STAGES)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds (log scale, below 0.01 not shown; orange: median)")
    axes.set_xlim(left=0.01)
    dropped = sum(row["dropped"] for row in rows)
    axes.set_title(f"time of each stage, and age of the frame at its latent; {dropped} dropped")
    axes.grid(axis="x", alpha=0.3)


def _frames_at(video: Path, indices: set[int], spec: ModelSpec) -> dict[int, npt.NDArray[np.uint8]]:
    """Return the fitted luma of the frames with these indices."""
    found = {}
    with open_source(str(video)) as source:
        while (item := source.read()) is not None:
            if isinstance(item, Frame) and item.index in indices:
                found[item.index] = fitted_from_image(item.image, spec, is_fitted=item.is_fitted)
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON Lines file."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
