"""motorvae explore live: what a stream sees in the latent space, in the Rerun view."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ....runtime.bundle.load import Bundle
from ....runtime.core.errors import ConfigError, needed_for
from ....runtime.core.lifecycle import stopping_on_signals
from ....runtime.core.row import RunFacts
from ....runtime.core.text import printable
from ....runtime.sinks.base import Sink
from ....runtime.sinks.open import check_view
from ....runtime.stream.run import Stream
from ..results import Result
from ..space.collection import Collection, collection_of_file, collection_of_subject
from ..subject import BUNDLE, Subject, open_subject
from .atlas import atlas_of
from .options import LiveOptions


def live(options: LiveOptions, step: Callable[[str], object]) -> Result:
    """Stream a camera to its end, or until a signal asks to stop, with the latent map beside it."""
    streamed = options.stream_options()
    check_view(streamed.view or ())  # before the map, which may take a minute
    with open_subject(replace(options, model=options.model or BUNDLE)) as subject:
        bundle = _bundle_of(subject)
        known = _known(options, subject, step)
    step(f"{options.method} of {known.source}")
    atlas = atlas_of(known, options.method, seed=options.seed)
    with needed_for("motorvae explore live", package="rerun-sdk", extra="view"):
        from .map_sink import MapSink  # noqa: PLC0415  # an extra of its own

    opened: list[MapSink] = []

    def view(output: str, facts: RunFacts) -> Sink:
        opened.append(MapSink(output, facts, atlas))
        return opened[0]

    in_main = threading.current_thread() is threading.main_thread()
    with Stream(bundle, streamed, view=view) as stream:
        step(f"{', '.join(stream.cameras)} in the latent map; Ctrl-C ends it")
        with stopping_on_signals(stream.stop) if in_main else nullcontext():
            for _ in stream:
                pass
    seen = list(opened[0].seen)
    outside = sum(bool(is_ood) for *_, is_ood in seen)
    frames = stream.stats.total.frames
    numbers = {
        "camera": [printable(name) for name in stream.cameras],
        "known": known.source,
        "method": options.method,
        "frames": frames,
        "out_of_distribution": outside,
        "recording": options.view,
    }
    places = np.array([one[1:3] for one in seen], np.float64).reshape(-1, 2)
    arrays: dict[str, npt.NDArray[Any]] = {
        "index": np.array([one[0] for one in seen], np.int64),
        "coordinates": places,
        "is_ood": np.array([-1 if one[3] is None else int(one[3]) for one in seen], np.int8),
        "known": atlas.known,
        "known_names": np.array(atlas.names),
    }
    where = "" if options.view is None else f", recorded in {options.view}"
    lines = [
        *known.remarks,
        f"{frames} frames of {', '.join(stream.cameras)} among {known.source}{where}; "
        f"{outside} of the last {len(seen)} out of distribution",
    ]
    return Result("live", numbers, arrays, lines)


def _bundle_of(subject: Subject) -> Bundle:
    if subject.bundle is None:
        raise ConfigError(
            f"--model={subject.folder} is a training run, and a stream takes a bundle: export it "
            "with motorvae-export"
        )
    return subject.bundle


def _known(options: LiveOptions, subject: Subject, step: Callable[[str], object]) -> Collection:
    if options.latents is None:
        return collection_of_subject(subject, step)
    return collection_of_file(
        options.latents,
        None,
        subject=subject,
        max_picture=options.max_picture,
        step=step,
        with_pictures=False,
    )
