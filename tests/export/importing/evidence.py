"""Where a model may come from, and what then works: the table of docs/import.md.

    python tests/export/importing/evidence.py docs/results/import.md

Small networks, made here, trained for a minute or not at all, and a hundred drawn vehicles: this
shows that each way works to its end, and what the gate said. It prints figures that it read from
the manifests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "onnx_import")]

from original_network import (  # noqa: E402  # helpers of the tests beside it
    gan_file,
    later_file,
    original_network,
    two_stage_file,
)
from torch_graphs import (  # noqa: E402  # as above
    SpatialDecoder,
    SpatialEncoder,
    exported,
)

from motorvae.runtime.bundle.load import load_bundle  # noqa: E402  # as above
from motorvae.runtime.bundle.manifest import GraphReport  # noqa: E402  # as above
from motorvae.runtime.sources.synthetic.vehicles import vehicle_picture  # noqa: E402  # as above

IMAGES, SIDE, STEPS = 160, 32, 200
HEADINGS = ("import", "float32 gate", "FP16", "INT8", "RTX build", "stream", "encode")


@dataclass
class Row:
    """One source of a model."""

    name: str
    make: Callable[[], list[str]]  # makes its files, and returns the command that imports it
    cells: dict[str, str] = field(default_factory=dict)


def command(*words: object) -> tuple[int, str, float]:
    """Run a motorvae command; return its exit code, last line and seconds."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "motorvae", *map(str, words)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("motorvae")]
    return done.returncode, (errors or lines or [""])[-1], time.perf_counter() - start


def worst(reports: list[GraphReport]) -> str:
    """Return the worst figures of some graphs: latents in spreads, images in dB."""
    latents = [
        m.value for r in reports for m in r.metrics if m.name == "max error / spread over data"
    ]
    images = [m.value for r in reports for m in r.metrics if m.unit == "dB" and m.limit is not None]
    parts = [f"{max(latents):.1g} spreads"] if latents else []
    parts += [f"{min(images):.0f} dB"] if images else []
    return ", ".join(parts)


def of_precision(folder: Path, precision: str) -> str:
    manifest = load_bundle(folder).manifest
    listed = {
        (entry.graph, entry.made_for) for entry in manifest.graphs if entry.precision == precision
    }
    reports = [one for one in manifest.verification if one.precision == precision]
    kept = [entry for entry in manifest.graphs if getattr(entry, "kept_float32", ())]
    if not listed:
        return "left out"
    note = (
        f"; {len(kept[0].kept_float32)} nodes kept in float32"
        if kept and precision == "fp16"
        else ""
    )
    return worst(reports) + note


def clause(line: str) -> str:
    """Return what an error line says, short."""
    text = line.partition(": ")[2].rpartition("are left out: ")[2]
    return text if len(text) < 160 else text[:157] + "..."


def fill(row: Row, images: Path, folder: Path) -> None:
    """Run a row to its end; what fails is said in its cell."""
    row.cells = dict.fromkeys(HEADINGS, "")
    os.chdir(folder)
    words = row.make()
    made = folder / "bundle"
    given = ("--images", images) if words[0] == "import" else ()
    code, line, seconds = command(*words, *given, "--output", made, "--engine", "none", "--anyway")
    row.cells["import"] = f"{seconds:.0f} s" if code == 0 else clause(line)
    if code:
        return
    row.cells["float32 gate"] = of_precision(made, "fp32")
    export = ("export", "--model", made)
    code, line, _ = command(*export, "--fp16", "--engine", "none")
    if code:
        asked = clause(line)
        code, line, _ = command(*export, "--fp16", "--keep-float32", "auto", "--engine", "none")
        row.cells["FP16"] = f"refused: {asked}" if code else of_precision(made, "fp16")
    else:
        row.cells["FP16"] = of_precision(made, "fp16")
    code, line, _ = command(*export, "--int8", "onnx", "--engine", "none")
    row.cells["INT8"] = of_precision(made, "int8") if code == 0 else f"left out: {clause(line)}"
    build = ("fp16",) if "spreads" in row.cells["FP16"] or "dB" in row.cells["FP16"] else ()
    code, line, seconds = command(
        *export, *(f"--{one}" for one in build), "--engine", "tensorrt-rtx"
    )
    engines = sorted(path.name for path in (made / "engines").glob("*.engine"))
    row.cells["RTX build"] = (
        f"{len(engines)} engines, {seconds:.0f} s" if code == 0 else clause(line)
    )
    code, line, _ = command(
        "stream", "synthetic", "--model", made, "--max-frames", 5, "--output", "rows.jsonl"
    )
    if code == 0:
        rows = [json.loads(one) for one in Path("rows.jsonl").read_text().splitlines()]
        fine = [one for one in rows if one["status"] == "ok"]
        row.cells["stream"] = f"{len(fine)} rows of {len(fine[0]['mu'])}"
    else:
        row.cells["stream"] = clause(line)
    code, line, _ = command("encode", images, "--model", made, "--output", "latents.npz")
    if code == 0:
        with np.load("latents.npz") as found:
            row.cells["encode"] = (
                f"{found['mu'].shape[0]} x {tuple(map(int, found['latent_shape']))}"
            )
    else:
        row.cells["encode"] = clause(line)


def pictures(images: Path, side: int = SIDE) -> torch.Tensor:
    """Return the images as (N, 3, side, side) in -1 to 1."""
    data = [
        cv2.resize(cv2.imread(str(path)), (side, side), interpolation=cv2.INTER_AREA)[:, :, ::-1]
        for path in sorted(images.glob("*.png"))
    ]
    return torch.from_numpy(np.stack(data).transpose(0, 3, 1, 2) / np.float32(127.5) - 1)


def train(
    encode: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]],
    decode: Callable[[torch.Tensor], torch.Tensor],
    parameters: Iterable[nn.Parameter],
    batch: torch.Tensor,
    rate: float = 3e-3,
) -> None:
    """Train a model a little on (N, C, H, W), so that its latents and images are some."""
    optimizer = torch.optim.Adam([*parameters], rate)
    for step in range(STEPS):
        some = batch[torch.arange(16).add(16 * step) % len(batch)]
        mu, log_var = encode(some)
        loss = torch.zeros(())
        if log_var is not None:
            loss = 5e-4 * (mu**2 + log_var.exp() - 1 - log_var).mean()
            mu = mu + torch.randn_like(mu) * torch.exp(log_var / 2)
        loss = loss + nn.functional.mse_loss(decode(mu), some)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def trained_pair(images: Path) -> None:
    """Train the small network with attention and spatial latents, and write its two halves."""
    torch.manual_seed(0)
    encoder, decoder = SpatialEncoder(), SpatialDecoder()
    train(encoder, decoder, [*encoder.parameters(), *decoder.parameters()], pictures(images))
    for half, name, shape, outputs in (
        (encoder, "encoder", (3, SIDE, SIDE), ("mu", "log_var")),
        (decoder, "decoder", (4, SIDE // 4, SIDE // 4), ("image",)),
    ):
        with contextlib.redirect_stdout(io.StringIO()):
            exported(half.eval(), Path(f"{name}.onnx"), shape, outputs, dynamo=True, opset=18)


def trained_run(*sizes: object) -> list[str]:
    """Train the card's network for a minute, and return what exports it."""
    code, line, _ = command(
        "train", "vehicles", "--vehicles-count", 800, "--minutes", 1, "--name", "card", *sizes
    )
    assert code == 0, line
    return ["export", "runs/card"]


def original(kind: str, images: Path) -> list[str]:
    """Write the original's checkpoint, at its default size and trained a little."""
    network = original_network(64, (32, 64, 128, 256, 512), 128).train()
    grey = pictures(images, 64).mean(1, keepdim=True) / 2 + 0.5
    train(network.encode, network.decode, network.parameters(), grey, 3e-4)
    network.eval()
    path = Path(f"{kind}.pth")
    two_stage_file(path, network) if kind == "two-stage" else gan_file(path, network, within=True)
    return ["import", str(path)]


def kl(images: Path) -> list[str]:
    """Make a small AutoencoderKL by the library itself, and train it a little."""
    import diffusers

    torch.manual_seed(1)
    module = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32), norm_num_groups=8, sample_size=SIDE, scaling_factor=0.18215,
    )  # fmt: skip

    def encode(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = module.encode(x).latent_dist
        return found.mean, found.logvar

    train(encode, lambda z: module.decode(z).sample, module.parameters(), pictures(images))
    module.save_pretrained("kl")
    return ["import", "kl"]


def tiny(images: Path) -> list[str]:
    """Make a small AutoencoderTiny by the library itself, and train it a little."""
    import diffusers

    torch.manual_seed(0)
    module = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16), decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1),
    )  # fmt: skip
    train(
        lambda x: (module.encode(x).latents, None),
        lambda z: module.decode(z).sample,
        module.parameters(),
        pictures(images),
    )
    module.save_pretrained("tiny")
    # Without log_var the spread over the images judges, which is next to none in white corners.
    crop = ["--crop", "0.25", "0.3", "0.75", "0.8"]
    return ["import", "tiny", "--image-size", str(SIDE), *crop]


def pair(images: Path) -> list[str]:
    """Write the pair, and return what imports it."""
    trained_pair(images)
    return ["import", "encoder.onnx", "--decoder", "decoder.onnx", "--value-range", "-1", "1"]


def refusals(images: Path, folder: Path) -> list[tuple[str, str]]:
    """Try what must be refused; return what it was and the line that was said."""
    os.chdir(folder)
    later_file(Path("later.pth"))
    torch.save(original_network(), "whole.pth")
    trained_pair(images)

    class Sampling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SpatialEncoder()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mu, log_var = self.inner(x)
            return mu + torch.randn_like(mu) * torch.exp(log_var / 2)

    with contextlib.redirect_stdout(io.StringIO()):
        exported(
            Sampling().eval(), Path("draws.onnx"), (3, SIDE, SIDE), ("z",), dynamo=True, opset=18
        )
    Path("vq").mkdir()
    Path("vq/config.json").write_text('{"_class_name": "VQModel"}', encoding="utf-8")
    Path("two").mkdir()
    for number in range(2):
        cv2.imwrite(f"two/{number}.png", np.full((64, 64, 3), 255, np.uint8))
    tries = {
        "no images": ["encoder.onnx"],
        "two equal images": ["encoder.onnx", "--images", "two"],
        "a draw inside the encoder": ["draws.onnx", "--images", images],
        "the wrong range of a decoder": [
            "encoder.onnx", "--decoder", "decoder.onnx", "--value-range", -1, 1,
            "--decoder-range", "unit", "--images", images,
        ],
        "the encoder as its decoder": [
            "encoder.onnx", "--decoder", "encoder.onnx", "--outputs", "mu=mu",
            "reconstruction=mu", "--images", images,
        ],
        "a later generation of the original": ["later.pth", "--images", images],
        "a pickled model": ["whole.pth", "--images", images],
        "another class of diffusers": ["vq", "--images", images],
        "a module that is not there": ["--module", "no_such:make", "--images", images],
    }  # fmt: skip
    found = []
    for what, words in tries.items():
        code, line, _ = command("import", *words)
        assert code == 1, (what, line)
        found.append((what, line.replace(str(folder) + "/", "")))
    assert not Path("bundle").exists()
    return found


def cell(text: str) -> str:
    """Return a text as the cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;") or "-"


def main() -> None:
    """Fill the table, and write or print it."""
    output = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None
    wanted = sys.argv[2:]
    warnings.simplefilter("ignore")
    has_diffusers = importlib.util.find_spec("diffusers") is not None
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        images = base / "images"
        images.mkdir()
        for row in range(IMAGES):
            cv2.imwrite(str(images / f"{row:03d}.png"), vehicle_picture(4, row, 256, "rgb")[32:224])
        rows = [
            Row("the card, 256 grey, trained for a minute", trained_run),
            Row(
                "the card, 80 x 160 RGB, trained for a minute",
                lambda: trained_run(
                    *("--image-size", 80, 160, "--color", "rgb", "--latent-size", 32),
                    *("--crop", 0, 0.1, 1, 0.9),
                ),
            ),
            Row("the original's two-stage checkpoint", lambda: original("two-stage", images)),
            Row("the original's VAE-GAN checkpoint", lambda: original("gan", images)),
            Row("an ONNX pair, attention and maps of 4 x 8 x 8", lambda: pair(images)),
        ]
        if has_diffusers:
            rows += [
                Row("a small AutoencoderKL", lambda: kl(images)),
                Row("a small AutoencoderTiny", lambda: tiny(images)),
            ]
        lines = [f"| | {' | '.join(HEADINGS)} |", f"| --- |{' --- |' * len(HEADINGS)}"]
        for number, row in enumerate(rows):
            if wanted and not any(word in row.name for word in wanted):
                continue
            folder = base / str(number)
            folder.mkdir()
            fill(row, images, folder)
            lines.append(f"| {row.name} | {' | '.join(cell(row.cells[h]) for h in HEADINGS)} |")
            print(lines[-1], file=sys.stderr, flush=True)
        refused = base / "refused"
        refused.mkdir()
        lines += ["", "| what | the line it said |", "| --- | --- |"]
        if not wanted:
            lines += [f"| {what} | `{cell(line)}` |" for what, line in refusals(images, refused)]
    text = "\n".join(lines) + "\n"
    if output is None:
        print(text)
    else:
        output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
