"""The model card: what a model is, how it was trained, what was verified, and what it is not."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ...runtime.bundle.manifest import Manifest, Metric, Origin
from ...runtime.core.packages import own_version
from ...runtime.core.spec import ModelSpec
from ...runtime.core.text import printable
from .explored import Explored, Factors
from .files import PICTURES

_ADDRESS = re.compile(r":(?=//)|\bwww(?=\.)|@", re.IGNORECASE)
"""What addresses and names begin with that the Hub makes links of, marked up as such or not (GitHub
Flavored Markdown, 6.9): a comment after it, which is not shown, leaves two texts that are none."""
_SOURCE = "https://github.com/motorvae/motorvae"


@dataclass(frozen=True)
class Trained:
    """How a run was trained, in what its files say; a bundle knows nothing of it."""

    options: Mapping[str, Any]  # of the run, by their names
    data: str  # what it was trained on, in words
    is_drawn: bool  # whether that is the built-in vehicles
    epoch: Mapping[str, float]  # the row of metrics.csv of the epoch that is kept; may be empty
    precision: str
    is_half: bool


@dataclass(frozen=True)
class CardFacts:
    """What a card says; what is None is not known."""

    name: str
    spec: ModelSpec
    trained: Trained | None = None
    manifest: Manifest | None = None  # of the bundle itself, or of one that a run became
    origin: Origin | None = None
    explored: Explored | None = None
    license: str | None = None


def card_of(facts: CardFacts, *, is_bundle: bool) -> ModelCard:
    """Return the card, with the Hub's metadata in front."""
    spec = facts.spec
    data = ModelCardData(
        library_name="motorvae",
        license=facts.license,
        pipeline_tag="image-feature-extraction",
        tags=["motorvae", "vae", "variational-autoencoder", *(["onnx"] if is_bundle else [])],
    )
    lines = [
        f"# {_cell(facts.name)}",
        "",
        f"A variational autoencoder of [motorVAE]({_SOURCE}): an image of "
        f"{spec.size_in_words} pixels, {spec.color}, becomes {spec.latent_size} latent numbers, "
        + ("and these an image again." if spec.has_decoder else "and there is no decoder."),
        "",
        *_usage(facts, is_bundle=is_bundle),
        *_specification(spec),
        *_training(facts),
        *_verification(facts),
        *(_factors(facts.explored.factors) if facts.explored is not None else ()),
        *(_pictures(facts.explored) if facts.explored is not None else ()),
        *_limits(facts),
        f"This card was written by motorVAE {own_version()} from the files of the model.",
        "",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines))


def save_pictures(explored: Explored, folder: Path) -> None:
    """Copy what a card shows beside it."""
    for picture in explored.pictures:
        (folder / PICTURES).mkdir(exist_ok=True)
        shutil.copyfile(picture.path, folder / PICTURES / picture.path.name)


def _usage(facts: CardFacts, *, is_bundle: bool) -> Iterator[str]:
    yield "```sh"
    yield f"motorvae hub pull OWNER/{_plain(facts.name)} --output model"
    if is_bundle:
        yield "motorvae-stream 0 --model model"
    else:
        yield "motorvae-train photos/ --pretrained model   # goes on from these weights"
        if facts.trained is not None and facts.trained.is_drawn:
            yield "motorvae-export --pretrained model          # a verified bundle"
    yield from ("```", "")


def _specification(spec: ModelSpec) -> Iterator[str]:
    network = "another network" if spec.channels is None else ", ".join(map(str, spec.channels))
    shape = " x ".join(map(str, spec.latent_shape)) or str(spec.latent_size)
    crop = "none" if spec.crop_box is None else ", ".join(f"{side:g}" for side in spec.crop_box)
    yield from _table(
        "Model",
        ("", ""),
        [
            ("input", f"{spec.image_channels} x {spec.height} x {spec.width}, {spec.color}"),
            ("convolutions of the encoder, channels", network),
            ("latent", shape),
            ("log_var", "yes" if spec.has_log_var else "no"),
            ("decoder", "yes" if spec.has_decoder else "no"),
            ("crop box", crop),
            ("fit, interpolation", f"{spec.fit}, {spec.interpolation}"),
            ("matrix of video that names none", spec.matrix),
        ],
    )


def _training(facts: CardFacts) -> Iterator[str]:
    trained = facts.trained
    if trained is None:
        yield from ("## Training", "", "A bundle does not say how its model was trained.", "")
    else:
        names = (
            *("recipe", "batch_size", "optimizer", "learning_rate", "lr_schedule", "betas"),
            "reconstruction_loss",
        )
        rows = [("data", trained.data), ("arithmetic", trained.precision)]
        rows += [(name, str(trained.options[name])) for name in names if name in trained.options]
        rows += [
            (title, f"{trained.epoch[name]:.5g}")
            for name, title in (
                ("epoch", "epoch that is kept"),
                ("steps", "optimizer steps until then"),
                ("held_out_reconstruction", "held-out squared error, summed over pixels"),
                ("held_out_kl", "held-out KL divergence in nats"),
                ("active_units", "active units"),
            )
            if name in trained.epoch
        ]
        rows.append(("weights", "FP16, computed with in float32" if trained.is_half else "float32"))
        yield from _table("Training", ("", ""), rows)
    if (origin := facts.origin) is not None:
        notes = "".join(f"; {_cell(note)}" for note in origin.notes)
        yield f"It began with {_cell(origin.name)} ({origin.kind}){notes}."
        yield ""


def _verification(facts: CardFacts) -> Iterator[str]:
    """Yield each output of each graph with the figure of it that is nearest its limit."""
    if facts.manifest is None:
        yield from (
            *("## Verification", ""),
            "These are weights, not graphs: nothing was exported, so nothing was compared.",
            "",
        )
        return
    reports = facts.manifest.verification
    rows = []
    for report in reports:
        held = [metric for metric in report.metrics if metric.limit is not None]
        nearest = max(held, key=_share_of_limit, default=None)
        figure = "" if nearest is None else f"{nearest.name} {nearest} (limit {nearest.limit:g})"
        verdict = f"{len(held)} passed" if report.passed else "FAILED"
        rows.append((report.title, report.output, str(report.images), figure, verdict))
    title = ("graph", "output", "held-out images", "figure that is nearest its limit", "figures")
    yield from _table("Verification", title, rows)
    if facts.trained is not None:
        of = "the float32 weights" if facts.trained.is_half else "these weights"
        yield f"Of the bundle that was exported from {of}. "
    engines = sorted({report.engine for report in reports})
    yield f"Compared in {_cell('; '.join(engines))}."
    notes = dict.fromkeys(note for report in reports for note in report.notes)
    yield from ("", *(f"- {_cell(note)}" for note in notes), "")


def _share_of_limit(metric: Metric) -> float:
    """Return how much of what its limit allows a figure takes."""
    limit = metric.limit or 0.0
    over, under = (limit, metric.value) if metric.higher_is_better else (metric.value, limit)
    return over / under if under else (math.inf if over else 0.0)


def _factors(factors: Factors | None) -> Iterator[str]:
    if factors is None:
        return
    title = ("factor", "linear probe, held out", "chance", "mutual information gap")
    rows = [(name, *map(_number, figures)) for name, figures in factors.rows]
    yield from _table("Factors", title, rows)
    whole = [f"{name} {_number(figure)}" for name, figure in factors.whole.items()]
    yield f"Of {_cell(factors.source)}: {', '.join(whole)}."
    yield ""


def _pictures(explored: Explored) -> Iterator[str]:
    if not explored.pictures:
        return
    yield from ("## Pictures", "")
    for picture in explored.pictures:
        yield f"![{_cell(picture.title)}]({PICTURES}/{picture.path.name})"
        yield from ("", _cell(picture.caption), "")


def _limits(facts: CardFacts) -> Iterator[str]:
    yield from ("## Limits", "")
    yield (
        "- It knows images like those that it was trained on. Latents of others mean nothing, and "
        "motorVAE's streams mark them as out of distribution as far as they can be told."
    )
    if facts.spec.has_decoder:
        yield (
            "- Reconstructions are blurred: the loss averages over all images that a latent may "
            "stand for. Details smaller than that are not in the latents either."
        )
    if facts.manifest is not None:
        if facts.manifest.ood is not None:
            yield f"- Out-of-distribution images that are told: {facts.manifest.ood.in_words()}."
        yield from (f"- {_cell(remark)}" for remark in facts.manifest.remarks)
    yield "- It is no detector and no classifier, and nothing about safety was measured."
    yield ""


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from (f"## {title}", "", f"| {' | '.join(head)} |", "| --- " * len(head) + "|")
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)
    yield ""


def _cell(text: str) -> str:
    """Return a text of others as it may stand in a table of Markdown, where nothing of it acts."""
    plain = printable(" ".join(text.split()))
    for mark in "\\`*[]<>|!":  # the backslash first, or it would take back what follows
        plain = plain.replace(mark, f"\\{mark}")
    return _ADDRESS.sub(r"\g<0><!-- -->", plain)


def _plain(name: str) -> str:
    kept = "".join(char if char.isalnum() or char in "-_." else "-" for char in name)
    return kept if kept.isascii() and kept else "NAME"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
