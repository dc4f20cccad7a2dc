"""How images or latents become what two graphs take, by options and the graphs' own shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...runtime.core.errors import ConfigError, DataError
from ...runtime.core.spec import LEAST_SIDE, MOST_SIDE, ModelSpec, spec_from_options
from ..verify.batches import run_in_batches
from .graphs import InputForm, UserGraph, opened_reference
from .images import Inputs, latents_from_file, pictures_from_source
from .options import VerifyOptions
from .outputs import paired_outputs

TRIED = 2
"""So many images show whether outputs are random, and what their shapes are."""


def spec_of(options: VerifyOptions, form: InputForm, graphs: tuple[UserGraph, ...]) -> ModelSpec:
    """Return how images become input; ConfigError where options do not fit what the graphs take."""
    path, shape = graphs[0].path, graphs[0].shape
    channels = form.channels or (1 if options.color == "grey" else 3)
    color = options.color or ("grey" if channels == 1 else "rgb")
    if (color == "grey") != (channels == 1):
        raise ConfigError(
            f"--color {color}: {path} takes {shape}, {channels} channel"
            f"{'' if channels == 1 else 's'}: leave --color out, or name another"
        )
    found = form.height, form.width
    if None in found and options.size is None:
        raise ConfigError(f"{path} takes {shape}, any size: give height and width with --size")
    asked = options.size or (found[0] or 0, found[1] or 0)
    if any(size is not None and size != other for size, other in zip(found, asked, strict=True)):
        raise ConfigError(
            f"--size {asked[0]} {asked[1]}: the graphs take {found[0]} x {found[1]} pixels: leave "
            "--size out"
        )
    if not LEAST_SIDE <= min(asked) <= max(asked) <= MOST_SIDE:
        raise ConfigError(
            f"{path} is given {asked[0]} x {asked[1]} pixels: each side must be {LEAST_SIDE} to "
            f"{MOST_SIDE}"
        )
    spec = spec_from_options(
        image_size=asked,
        color=color,
        channels=None,
        latent_size=1,
        crop_box=options.crop_box,
        fit=options.fit,
        interpolation=options.interpolation,
        matrix="auto",
        value_range=options.value_range,
        mean=options.mean,
        std=options.std,
        has_log_var=False,
        has_decoder=False,
    )
    for graph in graphs:
        if graph.dtype == "uint8" and spec.scales and all(g.dtype == "uint8" for g in graphs):
            raise ConfigError(
                f"{graph.path} takes pixels as they are: leave out --value-range, --mean and --std"
            )
    return spec


def latents_for(options: VerifyOptions, decoder: UserGraph) -> Inputs:
    """Return latents in the shape that a decoder takes, from a file or an encoder's mu."""
    if options.encoder is None:
        inputs = latents_from_file(Path(options.images), options.most_images)
    else:
        inputs = _encoded(options, options.encoder)
    wanted = decoder.shape[1:]
    rows = inputs.rows
    if all(isinstance(size, int) for size in wanted):
        sizes = [int(size) for size in wanted if isinstance(size, int)]
        if int(np.prod(sizes)) == int(np.prod(rows.shape[1:])):
            return replace(inputs, rows=rows.reshape(len(rows), *sizes))
    fits = len(wanted) == len(rows.shape[1:]) and all(
        size == given
        for size, given in zip(wanted, rows.shape[1:], strict=False)
        if isinstance(size, int)
    )
    if not fits:
        raise ConfigError(
            f"{decoder.path} takes {decoder.shape}, and a latent of {inputs.source} is "
            f"{rows.shape[1:]}: name latents of that shape"
        )
    return inputs


def _encoded(options: VerifyOptions, path: Path) -> Inputs:
    with opened_reference(path, threads=options.threads) as encoder:
        form = encoder.form(decodes=False)
        if form.layout == "latents":
            raise ConfigError(f"--encoder {path} takes {encoder.shape}, which are no images")
        encoder.spec = spec_of(options, form, (encoder,))
        inputs = pictures_from_source(options.images, encoder.spec, options.most_images)
        given = encoder.run(inputs.rows[:TRIED])
        own = replace(options, outputs=(), candidate_outputs=())
        pairs, _ = paired_outputs(own, (encoder, given), (encoder, given))
        latents = [pair for pair in pairs if pair.kind in {"mu", "latent"}]
        if not latents:
            raise ConfigError(f"--encoder {path} has no output that is a latent: name another")
        name = latents[0].output
        found = run_in_batches(encoder, inputs.rows, 1)[name]
    if not np.isfinite(found).all():
        raise DataError(f"--encoder {path} gives NaN or Inf in {name}: name another")
    note = f"decoded are {name} of {path.name}"
    return replace(inputs, rows=found, notes=(*inputs.notes, note))
