"""A run or a bundle as a folder in Hugging Face form, and such a folder as a run or a bundle."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.bundle.load import load_bundle
from ...runtime.core.documents import document_from_json
from ...runtime.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    OutputError,
    needed_for,
    writing_output,
)
from ...runtime.core.system.renames import rename_new
from ...runtime.core.system.temporaries import temporary_beside
from ..explore.verbs.runs import METRICS, metrics_from_csv
from .explored import Explored, explored_in
from .files import CARD, Kind, check_model, files_of_model, kind_of
from .options import CardOptions

if TYPE_CHECKING:
    from ..checkpoint import RunConfig
    from .card import CardFacts


def save_folder(options: CardOptions, folder: Path) -> Kind:
    """Write a run or a bundle to a new folder in Hugging Face form, with its card.

    Raises:
        CheckpointError: A run cannot be read.
        BundleError: A bundle cannot be read.
        ConfigError: An option does not fit the model.
        OutputError: The folder exists, or cannot be written.
        MissingDependencyError: Without the package huggingface_hub.
    """
    with needed_for("a model card", extra="hub"):
        from .card import card_of, save_pictures  # noqa: PLC0415
    kind = kind_of(options.model)
    explored = _explored(options)
    check_new(folder)
    with writing_output(folder), temporary_beside(folder) as made:
        made.mkdir()
        facts = (_bundle_in if kind == "bundle" else _run_in)(options, made, explored)
        if explored is not None:
            save_pictures(explored, made)
        content = card_of(facts, is_bundle=kind == "bundle").content
        (made / CARD).write_text(content, encoding="utf-8")
        rename_new(made, folder)
    return kind


def copy_model(source: Path, folder: Path) -> Kind:
    """Copy a model's files, and no others, to a new folder, byte for byte, and check them.

    Raises:
        CheckpointError: It is no model, or a run whose weights do not fit; nothing is left.
        BundleError: A bundle is not whole; nothing is left.
        OutputError: The folder exists, or cannot be written.
    """
    check_new(folder)
    with writing_output(folder), temporary_beside(folder) as made:
        made.mkdir()
        kind = _copied(source, made)
        rename_new(made, folder)
    return kind


def check_new(folder: Path) -> None:
    """Raise an OutputError where something is there already."""
    if folder.exists():
        raise OutputError(f"{folder} exists: name another --output, or move it away")


def _copied(source: Path, folder: Path) -> Kind:
    if kind_of(source) == "run":
        check_model(source)  # before any of it is written, whatever its size
    for name in files_of_model(source):
        if (source / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)
    try:
        return check_model(folder)
    except (BundleError, CheckpointError) as error:
        # By the name that the user knows: the copy is about to be removed.
        raise type(error)(str(error).replace(str(folder), str(source))) from error


def _explored(options: CardOptions) -> Explored | None:
    if options.explore is not None and not options.explore.is_dir():
        raise ConfigError(f"--explore={options.explore}: there is no such folder")
    folder = options.explore or options.model / "explore"
    return explored_in(folder) if folder.is_dir() else None


def _bundle_in(options: CardOptions, folder: Path, explored: Explored | None) -> CardFacts:
    from .card import CardFacts  # noqa: PLC0415  # see `save_folder`

    for name in ("half", "bundle"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is for a run, and {options.model} is a bundle")
    _copied(options.model, folder)
    manifest = load_bundle(folder).manifest
    return CardFacts(
        options.model.resolve().name,
        manifest.model,
        manifest=manifest,
        origin=manifest.origin,
        explored=explored,
        license=options.license,
    )


def _run_in(options: CardOptions, folder: Path, explored: Explored | None) -> CardFacts:
    with needed_for("a run", extra="train,hub"):
        from ...runtime.core.atomic_files import sha256_of  # noqa: PLC0415
        from ..checkpoint import WEIGHTS_NAME  # noqa: PLC0415  # torch
        from ..pretrained.folder import write_model  # noqa: PLC0415  # as above

    manifest = None
    if options.bundle is not None:
        manifest = load_bundle(options.bundle).manifest
        if manifest.weights_sha256 != sha256_of(options.model / WEIGHTS_NAME):
            raise ConfigError(
                f"--bundle={options.bundle} was exported from other weights than those of "
                f"{options.model}: export that first"
            )
    config = write_model(options.model, folder, dtype="float16" if options.half else "float32")
    return facts_of_run(
        config,
        folder,
        name=options.model.resolve().name,
        manifest=manifest,
        explored=explored,
        license=options.license,
    )


def facts_of_run(config: RunConfig, folder: Path, **more: Any) -> CardFacts:
    """Return what a card says of a run, by its config, its measurements in a folder, and `more`.

    It names no path of this machine, whatever the config does.
    """
    from ..pretrained.folder import without_paths  # noqa: PLC0415  # torch
    from .card import CardFacts, Trained  # noqa: PLC0415  # see `save_folder`

    config = without_paths(config)
    trained = Trained(
        options=asdict(config.options),
        data=_data_in_words(config),
        is_drawn=config.data.kind == "vehicles",
        epoch=_kept_epoch(folder),
        precision=config.precision,
        is_half=config.weights_dtype == "float16",
    )
    return CardFacts(spec=config.model, trained=trained, origin=config.origin, **more)


def _data_in_words(config: RunConfig) -> str:
    data = config.data
    kind = "tar shards" if data.kind == "shards" else f"a {data.kind}"
    what = "built-in vehicles" if data.kind == "vehicles" else f"{kind}, {data.source}"
    return f"{data.train} training and {data.held_out} held-out images of {what}"


def _kept_epoch(folder: Path) -> dict[str, float]:
    """Return the row of metrics.csv that belongs to the weights, or nothing."""
    from ..checkpoint import KEPT_NAME, KeptWeights  # noqa: PLC0415  # see `_run_in`

    try:
        path = folder / KEPT_NAME
        kept = document_from_json(path, KeptWeights, error=CheckpointError, again="")
        rows = metrics_from_csv(folder / METRICS, needed=("epoch",))
    except CheckpointError:
        return {}  # an imported run has no epochs
    return next((row for row in rows if row["epoch"] == kept.best.epoch), {})
