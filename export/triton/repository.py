"""write_repository: a bundle as a model repository, whole or not at all."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import MANIFEST, FileEntry, GraphEntry, Preprocessing
from ...runtime.core.atomic_files import check_writable, replaced_folder, sha256_of
from ...runtime.core.documents import document_from_json, json_from_document
from ...runtime.core.errors import BundleError, OutputError, shortened
from ...runtime.core.packages import own_version
from ...runtime.core.system.locks import output_locked
from ...runtime.core.system.temporaries import is_temporary
from .manifest import REPOSITORY_MANIFEST, REPOSITORY_VERSION, ModelEntry, RepositoryManifest
from .model_config import MODEL_FILES, config_text, ensemble_text
from .options import TritonOptions
from .readme import README, readme_text
from .served import Ensemble, Served, ServedModel, served_models

CONFIG = "config.pbtxt"

_ELSEWHERE = "name another folder for --triton, so that nothing is lost"


def check_place(folder: Path, bundle: Path, *, replace: bool) -> RepositoryManifest | None:
    """Refuse, with an OutputError, a folder that is not ours to replace, before work is spent.

    One that is absent or empty is fine, and so is a repository of ours that is as it was written:
    its manifest is returned. With `replace` it may have been changed since.
    """
    inside, outside = folder.resolve(), bundle.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise OutputError(
            f"--triton {folder} and the bundle {bundle} lie in one another: name a folder elsewhere"
        )
    check_writable(folder, or_folder=True)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file: {_ELSEWHERE}")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    path = folder / REPOSITORY_MANIFEST
    if not path.is_file():
        raise OutputError(f"{folder} is not empty, and no repository of ours: {_ELSEWHERE}")
    manifest = document_from_json(path, RepositoryManifest, error=OutputError, again=_ELSEWHERE)
    if replace:
        return manifest
    if changed := _changed(folder, manifest):
        raise OutputError(
            f"{folder} was changed since it was written ({shortened(changed)}): {_ELSEWHERE}, or "
            "let that go with --replace"
        )
    return manifest


def write_repository(
    bundle: Bundle, folder: Path, options: TritonOptions, *, replace: bool = False
) -> RepositoryManifest:
    """Write a bundle's graphs, or engines, as models of Triton; return what `motorvae.json` says.

    The folder appears in one step, and an earlier one of the same weights is replaced in one; of
    other weights, or changed since, only with `replace`. Needs neither torch nor onnx.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
        BundleError: The bundle lacks such graphs, or was altered.
        EngineFitError: It lacks such engines, or one is altered or of unknown origin.
        ConfigError: Options contradict one another, or do not go with the bundle's engines.
    """
    options.check_triton()
    served = served_models(bundle, options)
    with output_locked(folder.resolve()):
        earlier = check_place(folder, bundle.folder, replace=replace)
        weights = bundle.manifest.weights_sha256
        if earlier is not None and earlier.weights_sha256 != weights and not replace:
            raise OutputError(
                f"{folder} serves other weights (sha256 {earlier.weights_sha256[:12]}..., and the "
                f"bundle's are {weights[:12]}...): {_ELSEWHERE}, or replace it with --replace"
            )
        with replaced_folder(folder) as made:
            return _written(made, bundle, options, served)


def _written(
    folder: Path, bundle: Bundle, options: TritonOptions, served: Served
) -> RepositoryManifest:
    common = _identity(bundle)
    version = str(options.triton_version)
    for model in served.models:
        place = folder / model.name / version
        place.mkdir(parents=True)
        (place / MODEL_FILES[options.triton_platform]).write_bytes(model.read())
        text = config_text(
            model.name,
            model.signature,
            options,
            parameters=common | _of_graph(model.entry),
            is_bf16=model.entry.precision == "bf16",
        )
        (folder / model.name / CONFIG).write_text(text, encoding="utf-8")
    for ensemble in served.ensembles:
        # Triton wants a folder for each version, also of a model that has no file.
        (folder / ensemble.name / version).mkdir(parents=True)
        text = ensemble_text(
            ensemble.name,
            ensemble.signature,
            ensemble.steps,
            options,
            parameters=common | _of_graph(ensemble.encoder),
        )
        (folder / ensemble.name / CONFIG).write_text(text, encoding="utf-8")
    manifest = RepositoryManifest(
        schema_version=REPOSITORY_VERSION,
        producer=f"motorvae {own_version()}",
        created=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        weights_sha256=bundle.manifest.weights_sha256,
        manifest_sha256=common["motorvae.manifest_sha256"],
        platform=options.triton_platform,
        precision=served.precision,
        version=options.triton_version,
        model=bundle.spec,
        preprocessing=Preprocessing.of(bundle.spec),
        models=(*map(_entry, served.models), *map(_ensemble_entry, served.ensembles)),
        notes=(*bundle.manifest.remarks, *served.notes),
        files=(),
    )
    (folder / README).write_text(readme_text(manifest), encoding="utf-8")
    manifest = manifest.model_copy(update={"files": _files(folder)})
    (folder / REPOSITORY_MANIFEST).write_text(
        json_from_document(manifest, indent=2), encoding="utf-8"
    )
    return manifest


def _identity(bundle: Bundle) -> dict[str, str]:
    """Return what a client needs to know of the model: which it is, and how frames become input."""
    path = bundle.folder / MANIFEST
    try:
        manifest_sha256 = sha256_of(path)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; copy the bundle again") from error
    return {
        "motorvae.producer": f"motorvae {own_version()}",
        "motorvae.weights_sha256": bundle.manifest.weights_sha256,
        "motorvae.manifest_sha256": manifest_sha256,
        "motorvae.model": bundle.spec.model_dump_json(),
        "motorvae.preprocessing": Preprocessing.of(bundle.spec).model_dump_json(),
    }


def _of_graph(entry: GraphEntry) -> dict[str, str]:
    """Return the same of one graph; what takes a `frame` says of which kind."""
    said = {"motorvae.graph": entry.title, "motorvae.graph_sha256": entry.sha256}
    if entry.frame is not None:
        said["motorvae.frame"] = entry.frame.model_dump_json()
    return said


def _entry(model: ServedModel) -> ModelEntry:
    source = model.engine.engine if model.engine is not None else model.entry
    return ModelEntry(
        name=model.name,
        graph=model.entry.title,
        source=FileEntry(file=source.file, sha256=source.sha256, size_bytes=source.size_bytes),
        max_batch_size=model.signature.most,
        inputs=model.signature.inputs,
        outputs=model.signature.outputs,
        frame=model.entry.frame,
        notes=model.notes,
        verification=model.reports,
    )


def _ensemble_entry(ensemble: Ensemble) -> ModelEntry:
    return ModelEntry(
        name=ensemble.name,
        max_batch_size=ensemble.signature.most,
        inputs=ensemble.signature.inputs,
        outputs=ensemble.signature.outputs,
        frame=ensemble.encoder.frame,
        steps=tuple(step.model for step in ensemble.steps),
    )


def _files(folder: Path) -> tuple[FileEntry, ...]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        FileEntry.of(path).model_copy(update={"file": path.relative_to(folder).as_posix()})
        for path in found
    )


def _changed(folder: Path, manifest: RepositoryManifest) -> list[str]:
    """Return what in a repository of ours is not as we wrote it, and what is gone."""
    listed = {entry.file: entry for entry in manifest.files}
    folders = {parent.as_posix() for file in listed for parent in Path(file).parents}
    folders |= {f"{one.name}/{manifest.version}" for one in manifest.models}
    changed = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == REPOSITORY_MANIFEST or is_temporary(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            is_ours = name in folders
        else:
            is_ours = name in listed and not path.is_symlink() and _is_as(path, listed[name])
        if not is_ours:
            changed.append(name)
    return changed + [file for file in listed if not (folder / file).exists()]


def _is_as(path: Path, entry: FileEntry) -> bool:
    is_alike = path.is_file() and path.stat().st_size == entry.size_bytes
    return is_alike and sha256_of(path) == entry.sha256
