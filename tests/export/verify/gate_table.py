"""Hold the graphs of trained models, and planted wrong ones, to the gate; a table in Markdown.

python tests/export/verify/gate_table.py results.json run-folder [run-folder ...]

A run that is in the file of results already is not measured again. The rule before this one, for
comparison, judged `log_var` by its spread, held-out images alone, and in batches of 16.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from planted import PLANTED, ignores_its_input

from motorvae.export.bundle import BundleWriter
from motorvae.export.graph_folder import GraphFolder
from motorvae.export.onnx_export import onnx_from_model
from motorvae.export.transforms.fp16 import fp16_from_fp32
from motorvae.export.verify.batches import run_in_batches
from motorvae.export.verify.metrics import (
    Floats,
    floored_spread,
    largest,
    psnr_db,
    rms,
    share_of_limit,
    squared_errors,
)
from motorvae.export.verify.reference import Reference, held_out_from_run
from motorvae.export.verify.torch_reference import reference_from_model
from motorvae.export.verify.verifier import Verifier
from motorvae.runtime.bundle.graph_key import PARTS, GraphKey, Precision
from motorvae.runtime.bundle.manifest import GraphReport
from motorvae.runtime.core.errors import MotorVAEError, VerificationError
from motorvae.runtime.engines.open import EngineRequest, open_engine, open_file
from motorvae.runtime.pixels.convert import input_from_pixels
from motorvae.training.checkpoint import model_from_checkpoint
from motorvae.training.learned import learned_from_outputs

OLD_LIMITS: dict[Precision, tuple[float, float, float]] = {
    "fp32": (1e-3, 1e-4, 80.0),
    "fp16": (5e-2, 1e-2, 45.0),
    "bf16": (0.2, 5e-2, 45.0),
}
"""Largest and RMS error over the spread, of `mu` and `log_var`; least PSNR. Of bf16, the first two
are for the deviation in place of `log_var`."""
JUDGES = 64
"""So many held-out images judge planted graphs."""

Facts = dict[str, Any]


def facts_of(run: Path) -> Facts:
    """Export a run's graphs into a temporary folder, judge them, and plant every fault."""
    model, config = model_from_checkpoint(run)
    spec = config.model
    held_out = held_out_from_run(run, spec)
    reference = reference_from_model(model, *held_out)
    graphs = {graph: onnx_from_model(model, spec, graph) for graph in PARTS}
    facts: Facts = {
        "run": run.name,
        "data": Path(config.data.source).name,
        "image_size": spec.image_size,
        "channels": list(spec.channels),
        "latent_size": spec.latent_size,
        "betas": list(config.options.betas),
        "steps": _steps(run),
        "held_out": len(reference.images),
        "collapsed": int((~reference.informative).sum()),
        **_learned(reference),
    }
    with tempfile.TemporaryDirectory() as folder:
        writer = BundleWriter(GraphFolder(Path(folder), spec, "00" * 32), reference)
        writer.derive("fp32", lambda part: graphs[part].clone())
        found = {"fp32": _verdict(writer.reports)}
        for precision, add in (
            ("fp16", lambda: writer.derive("fp16", lambda part: writer.files.load(GraphKey(part)))),
            ("bf16", writer.add_bf16),
        ):
            before = len(writer.reports)
            try:
                add()
            except MotorVAEError as error:
                found[precision] = {"passed": False, "reason": str(error)}
            else:
                found[precision] = _verdict(writer.reports[before:])
        facts["new"] = found
        facts["old"] = {
            name: _old_failures(Path(folder), reference, name)
            for name, verdict in found.items()
            if "reason" not in verdict
        }
        facts["planted"], facts["planted_before"] = _planted(writer, reference)
    return facts


def _verdict(reports: Sequence[GraphReport]) -> Facts:
    shares: dict[str, float] = {}
    for report in reports:
        for metric in report.metrics:
            if metric.limit:
                name = f"{report.output}: {metric.name}"
                shares[name] = max(shares.get(name, 0), share_of_limit(metric))
    worst = max(shares, key=shares.__getitem__)
    return {
        "passed": all(report.passed for report in reports),
        "share": shares[worst],
        "worst": worst,
        "shares": {name: float(f"{share:.3g}") for name, share in shares.items()},
        "failures": [clause for report in reports for clause in report.failures],
    }


def _old_failures(folder: Path, reference: Reference, precision: Precision) -> list[str]:
    """Return what failed by the rule before, on the graphs with all outputs."""
    outputs: dict[str, Floats] = {}
    for graph, given in (
        ("encoder", input_from_pixels(reference.images[:, None])),
        ("decoder", None),
    ):
        path = folder / GraphKey(graph, precision).onnx_file  # type: ignore[arg-type]
        engine = "openvino" if precision == "bf16" else "onnx"
        opened = open_file(path, EngineRequest(engine, precision=precision))
        with opened as backend:
            outputs |= run_in_batches(backend, reference.mu if given is None else given)
    return _failed_before(outputs, reference, precision)


def _failed_before(
    outputs: Mapping[str, Floats], reference: Reference, precision: Precision
) -> list[str]:
    most, typical, psnr = OLD_LIMITS[precision]
    failed = []
    for name in outputs.keys() & {"mu", "log_var"}:
        true, spread = getattr(reference, name), getattr(reference.spread, name)
        error = (outputs[name].astype(np.float64) - true) / floored_spread(spread)
        if precision == "bf16" and name == "log_var":
            error = np.expm1((outputs[name].astype(np.float64) - true) / 2)
        for kind, value, limit in (("max", largest(error), most), ("RMS", rms(error), typical)):
            if not value <= limit:
                failed.append(f"{name} {kind} {value:.3g} (limit {limit:g})")
    if "reconstruction" in outputs:
        errors = squared_errors(outputs["reconstruction"], np.asarray(reference.reconstruction))
        value = psnr_db(float(errors.max()))
        if not value >= psnr:
            failed.append(f"PSNR {value:.3g} (limit {psnr:g})")
    return sorted(failed)


def _planted(writer: BundleWriter, reference: Reference) -> tuple[Facts, Facts]:
    """Return for each fault what caught it in each precision, and what did so before."""
    few = reference.rows(slice(None, None, -(-len(reference.images) // JUDGES)))
    alone = reference.rows(slice(1))
    found: Facts = {}
    before: Facts = {}
    for graph, faults in PLANTED.items():
        for fault in faults:
            judges = alone if fault is ignores_its_input else few
            caught: Facts = {}
            for precision in ("fp32", "fp16"):
                model = fault(writer.files.load(GraphKey(graph)), judges)
                if model is None:
                    continue
                if precision == "fp16":
                    try:
                        fp16_from_fp32(model)
                    except VerificationError as error:  # what was planted is beyond FP16
                        caught[precision] = [str(error)]
                        continue
                key = GraphKey(graph, precision)  # type: ignore[arg-type]
                verifier = Verifier(judges)
                verifier.take_encoded(key, judges.mu)
                with writer.files.candidate(model) as file:
                    reports = verifier.verify_file(key, file)
                failures = [clause for report in reports for clause in report.failures]
                caught[precision] = failures[:1]
                if precision == "fp32":
                    luma = input_from_pixels(judges.images[:, None])
                    given = luma if graph == "encoder" else judges.mu
                    with writer.files.candidate(model) as file, open_engine(file, key) as backend:
                        outputs = run_in_batches(backend, given)
                    before[fault.__name__] = _failed_before(outputs, judges, "fp32")[:1]
            if caught:
                found[fault.__name__] = caught
    return found, before


def _learned(reference: Reference) -> Facts:
    images = input_from_pixels(reference.images[:, None]).astype(np.float64)
    error = float(np.mean((images - np.asarray(reference.reconstruction)) ** 2))
    learned = learned_from_outputs(
        mu=reference.mu,
        log_var=reference.log_var,
        squared_error=error,
        squared_error_of_mean=float(np.mean((images - images.mean(axis=0)) ** 2)),
    )
    return {
        "explained": learned.explained,
        "problems": list(learned.problems),
        "psnr_db": -10 * float(np.log10(error)),
    }


def _steps(run: Path) -> int:
    lines = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    return int(dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))["steps"])


def table(results: Sequence[Facts]) -> str:
    """Return the results in Markdown."""
    heading = (
        "| data | size | channels | latents | betas | steps | explained, PSNR "
        "| collapsed | before: fp32, fp16, bf16 | now: fp32, fp16, bf16 (share of the limit) "
        "| planted faults caught: before, now fp32, fp16 |"
    )
    lines = [heading, "| --- |" + " ---: |" * 7 + " --- | --- | --- |"]
    for facts in results:
        old = ", ".join(
            "-" if name not in facts["old"] else "refused" if facts["old"][name] else "ok"
            for name in ("fp32", "fp16", "bf16")
        )
        new = ", ".join(_cell(facts["new"][name]) for name in ("fp32", "fp16", "bf16"))
        planted = facts["planted"].values()
        caught = [sum(bool(fault[name]) for fault in planted) for name in ("fp32", "fp16")]
        caught_before = sum(map(bool, facts["planted_before"].values()))
        lines.append(
            f"| {facts['data']} | {facts['image_size']} "
            f"| {'-'.join(map(str, facts['channels']))} | {facts['latent_size']} "
            f"| {', '.join(f'{beta:g}' for beta in facts['betas'])} | {facts['steps']} "
            f"| {facts['explained']:.0%}, {facts['psnr_db']:.1f} dB | {facts['collapsed']} "
            f"| {old} | {new} "
            f"| {caught_before}, {caught[0]}, {caught[1]} of {len(planted)} |"
        )
    return "\n".join(lines)


def _cell(verdict: Facts) -> str:
    if "reason" in verdict:
        return "-"
    return f"{'ok' if verdict['passed'] else 'refused'} ({verdict['share']:.0%})"


def main(arguments: Sequence[str]) -> None:
    """Measure every run that the file of results lacks; print the table of all."""
    output = Path(arguments[0])
    results: list[Facts] = json.loads(output.read_text()) if output.exists() else []
    for run in map(Path, arguments[1:]):
        if run.name in {facts["run"] for facts in results}:
            continue
        facts = facts_of(run)
        results.append(facts)
        output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(run.name, facts["new"], file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main(sys.argv[1:])
