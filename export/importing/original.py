"""Checkpoints of the original motorVAE project, whose first networks are the model card's."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import os
import platform
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...runtime.bundle.manifest import Origin
from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.documents import save_document
from ...runtime.core.errors import (
    CheckpointError,
    ConfigError,
    OutputError,
    next_command,
    sentence_list,
    writing_output,
)
from ...runtime.core.packages import versions_of
from ...runtime.core.spec import ModelSpec, spec_from_options
from ...runtime.core.system.renames import rename_new
from ...runtime.core.system.temporaries import temporary_beside
from ...training.checkpoint import (
    CONFIG_NAME,
    LATENTS_NAME,
    DataSummary,
    RunConfig,
    save_weights,
)
from ...training.dataset import DataSet
from ...training.latent_statistics import (
    latent_statistics,
    save_held_out,
    save_latents,
    save_train_latents,
    train_outputs,
)
from ...training.model import MotorVAE, decoding_of, encoding_of
from ...training.options import TrainOptions
from ...training.run_folder import new_run_folder, point_latest_at
from ..bundle_job import BundleJob
from ..cli import run_export
from ..options import BundleOptions, ExportOptions
from ..steps import steps_shown
from .images import prepared_images
from .options import ImportOptions
from .weights_file import Weights, tensors_from_file

PROJECT = "motorVAE by Brenden Eum"
_HEADS = {"fc_mu": "encoder.mu", "fc_var": "encoder.log_var", "decoder_input": "decoder.linear"}
_LATER = ("encoder.conv1.", "encoder.fc.", "encoder.fc_mean.", "decoder.deconv1.")
"""Beginnings of names in later generations: 4 x 4 kernels, and a layer of 1024 before the heads."""
_ELSEWHERE = "import it with --module, or export it to ONNX and import that"


class OriginalWeights(NamedTuple):
    """A checkpoint by our names, and the sizes that its tensors have."""

    tensors: Weights
    sizes: dict[str, Any]  # fields of a spec
    notes: tuple[str, ...]


def weights_from_original(path: Path) -> OriginalWeights:
    """Read a checkpoint of the original project that has the card's network.

    A CheckpointError for another network, or a file that cannot be read without unpickling.
    """
    tensors, notes = tensors_from_file(path)
    dropped = [name for name in tensors if name.startswith("discriminator.")]
    if dropped:
        notes += (f"discriminator: {len(dropped)} tensors are left out",)
    kept = {name: value for name, value in tensors.items() if name not in dropped}
    if later := [name for name in kept if name.startswith(_LATER)]:
        raise CheckpointError(
            f"{path} is of a later generation of {PROJECT}, which is another network than the "
            f"model card's ({later[0]} is {_shape(kept[later[0]])}): {_ELSEWHERE}"
        )
    sizes = _sizes(path, kept)
    last = len(sizes["channels"]) - 1
    named = {_our_name(name, last): value for name, value in kept.items()}
    return OriginalWeights(named, sizes, notes)


def model_from_original(path: Path, found: OriginalWeights, spec: ModelSpec) -> MotorVAE:
    """Return the model of these weights, in evaluation mode; a CheckpointError where some lack."""
    with torch.device("meta"):
        model = MotorVAE(spec)
    wanted = model.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - found.tensors.keys()),
        "unexpected": sorted(found.tensors.keys() - wanted.keys()),
        "of another shape": [
            f"{name} {_shape(found.tensors[name])}"
            for name in sorted(wanted.keys() & found.tensors.keys())
            if found.tensors[name].shape != wanted[name].shape
        ],
        "not finite": [
            name for name, value in found.tensors.items() if not bool(value.isfinite().all())
        ],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{what}: {sentence_list(names[:4])}" for what, names in problems.items() if names
        )
        raise CheckpointError(f"{path} is not the model card's network, {listed}: {_ELSEWHERE}")
    tensors = {
        name: value.to(wanted[name].dtype).contiguous() for name, value in found.tensors.items()
    }
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def run_from_original(options: ImportOptions, job: BundleJob) -> Path:
    """Make a run of a checkpoint, as motorvae-export takes them, and return its folder.

    Where a bundle is asked for it is written too, and returned instead.
    """
    path, console = Path(str(options.what)), job.console
    target = options.run or Path("runs") / path.stem
    if os.path.lexists(target):
        raise OutputError(f"{target} exists: name another --run, or move it away")
    found = weights_from_original(path)
    for note in found.notes:
        console.print(f"note: {note}")
    _check_sizes(options, found)
    spec = spec_from_options(**options.preparation(is_original=True, **found.sizes))
    if spec.scales:
        raise ConfigError(
            "--value-range, --mean and --std are not for a checkpoint of the model card's network, "
            "which takes [0, 1]: leave them out"
        )
    model = model_from_original(path, found, spec)
    box = "" if spec.crop_box is None else f", crop box {tuple(map(round, spec.crop_box))}"
    console.print(
        f"{len(found.tensors)} tensors; images are prepared with --fit {spec.fit}"
        f"{box}, --interpolation {spec.interpolation}; --preset none for other images"
    )
    origin = Origin(
        kind="checkpoint", name=PROJECT, files={path.name: sha256_of(path)}, notes=found.notes
    )
    with contextlib.ExitStack() as stack:
        data, _ = stack.enter_context(prepared_images(options, spec, target, console))
        asked = TrainOptions(
            data=str(options.images), output=target.parent, name=target.name, **_sizes_of(spec)
        )
        folder = stack.enter_context(new_run_folder(asked))
        with writing_output(folder), temporary_beside(folder) as made:
            made.mkdir()
            with steps_shown(console, "measuring the latents"):
                _write_run(made, model, data, asked, origin)
            rename_new(made, folder)
        point_latest_at(folder)
    console.print(f"run of {path.name} in {folder}")
    if not options.wants_bundle:
        console.print(f"next: {next_command('motorvae-export', folder)}")
        return folder
    shared = {one.name: getattr(options, one.name) for one in fields(BundleOptions)}
    return run_export(ExportOptions(checkpoint=folder, **shared), console)


def _write_run(
    folder: Path, model: MotorVAE, data: DataSet, options: TrainOptions, origin: Origin
) -> None:
    config = RunConfig(
        started=dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        model=model.spec,
        options=options,
        data=DataSummary.of(options.data, data),
        precision="32-true",
        versions={"python": platform.python_version()}
        | versions_of(("motorvae", "torch", "numpy", "safetensors")),
        origin=origin,
    )
    save_document(folder / CONFIG_NAME, config, indent=2)
    save_held_out(folder, data)
    encode, decode = encoding_of(model), decoding_of(model)
    train = train_outputs(data, model.spec, encode)
    statistics = latent_statistics(data, model.spec, encode, decode, train=train)
    save_latents(folder / LATENTS_NAME, statistics)
    save_train_latents(folder, data, train, model.spec)
    save_weights(folder, model.state_dict())


def _sizes_of(spec: ModelSpec) -> dict[str, Any]:
    names = TrainOptions.GROUPS["model"]
    return {name: getattr(spec, name) for name in names}


def _check_sizes(options: ImportOptions, found: OriginalWeights) -> None:
    for name in ("image_size", "color"):
        asked = getattr(options, name)
        if asked not in {None, found.sizes[name]}:
            raise ConfigError(
                f"--{name.replace('_', '-')} {asked}: the weights are of {found.sizes[name]}: "
                "leave it out"
            )


def _sizes(path: Path, tensors: Weights) -> dict[str, Any]:
    """Read the sizes of a network from the shapes of its tensors."""
    convolutions: list[torch.Tensor] = []
    while (name := f"encoder.{len(convolutions)}.0.weight") in tensors:
        convolutions.append(tensors[name])
    heads = [tensors.get(f"{name}.weight") for name in ("fc_mu", "fc_var")]
    if not convolutions or any(head is None or head.ndim != 2 for head in heads):
        first = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{path} is no checkpoint of {PROJECT}: it lacks encoder.0.0.weight, fc_mu.weight or "
            f"fc_var.weight, and begins with {first}: {_ELSEWHERE}"
        )
    for level, one in enumerate(convolutions):
        if one.ndim != 4 or tuple(one.shape[2:]) != (3, 3):
            raise CheckpointError(
                f"{path} is another network than the model card's: encoder.{level}.0.weight is "
                f"{_shape(one)}, and its kernels are 3 x 3: {_ELSEWHERE}"
            )
    channels = tuple(len(one) for one in convolutions)
    latents, flat = tensors["fc_mu.weight"].shape
    cells = math.isqrt(flat // channels[-1])
    colors = convolutions[0].shape[1]
    if channels[-1] * cells**2 != flat or colors not in {1, 3}:
        raise CheckpointError(
            f"{path} is another network than the model card's: fc_mu.weight is "
            f"{_shape(tensors['fc_mu.weight'])}, and encoder.0.0.weight "
            f"{_shape(convolutions[0])}: {_ELSEWHERE}"
        )
    return {
        "image_size": cells * 2 ** len(channels),
        "color": "grey" if colors == 1 else "rgb",
        "channels": channels,
        "latent_size": latents,
    }


def _our_name(name: str, last: int) -> str:
    """Return what we call a tensor; `last` is the number of the last block of each half."""
    head, _, rest = name.partition(".")
    if head in _HEADS:
        return f"{_HEADS[head]}.{rest}"
    block, _, rest = rest.partition(".")
    layer, _, rest = rest.partition(".")
    if not (block.isdecimal() and layer.isdecimal()):
        return name
    if (head, int(block), int(layer)) == ("decoder", last, 3):
        return f"decoder.image.{rest}"
    return f"{head}.features.{3 * int(block) + int(layer)}.{rest}"


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
