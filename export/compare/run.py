"""verified: a candidate compared with a reference, from options to the result."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.core.errors import ConfigError
from ...runtime.core.packages import own_version
from ...runtime.core.spec import ModelSpec
from ..verify.limits import Limits
from ..verify.probes import probe_images
from .comparison import Comparison
from .graphs import check_alike, opened_candidate, opened_reference
from .images import LATENT_FILES, pictures_from_source
from .limits_file import NOT_HELD, limits_from
from .options import VerifyOptions
from .outputs import Pair, check_repeatable, paired_outputs
from .preparation import TRIED, latents_for, spec_of
from .result import VerifyResult, verdict_of


def verified(
    options: VerifyOptions, step: Callable[[str], object] = lambda _: None
) -> VerifyResult:
    """Compare two graphs; `step` is called with what begins.

    Raises:
        ConfigError: An option is out of range, contradicts another or does not fit the graphs.
        DataError: The images or the outputs allow no judgement.
        MotorVAEError: A graph, an engine or the images cannot be opened or run.
    """
    options.check()
    with ExitStack() as stack:
        step("opening the graphs")
        reference = stack.enter_context(
            opened_reference(options.reference, threads=options.threads)
        )
        candidate, precision = opened_candidate(options)
        stack.enter_context(candidate)
        limits = limits_from(options.limits, precision)
        decodes = options.encoder is not None or Path(options.images).suffix in LATENT_FILES
        form = check_alike(reference, candidate, decodes=decodes)
        if form.layout == "latents" and not decodes:
            raise ConfigError(
                f"{options.reference} takes {reference.shape}, which are no images of 1 or 3 "
                "channels: for a decoder name an .npy or .npz file of latents in place of images, "
                "or an --encoder of them"
            )
        sizes = _sizes(options, candidate.form(decodes=decodes).batch)
        step("reading the images")
        probes = None
        if form.layout == "latents":
            inputs = latents_for(options, reference)
        else:
            spec = reference.spec = candidate.spec = spec_of(options, form, (reference, candidate))
            inputs = pictures_from_source(options.images, spec, options.most_images)
            probes = None if options.skip_probes else probe_images(inputs.rows)
            if probes is None and spec.color != "grey" and np.ptp(inputs.rows, axis=1).max() == 0:
                grey = "all images are grey: what a graph makes of colours is not judged"
                inputs = replace(inputs, notes=(*inputs.notes, grey))
        step("running both graphs")
        first = inputs.rows[:TRIED]
        given, found = ([graph.run(first) for _ in range(2)] for graph in (reference, candidate))
        pairs, notes = paired_outputs(options, (reference, given[0]), (candidate, found[0]))
        check_repeatable(reference, given, [pair.output for pair in pairs])
        check_repeatable(candidate, found, [pair.candidate_output for pair in pairs])
        image_range = options.image_range or options.value_range
        comparison = Comparison(reference, candidate, inputs, limits, sizes, image_range, probes)
        outputs = comparison.results(pairs)
        if precision == "fp16" and "CPUExecutionProvider" in candidate.name:
            notes += ("a CPU may compute FP16 in float32, so that no overflow is seen",)
        return VerifyResult(
            motorvae=own_version(),
            passed=all(output.passed for output in outputs),
            verdict=verdict_of(
                outputs,
                candidate=f"{candidate.path.name} in {candidate.name}",
                images=len(inputs.rows),
                held=f"{precision} limits" + (f" and {options.limits}" if options.limits else ""),
            ),
            reference=reference.described(),
            candidate=candidate.described(),
            source=inputs.source,
            images=len(inputs.rows),
            skipped=inputs.skipped,
            preparation=_described(reference.spec, pairs),
            precision=precision,
            limits=_by_name(limits),
            batch_sizes=sizes,
            outputs=outputs,
            notes=(*inputs.notes, *notes),
        )


def _sizes(options: VerifyOptions, fixed: int | None) -> tuple[int, ...]:
    """Return how many images a run of the candidate takes, in turn."""
    if fixed is None:
        return options.sizes
    if options.batch_sizes and set(options.batch_sizes) != {fixed}:
        raise ConfigError(
            f"batch_sizes={options.batch_sizes}: {options.candidate} is fixed to batches of "
            f"{fixed}: leave it out"
        )
    return (fixed,)


def _described(spec: ModelSpec | None, pairs: tuple[Pair, ...]) -> ModelSpec | None:
    """Return the spec with what the graphs were found to give."""
    latent = next((pair.shape for pair in pairs if pair.kind in {"mu", "latent"}), None)
    if spec is None or latent is None:
        return spec
    facts: dict[str, Any] = {
        "latent_size": math.prod(latent),
        "latent_shape": latent if len(latent) > 1 else (),
        "has_log_var": any(pair.kind == "log_var" for pair in pairs),
        "has_decoder": any(pair.kind == "image" for pair in pairs),
    }
    return spec.model_copy(update=facts)


def _by_name(limits: Limits) -> dict[str, float | None]:
    """Return limits as JSON has them: what holds for all has none."""
    named: dict[str, float | None] = asdict(limits)
    return {
        name: None if value is None or math.isinf(value) else value
        for name, value in named.items()
        if name not in NOT_HELD
    }
