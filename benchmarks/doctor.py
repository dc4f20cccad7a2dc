"""motorvae-doctor: what this machine can do, measured here and now; so far its GPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Union

import tyro

from ..runtime.bundle import load_bundle
from ..runtime.command import run_command, stderr_console
from ..runtime.driver import NoGpu, find_gpu
from ..runtime.errors import ConfigError, MeasurementError, missing_dependency
from ..runtime.files import check_replaceable_file, check_writable, set_aside


@dataclass(frozen=True)
class GpuOptions:
    """Build engines for this machine's GPU, gate them, time them, and write one JSON receipt."""

    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote; it stays as it is, engines are built in a copy."""
    checkpoint: Path | None = None
    """The training run that the bundle came from; with it and torch for CUDA, torch's FP16 encoder
    is measured, too."""
    output: Path = Path("doctor-gpu.json")
    """Where the receipt goes, a .json file; an earlier one is kept under a number."""
    frames: int = 1000
    """Images through each engine, one at a time."""


@dataclass(frozen=True)
class DoctorOptions:
    """Options of motorvae-doctor."""

    examine: Annotated[
        Union[  # noqa: UP007  # an annotation with a bar does not evaluate in Python 3.10
            Annotated[GpuOptions, tyro.conf.subcommand("gpu")],
            Annotated[None, tyro.conf.Suppress],  # a choice has two members at least
        ],
        tyro.conf.arg(name=""),
    ]
    """What to examine."""


def main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-doctor; return its exit code."""
    return run_command(
        DoctorOptions,
        _examine,
        prog="motorvae-doctor",
        description="Measure what this machine can do, and write it down to be shared.",
        args=args,
    )


def _examine(options: DoctorOptions) -> int:
    if options.examine is None:
        raise ConfigError("nothing to examine was named: motorvae-doctor gpu")
    return _gpu(options.examine)


def _gpu(options: GpuOptions) -> int:
    if options.output.suffix != ".json":
        raise ConfigError(f"--output {options.output}: name a file that ends in .json")
    if options.frames < 1:
        raise ConfigError(f"--frames {options.frames}: take 1 or more")
    check_replaceable_file(options.output)
    check_writable(options.output)
    gpu = find_gpu()
    if isinstance(gpu, NoGpu):
        raise MeasurementError(
            f"no GPU to examine: {gpu.reason}; run motorvae-doctor gpu on the machine that has "
            "one, or motorvae-bench to measure this processor"
        )
    if not options.model.exists():
        raise MeasurementError(
            f"no bundle at {options.model}: run motorvae-train and then motorvae-export --fp16, or "
            "name a bundle with --model"
        )
    bundle = load_bundle(options.model)
    try:
        from .doctor_gpu import Examination  # noqa: PLC0415  # with psutil: --help must not need it
        from .doctor_receipt import print_receipt  # noqa: PLC0415
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise missing_dependency("examining a GPU", package, extra="bench") from error
    console = stderr_console()
    kept = set_aside(options.output)
    if kept is not None:
        console.print(f"the earlier {options.output} is kept as {kept}")
    receipt = Examination(
        bundle=bundle,
        gpu=gpu,
        frames=options.frames,
        checkpoint=options.checkpoint,
        output=options.output,
        console=console,
    ).run()
    print_receipt(console, receipt)
    console.print(
        f"receipt in {options.output}: {len(receipt.measured)} of {len(receipt.rows)} rows "
        "measured; share that file as it is"
    )
    return 0 if receipt.passed else 1


if __name__ == "__main__":
    sys.exit(main())
