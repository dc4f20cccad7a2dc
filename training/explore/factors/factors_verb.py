"""motorvae explore factors: how well the latents of one or two models hold known factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....runtime.core.errors import ConfigError, DataError
from ...dataset import vehicle_for
from ..pictures import Pictures
from ..results import Result
from ..subject import Subject, open_subject
from .figure import figure_of
from .labels import Factor, labels_from_csv, measurable, vehicle_factors
from .options import FactorsOptions
from .rate import spending_of
from .scores import MOST_LATENTS, Scores, scores_of
from .table import lines_of
from .vehicles import VEHICLES


class _Known(NamedTuple):
    """Images of which factors are known."""

    pictures: Pictures
    factors: list[Factor]
    remarks: list[str]


def factors(options: FactorsOptions, step: Callable[[str], object]) -> Result:
    """Measure how latents hold the factors of built-in vehicles, or of a table of labels."""
    models = [options.model, *([options.compare] if options.compare is not None else [])]
    every: list[Scores] = []
    remarks: list[str] = []
    source = ""
    measured: tuple[str, ...] = ()
    for model in models:
        with open_subject(replace(options, model=model)) as subject:
            known = _known(options, subject, step)
            name = _name_of(subject, [one.model for one in every])
            step(f"{name}: encoding {known.pictures.source}")
            latents = subject.encode(known.pictures.pixels)
            spending = spending_of(subject, known.pictures.pixels, latents, seed=options.seed)
        if every and [one.name for one in known.factors] != [one.name for one in every[0].factors]:
            raise DataError(
                "the two models keep different held-out images, of which different factors can be "
                "measured: name the images of both with --images"
            )
        measured = measured or known.pictures.names
        if known.pictures.names != measured:
            remarks.append(
                "the two models were measured on different images, which their scores may differ "
                "by: name the images of both with --images"
            )
        scores = scores_of(name, latents.mu, known.factors, spending, seed=options.seed, step=step)
        if scores.dci is None:
            known.remarks.append(
                f"no DCI of {name}: trees on more than {MOST_LATENTS} latents would take hours"
            )
        every.append(scores)
        remarks += [line for line in known.remarks if line not in remarks]
        source = source or known.pictures.source
    numbers = {"source": source, "seed": options.seed, "models": [one.numbers() for one in every]}
    arrays = {}
    for number, one in enumerate(every):
        suffix = f"_{number + 1}" if number else ""
        arrays[f"information{suffix}"] = one.information
        if one.importance is not None:
            arrays[f"importance{suffix}"] = one.importance
    arrays["factors"] = np.array([one.name for one in every[0].factors])
    lines = [*remarks, f"factors of {source}", "", *lines_of(every)]
    return Result("factors", numbers, arrays, lines, {"factors.png": figure_of(every)})


def _known(options: FactorsOptions, subject: Subject, step: Callable[[str], object]) -> _Known:
    if options.labels is None:
        found = _vehicles(options, subject, step)
    else:
        pictures = subject.held_out()
        matched = labels_from_csv(options.labels).matched(pictures.names)
        remark = matched.remark()
        remarks = [*pictures.remarks, *([remark] if remark else [])]
        found = _Known(pictures, matched.factors(), remarks)
    judged = [measurable(factor) for factor in found.factors]
    for factor, why in judged:
        if why is not None:
            found.remarks.append(f"{factor.name} is left out: {why}")
    kept = [factor for factor, why in judged if why is None]
    if not kept:
        raise DataError(f"no factor can be measured: {'; '.join(found.remarks)}")
    return found._replace(factors=kept)


def _vehicles(options: FactorsOptions, subject: Subject, step: Callable[[str], object]) -> _Known:
    config = subject.run_config
    if config is not None and (config.options.data, config.options.seed) == (
        VEHICLES,
        options.seed,
    ):
        raise ConfigError(
            f"--seed={options.seed}: the model was trained on these vehicles, take another"
        )
    step(f"drawing {options.count} vehicles")
    pixels = np.empty((options.count, *subject.spec.picture_shape), np.uint8)
    for row in range(options.count):
        pixels[row] = vehicle_for(subject.spec, options.seed, row)
    names = tuple(f"vehicle-{row:06d}" for row in range(options.count))
    source = f"{options.count} built-in vehicles of seed {options.seed}"
    return _Known(
        Pictures(pixels, names, source), vehicle_factors(options.seed, range(options.count)), []
    )


def _name_of(subject: Subject, taken: Sequence[str]) -> str:
    """Return what to call a model: by its folder, and with the one above where that is taken."""
    if subject.name not in taken:
        return subject.name
    parent = Path(subject.folder).resolve().parent.name
    return f"{parent}/{subject.name}"
