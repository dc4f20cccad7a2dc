"""motorvae import: weights from elsewhere, and images, to a run or a bundle."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from ...runtime.core.command import Command, print_sentence, stderr_console
from ...runtime.core.errors import ConfigError, needed_for, next_command
from ...runtime.core.lifecycle import loading
from ...runtime.core.text import printable
from ..bundle_job import BundleJob
from ..options import DEFAULT_OUTPUT
from ..steps import steps_shown
from .options import ImportOptions

if TYPE_CHECKING:
    from ..bundle_job import NewBundle
    from ..int8.graphs import Searched
    from .user_model import UserModel

Kind = Literal["checkpoint", "onnx", "module", "diffusers"]
_WORDS: dict[Kind, str] = {
    "checkpoint": "a checkpoint",
    "onnx": "an .onnx file",
    "module": "--module",
    "diffusers": "a folder of diffusers",
}
_USED_BY: dict[str, tuple[Kind, ...]] = {
    "decoder": ("onnx",),
    "inputs": ("onnx",),
    "outputs": ("onnx",),
    "run": ("checkpoint",),
}
"""Options that some ways have no use for."""
CHECKPOINTS = (".pth", ".pt", ".safetensors")


def _import(options: ImportOptions, _words: Sequence[str] = ()) -> None:
    run_import(options, stderr_console())


def run_import(options: ImportOptions, console: Console) -> Path:
    """Import weights as `motorvae import` does; return the bundle, or the run of a checkpoint.

    Raises:
        GraphError: An ONNX file cannot be imported.
        CheckpointError: Weights cannot be read, do not fit, or have learned too little.
        VerificationError: A graph drifted past its limit. Where only INT8 graphs did, the bundle
            is there without them.
        MotorVAEError: An option contradicts another, or something cannot be read, built or written.
    """
    options.check()
    tempfile.gettempdir()
    kind = _kind_of(options)
    with needed_for("importing weights", extra="export,cpu"), loading():
        from .images import check_images  # noqa: PLC0415  # nothing is loaded for its help
    check_images(options)
    job = BundleJob(options, console)
    if kind == "checkpoint":
        needed = needed_for("importing a checkpoint", extra="train,export,cpu")
        with needed, loading(), steps_shown(console, "loading torch"):
            from .original import run_from_original  # noqa: PLC0415  # torch
        return run_from_original(options, job)
    path = options.bundle
    job.run(path, lambda made: _made(options, job, path, made, kind))
    model = [] if path == DEFAULT_OUTPUT else ["--model", path]
    console.print(f"next: {next_command('motorvae-stream', '0', *model)}")
    return path


def _kind_of(options: ImportOptions) -> Kind:
    """Return what is to be imported; a ConfigError where it is nothing that is known."""
    if options.module is not None:
        return "module"
    what = Path(str(options.what))
    if what.suffix in CHECKPOINTS:
        kind: Kind = "checkpoint"
    elif what.is_dir():
        kind = "diffusers"
    else:
        kind = "onnx"
    if not what.exists():
        raise ConfigError(f"{what} does not exist: name the weights to import")
    if kind == "onnx" and what.suffix != ".onnx":
        raise ConfigError(
            f"{what} is no .onnx file, no folder and no checkpoint ({', '.join(CHECKPOINTS)}): "
            "name one of these, or a module of yours with --module"
        )
    for option, used in _USED_BY.items():
        if getattr(options, option) not in {None, ()} and kind not in used:
            raise ConfigError(
                f"--{option.replace('_', '-')} is not for {what}: leave it out, it is for "
                f"{' and '.join(_WORDS[one] for one in used)}"
            )
    return kind


def _made(
    options: ImportOptions, job: BundleJob, path: Path, made: set[str], kind: Kind
) -> tuple[Searched, ...]:
    """Read the weights and the images, and write the bundle, while nobody else writes there."""
    from .images import prepared_images  # noqa: PLC0415  # see `run_import`
    from .user_model import bundle_of  # noqa: PLC0415

    with contextlib.ExitStack() as stack:

        def new() -> NewBundle:
            with steps_shown(job.console, "reading the weights"):
                model = stack.enter_context(_opened(options, kind))
            for note in model.notes:
                print_sentence(job.console, f"note: {printable(note)}")
            prepared = prepared_images(options, model.spec, path, job.console)
            data, folder = stack.enter_context(prepared)
            return bundle_of(model, data, folder, job.console)

        return job.write(path, made, new)


@contextlib.contextmanager
def _opened(options: ImportOptions, kind: Kind) -> Iterator[UserModel]:
    """Read and understand the weights; each way loads its own packages, and nothing else."""
    if kind == "onnx":
        from .onnx_pair import model_from_onnx  # noqa: PLC0415

        yield model_from_onnx(options, Path(str(options.what)))
        return
    with needed_for("importing a module", extra="train,export,cpu"), loading():
        from .torch_module import model_from_module, module_from_name  # noqa: PLC0415  # torch
    with tempfile.TemporaryDirectory(prefix="motorvae-import-") as name:
        if kind == "module":
            yield model_from_module(options, module_from_name(options), Path(name))
            return
        needed = needed_for("importing an autoencoder of diffusers", extra="diffusers,export,cpu")
        with needed, loading():
            from .diffusers_folder import module_from_folder  # noqa: PLC0415  # which is large
        yield model_from_module(options, module_from_folder(Path(str(options.what))), Path(name))


import_main = Command(
    ImportOptions,
    _import,
    "import weights from elsewhere, and images, to a run or a bundle",
    prog="motorvae import",
    positional=("--what",),
)
