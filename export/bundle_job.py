"""A bundle made or added to by a command: refusals first, then graphs, then engines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ..runtime.bundle.graph_key import TARGETS, Part, Precision
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import HELD_OUT, SIGNATURE, GraphReport, Origin
from ..runtime.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    EngineError,
    OutputError,
    VerificationError,
    needed_for,
    next_command,
    sentence_list,
)
from ..runtime.core.spec import ModelSpec
from ..runtime.core.system.locks import output_locked
from ..runtime.engines.gpu_info import NoGpu
from ..runtime.engines.tensorrt.package import TensorRTPackage
from ..runtime.signing.bundle_signature import still_signed
from .options import NO_ROUTES, BundleOptions, PrecisionOptions
from .steps import steps_shown
from .tables import engine_table, routes_table, search_table, verification_table
from .tensorrt.add_engines import add_engines_to_bundle, find_builder, profile_from_text
from .tensorrt.build import EngineBuildRequest
from .tensorrt.dla import DlaRequest, check_dla
from .tensorrt.int8_speed import with_fp16_to_compare

if TYPE_CHECKING:
    import onnx_ir as ir

    from .int8.graphs import Searched
    from .verify.reference import Reference

NAMES: dict[Precision, str] = {"fp16": "FP16", "bf16": "bf16", "int8": "INT8"}

Make = Callable[[set[str]], "tuple[Searched, ...]"]
"""Makes a bundle's graphs, given what it will hold, engines included; returns INT8 graphs that did
not pass."""


class Measured(NamedTuple):
    """What a bundle's graphs are compared with, and the statistics that it takes along."""

    reference: Reference
    held_out: npt.NDArray[np.uint8]  # (N, *picture_shape), all of them
    statistics: Path


@dataclass(frozen=True, slots=True)
class NewBundle:
    """A model that becomes a bundle; what takes long is done where it is needed."""

    name: str  # as in "bundle of ..."
    spec: ModelSpec
    weights_sha256: str
    graphs: Callable[[], Mapping[Part, ir.Model]]  # float32
    measured: Callable[[], Measured]
    origin: Origin | None = None
    remarks: tuple[str, ...] = ()
    advice: str = ""  # where it has learned too little; by default what training would need


@contextlib.contextmanager
def told_of_signature(path: Path, console: Console) -> Iterator[None]:
    """Say afterwards where a bundle was signed and what the block did to it was not."""
    was_signed = (path / SIGNATURE).exists()
    try:
        yield
    finally:
        if was_signed and not still_signed(path):
            again = next_command("motorvae", "sign", path)
            console.print(f"the signature of {path} no longer holds: {again}")


class BundleJob:
    """What a command does to a bundle beside making its float32 graphs.

    A ConfigError or EngineError is raised at once where a builder that is asked for by name is
    not here.
    """

    def __init__(self, options: BundleOptions, console: Console) -> None:
        self.options, self.console = options, console
        self._profile = profile_from_text(options.batch)
        choice = options.engine if options.engine_precisions else "none"
        self._dla = None
        if options.use_dla_core is not None:
            choice = "tensorrt"  # or an error that says why not
            self._dla = DlaRequest(options.use_dla_core, fallback=options.allow_gpu_fallback)
        self._builder, self._gpu = find_builder(choice)
        if self._dla is not None and not isinstance(self._builder, str):
            check_dla(self._builder, self._dla)
        if options.tune:
            self._check_tune()

    def _check_tune(self) -> None:
        """Refuse, with an EngineError, to let build routes compete where that cannot be."""
        builder, gpu = self._builder, self._gpu
        if isinstance(gpu, NoGpu) or isinstance(builder, str):
            missing = gpu.reason if isinstance(gpu, NoGpu) else builder
            raise EngineError(
                f"--tune keeps the fastest engine, which only the GPU can tell, and here is "
                f"{missing}: run the same command with --model on the machine that has it, or "
                "leave out --tune"
            )
        if builder.is_rtx:
            raise EngineError(NO_ROUTES)

    def run(self, path: Path, make: Make) -> None:
        """Make the bundle at `path`, while nobody else adds to it or replaces it, with its engines.

        A VerificationError says which INT8 graphs did not pass; the bundle is there without them.
        """
        with told_of_signature(path, self.console), output_locked(path.resolve()):
            self._run_locked(path, make)

    def _run_locked(self, path: Path, make: Make) -> None:
        options, console = self.options, self.console
        engines, builder = options.engine_precisions, self._builder
        made = {f"{name} graphs" for name in options.precisions if name != "int8"}
        made |= {f"int8 graphs for {target}" for target in options.targets}
        if not isinstance(builder, str):
            made |= {f"{name} engines of {builder.name}" for name in engines}
        left_out = make(made)
        if any((one.key.target, one.key.part) == ("tensorrt", "encoder") for one in left_out):
            engines = tuple(name for name in engines if name != "int8")
        if isinstance(builder, str) and engines:
            flags = [f"--{name}" for name in engines]
            if options.targets != TARGETS and "int8" in engines:
                flags.append("tensorrt")  # of --int8, which comes last
            command = next_command("motorvae-export", "--model", path, *flags)
            console.print(
                f"no engine was built: {builder}; on the machine that will run it: {command}"
            )
        elif not isinstance(builder, str):
            self._build_engines(path, engines, builder)
        if left_out:
            clauses = dict.fromkeys(one.sentence for one in left_out)
            raise VerificationError(
                f"{path} is there, but not all of it: {'; '.join(clauses)}; calibrate on more of "
                "what the camera will see with --calibration, train for more steps, or use another "
                "precision"
            )

    def _build_engines(
        self, path: Path, engines: tuple[Precision, ...], builder: TensorRTPackage
    ) -> None:
        options, console = self.options, self.console
        request = EngineBuildRequest(
            builder,
            self._gpu,
            "int8",
            self._profile,
            options.workspace_mib,
            dla=self._dla,
            tune_minutes=options.minutes_to_tune,
        )
        with_fp16 = with_fp16_to_compare(load_bundle(path), engines, request)
        if with_fp16 != engines:
            # Tuned alike: else the settings would be measured, and not the precision.
            tuned = " and tuned" if options.tune else ""
            console.print(f"FP16 engines are built{tuned} as well, to measure INT8 against them")
        for precision in with_fp16:
            try:
                built = add_engines_to_bundle(
                    load_bundle(path),
                    replace(request, precision=precision),
                    console,
                    on_reports=partial(show_reports, console),
                )
            except (EngineError, VerificationError) as error:
                if precision in engines:
                    raise
                console.print(f"no {precision} engine was built, and none was asked for: {error}")
                continue
            if built:  # INT8 engines that are no faster are not kept
                console.print(engine_table(built))
            for one in built:
                if one.routes:
                    console.print(routes_table(one))
            reasons = {one.verification.reason for one in built}
            for reason in sorted(reason for reason in reasons if reason):
                console.print(f"not verified: {reason}")

    def write(
        self, output: Path, made: set[str], model: Callable[[], NewBundle]
    ) -> tuple[Searched, ...]:
        """Write a whole bundle; `made` is what it will hold, engines included.

        Where `output` is of the same weights and graphs, it gets what it lacks. Return the INT8
        graphs that did not pass.

        Raises:
            OutputError: `output` holds what this would not make again, or is no bundle.
            CheckpointError: The model has learned too little.
        """
        from ..training.learned import learned_from_reconstructions  # noqa: PLC0415  # as below
        from .bundle import check_replaceable, write_bundle  # noqa: PLC0415  # needs onnx
        from .onnx_form import is_exported_as  # noqa: PLC0415  # as above

        options, console = self.options, self.console
        held = check_replaceable(output)
        new = model()
        graphs = cache(new.graphs)
        lost = sorted(held - made)
        # Engines of the same weights stay until new ones stand: a build can fail or be interrupted.
        has_engines = any("engines of" in part for part in held)
        if (lost or has_engines) and not options.replace:
            bundle = None
            with contextlib.suppress(BundleError):
                bundle = load_bundle(output)
            is_same = bundle is not None and bundle.manifest.weights_sha256 == new.weights_sha256
            if bundle and is_same and bundle.spec == new.spec and is_exported_as(bundle, graphs()):
                console.print(f"{output} is of the same weights, and what it holds is kept")
                return extend_bundle(options, console, bundle)
            if lost:
                raise OutputError(
                    f"{output} holds {sentence_list(lost)}, which this export would not make "
                    "again: ask for them as well, name another --output, or let them go with "
                    "--replace"
                )
        with steps_shown(console, "computing what the graphs are compared with"):
            reference, held_out, statistics = new.measured()
            learned = learned_from_reconstructions(
                reference.images, reference.reconstruction, reference.mu, reference.log_var
            )
            problem = learned.sentence()
            if problem and new.advice:
                problem = f"{sentence_list(learned.problems)}; {new.advice}"
        if problem and not options.anyway:
            raise CheckpointError(
                f"the model of {new.name} has learned too little, no bundle was written: "
                f"{problem}; or export it --anyway"
            )
        remarks = [*new.remarks, *([f"learned too little: {problem}"] if problem else [])]
        if len(reference.images) == 1:
            remarks.append("one held-out image cannot tell whether its model has learned anything")
        for remark in remarks:
            console.print(f"warning: this model: {remark}")
        made_graphs = graphs()
        with steps_shown(console, "float32 graphs") as show:
            left_out = write_bundle(
                output,
                graphs=made_graphs,
                spec=new.spec,
                weights_sha256=new.weights_sha256,
                statistics=statistics,
                reference=reference,
                origin=new.origin,
                remarks=remarks,
                held_out=held_out,
                precisions=options.precisions,
                keep_float32=options.kept,
                targets=options.targets,
                calibration=options.calibration,
                prune_channels=options.prune_channels,
                external_data=options.external_data,
                on_reports=partial(show_reports, console),
                on_step=show,
                on_remark=lambda line: console.print(f"warning: {line}"),
            )
        size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
        console.print(f"bundle of {new.name} in {output}, {size / 1e6:.1f} MB")
        return left_out


def extend_bundle(
    options: PrecisionOptions, console: Console, bundle: Bundle
) -> tuple[Searched, ...]:
    """Add what is asked for and not there; only that needs the ONNX packages."""
    targets = options.targets
    there = {(entry.precision, entry.made_for) for entry in bundle.manifest.graphs}
    missing = tuple(target for target in targets if ("int8", target) not in there)
    asked = {
        "--calibration": options.calibration != HELD_OUT,
        "--prune-channels": options.prune_channels,
    }
    if targets and not missing and any(asked.values()):
        name = next(name for name, is_asked in asked.items() if is_asked)
        raise ConfigError(
            f"{bundle.folder} has INT8 graphs already, and {name} would change nothing: "
            "export the checkpoint again with it and --replace, or leave it out"
        )
    if options.prune_channels and bundle.spec.channels is None:
        raise ConfigError(
            "--prune-channels is for encoders of the card's network, and this bundle has another: "
            "leave it out"
        )
    precisions = {precision for precision, _ in there}
    if options.kept and "fp16" in precisions:
        raise ConfigError(
            f"{bundle.folder} has FP16 graphs already, and --keep-float32 would change nothing: "
            "export again with it and --replace, or leave it out"
        )
    lacking = [name for name in options.precisions if name not in precisions]
    if missing and "int8" in precisions:  # those for some engines are there
        lacking.append("int8")
    for name in options.precisions:
        present = [target for target in targets if target not in missing]
        of = f" for {' and '.join(present)}" if name == "int8" and missing else ""
        if name in precisions and (name != "int8" or present):
            console.print(f"{bundle.folder} has {NAMES[name]} graphs{of} already")
    if not lacking:
        if not options.external_data and any(one.stored for one in bundle.manifest.graphs):
            with needed_for("writing graphs", extra="export,cpu"):
                from .shared_weights import weights_into_graphs  # noqa: PLC0415
            weights_into_graphs(bundle)
            console.print(f"each graph of {bundle.folder} has its weights inside")
        return ()
    with needed_for("deriving a precision", extra="export,cpu"):
        from .bundle import add_to_bundle  # noqa: PLC0415

    with steps_shown(console, "reading the bundle") as show:
        left_out = add_to_bundle(
            bundle,
            lacking,
            keep_float32=options.kept,
            targets=missing,
            calibration=options.calibration,
            prune_channels=options.prune_channels,
            external_data=options.external_data,
            on_reports=partial(show_reports, console),
            on_step=show,
            on_remark=lambda line: console.print(f"warning: {line}"),
        )
    refused = {one.key.target for one in left_out if one.key.part == "encoder"}
    added = [name for name in lacking if name != "int8" or set(missing) - refused]
    if added:
        names = " and ".join(NAMES[precision] for precision in added)
        console.print(f"{names} graphs added to {bundle.folder}")
    return left_out


def show_reports(
    console: Console, reports: Sequence[GraphReport], searched: Sequence[Searched] = ()
) -> None:
    """Print the tables of searches and verifications, with all that is to know of them."""
    if tried := [one for one in searched if one.trials]:
        console.print(search_table(tried))
    console.print(verification_table(reports))
    for engine in sorted({report.engine for report in reports}):
        console.print(engine)
    precisions: dict[tuple[str, int], dict[str, None]] = {}
    for report in reports:
        precisions.setdefault((report.reference, report.images), {})[report.precision] = None
    for (reference, images), of in sorted(precisions.items()):
        console.print(f"{', '.join(of)} against {reference} on {images} held-out images")
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        console.print(f"note: {note}")
