"""A run's folder: what makes it, and what completes it."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from ..runtime.core.documents import save_document
from ..runtime.core.errors import OutputError, OutputLockedError
from ..runtime.core.system.locks import output_locked
from ..runtime.core.system.temporaries import temporary_beside
from ..runtime.core.text import check_utf8
from .checkpoint import (
    CONFIG_NAME,
    KEPT_NAME,
    LAST_LATENTS_NAME,
    LAST_WEIGHTS_NAME,
    LATENTS_NAME,
    WEIGHTS_NAME,
    KeptEpoch,
    KeptWeights,
    save_weights,
)
from .latent_statistics import (
    latent_statistics,
    save_held_out,
    save_latents,
    save_train_latents,
    train_outputs,
)
from .learned import Learned, learned_from_reconstructions
from .loop.module import EpochRow, EpochWeights, VAETraining
from .loop.plots import save_loss, save_metrics, save_reconstructions
from .loop.resume_file import RESUME_NAME
from .model import decoding_of, encoding_of, weights_of
from .options import TrainOptions, resume_command

CACHE_NAME = "cache"
LATEST_NAME = "latest"
_JUDGED_IMAGES = 256


@contextlib.contextmanager
def new_run_folder(options: TrainOptions) -> Iterator[Path]:
    """Give the folder of a new run, which is not there yet and nobody else can take in the block.

    OutputError where it exists already, or somebody makes it.
    """
    name = options.name or dt.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    check_utf8(options.output / name, "TensorBoard")
    latest = options.output / LATEST_NAME
    if latest.exists() and not latest.is_symlink():
        raise OutputError(f"{latest} is in the way of the link to the newest run: move it away")
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    with contextlib.ExitStack() as stack:
        for folder in (options.output / one for one in names):
            try:
                stack.enter_context(output_locked(folder))
            except OutputLockedError:
                if options.name is not None:
                    raise
                continue
            if not os.path.lexists(folder):
                break
            if options.name is not None:
                raise OutputError(
                    f"{folder} exists: choose another --name, or go on with "
                    f"{resume_command(folder)}"
                )
            stack.pop_all().close()
        yield folder


def point_latest_at(folder: Path) -> None:
    """Let `latest` beside the run's folder lead to it, in one step."""
    latest = folder.parent / LATEST_NAME
    try:
        with temporary_beside(latest) as link:
            link.symlink_to(folder.name, target_is_directory=True)
            os.replace(link, latest)  # noqa: PTH105  # replaces the link itself
    except OSError as error:
        raise OutputError(
            f"cannot link {latest} to {folder.name}: {error.strerror}; "
            "choose an --output on a file system with links"
        ) from error


class Finished(NamedTuple):
    """What a finished run keeps; `learned` and `best`, its weights, are those of the best epoch."""

    kept: KeptWeights
    learned: Learned
    best: dict[str, torch.Tensor]


def finish_run(folder: Path, module: VAETraining) -> Finished:
    """Write all that only a finished run has but the file that says so; see `complete_run`.

    Afterwards the module has the weights of the best epoch. Each of the two files of weights has
    latent statistics of its own: those of other weights would call every image out of distribution.
    After an OutputError the run can still be resumed.
    """
    model = module.kept_model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch's stub lacks it
    last = EpochWeights(module.history[-1], weights_of(model))
    # A resume file of an earlier version has no best weights.
    best = module.best or last
    save_metrics(folder, module.history)
    save_loss(folder, module.history)
    save_held_out(folder, module.data)
    encode, decode = encoding_of(model), decoding_of(model)
    train = train_outputs(module.data, model.spec, encode)
    statistics = latent_statistics(module.data, model.spec, encode, decode, train=train)
    save_latents(folder / LAST_LATENTS_NAME, statistics)
    if best.row.epoch != last.row.epoch:
        model.load_state_dict(best.weights)
        train = train_outputs(module.data, model.spec, encode)
        statistics = latent_statistics(module.data, model.spec, encode, decode, train=train)
    save_latents(folder / LATENTS_NAME, statistics)
    save_train_latents(folder, module.data, train, model.spec)
    images, outputs = module.reconstructed(_JUDGED_IMAGES)
    save_reconstructions(folder, "best.png", images, outputs.reconstruction, module.data.color)
    learned = learned_from_reconstructions(images, *(part.numpy() for part in outputs))
    kept = KeptWeights(best=_kept(best.row, WEIGHTS_NAME), last=_kept(last.row, LAST_WEIGHTS_NAME))
    save_document(folder / KEPT_NAME, kept, indent=2)
    save_weights(folder, last.weights, LAST_WEIGHTS_NAME)
    return Finished(kept, learned, best.weights)


def complete_run(folder: Path, finished: Finished) -> None:
    """Write the weights, by which a run counts as finished, and remove what it needed until then.

    After an OutputError the run can still be resumed.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise OutputError(f"{folder} was moved or deleted while it was trained: start a new run")
    save_weights(folder, finished.best)
    remove_needed_until_then(folder)


def remove_needed_until_then(folder: Path) -> None:
    """Remove what a finished run needs no more; it is still there where its process was killed."""
    (folder / RESUME_NAME).unlink(missing_ok=True)
    shutil.rmtree(folder / CACHE_NAME, ignore_errors=True)


def _kept(row: EpochRow, file: str) -> KeptEpoch:
    facts = {name: value for name, value in asdict(row).items() if name in KeptEpoch.model_fields}
    return KeptEpoch(file=file, **facts)
