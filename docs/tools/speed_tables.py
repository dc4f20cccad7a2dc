"""Prints the tables of docs/speed.md that are of one run, as Markdown.

    python docs/tools/speed_tables.py bench.json

Goals are shares of what the same run measured, or times that were set for the default model on two
such cores; nothing here is a promise for another model or machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from motorvae.benchmarks.measure.case import (
    AWAKE,
    DECODE_ALONE,
    ENCODE_ALONE,
    HOT,
    HUFFMAN_ALONE,
    LOWEST,
    PACED,
    STREAM,
    Case,
    Group,
)
from motorvae.benchmarks.measure.result import Result, load_result
from motorvae.benchmarks.report.floors import CODES_AND_ENCODER, floor_of

LARGE = (1920, 1080)
Row = tuple[str, ...]


def main(words: Sequence[str]) -> None:
    """Print the tables and goals whose cases this run measured."""
    result = load_result(Path(words[0]))
    for title, heading, rows in (
        ("Goals", ("", "goal", "this run", ""), goals(result)),
        ("1920x1080", PATHS, paths(result)),
        ("Encoder, batch 1", EVERY, engines(result, "encoder")),
        ("Encoder by batch", *by_batch(result, "encoder")),
        ("Decoder, batch 1", EVERY, engines(result, "decoder")),
        ("Decoder by batch", *by_batch(result, "decoder")),
        ("Threads", ("1080p MJPEG to mu", "wall ms p50", "processor ms p50"), threads(result)),
        ("Camera", ("60 fps", "age p50", "p99", *STAGES), streams(result)),
        ("Ages and their parts", AGES, ages(result)),
        ("Alone", ("alone", "p50 ms"), alone(result)),
        ("Processes", ("process", ""), processes(result)),
    ):
        if not (found := list(rows)):
            continue  # of a run with --only
        print(f"\n{title}\n")
        print(line(heading))
        print(line(["---", *["---:"] * (len(heading) - 1)]))
        for row in found:
            print(line(row))


def line(cells: Sequence[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


PATHS = ("1920x1080", "p50 ms", "luma", "encoder", "of plain", "of Huffman + encoder")
EVERY = ("engine", "precision", "gives", "form", "p50 ms", "p99 ms", "of roofline", "error")
AGES = (
    *("p50 ms", "age", "parts, hot", "colder caches", "sleeping cores", "the rest"),
    *("of hot", "of paced", "p99 / p50"),
)
STAGES = ("capture", "convert", "wait", "encode", "emit")


def of_group(result: Result, *groups: Group) -> Iterator[Case]:
    """Yield the cases of these groups that were measured."""
    return (case for case in result.cases if case.group in groups and case.whole)


def p50(case: Case, stage: str | None = None) -> float:
    """Return the median of a case's whole, or of one stage, in milliseconds (or its own unit)."""
    whole = case.stages[stage] if stage else case.whole
    assert whole is not None  # noqa: S101  # for the type checker
    return whole.p50


def named(case: Case) -> str:
    """Return a case's engine, precision and form."""
    precision = "float32" if case.precision == "fp32" else str(case.precision)
    return ", ".join(filter(None, [case.engine, precision, case.variant]))


def paths(result: Result) -> Iterator[Row]:
    """Whole paths from the largest frame."""
    plain = 0.0
    for case in of_group(result, "path"):
        if case.frame != LARGE:
            continue
        if case.variant == HUFFMAN_ALONE:
            title = f"{case.source}: {case.engine}, {case.variant}"
            yield title, f"{p50(case):.2f}", "", "", "", ""
            continue
        if case.engine == "plain recipe":
            plain = p50(case)
        parts = (f"{p50(case, stage):.2f}" for stage in ("preprocess", "encode"))
        gain = f"{plain / p50(case):.2f} x"
        share = share_of_codes(result, case)
        of_codes = "" if share is None else f"{share:.2f}"
        yield f"{case.source}: {named(case)}", f"{p50(case):.2f}", *parts, gain, of_codes


def share_of_codes(result: Result, case: Case) -> float | None:
    """Return the Huffman codes and the encoder by themselves over a path; None for no JPEG."""
    name, least_ms = floor_of(case, result.cases)
    return least_ms / p50(case) if name == CODES_AND_ENCODER and least_ms else None


def engines(result: Result, group: Group) -> Iterator[Row]:
    """Every engine at batch 1, the fastest first."""
    found = [case for case in of_group(result, group) if case.batch == 1]
    for case in sorted(found, key=p50):
        error = f"{case.latent_error.value:.2g}" if case.latent_error else ""
        if case.psnr:
            error = f"{case.psnr.value:.0f} dB"
        share = f"{1 / case.roofline.times:.2f}" if case.roofline else ""
        precision = "float32" if case.precision == "fp32" else str(case.precision)
        assert case.whole is not None  # noqa: S101  # for the type checker
        yield (
            *(case.engine, precision, str(case.outputs), case.variant or "as installed"),
            *(f"{case.whole.p50:.2f}", f"{case.whole.p99:.2f}", share, error),
        )


def by_batch(result: Result, group: Group) -> tuple[Row, list[Row]]:
    """Heading and rows: milliseconds an image by batch size, of those that ran them all."""
    found: dict[str, dict[int, float]] = {}
    for case in of_group(result, group):
        found.setdefault(f"{named(case)}, {case.outputs}", {})[case.batch] = p50(case) / case.batch
    sizes = sorted({size for one in found.values() for size in one})
    rows = [
        (name, *(f"{one[size]:.2f}" for size in sizes))
        for name, one in found.items()
        if len(one) == len(sizes)
    ]
    return ("ms per image", *map(str, sizes)), rows


def threads(result: Result) -> Iterator[Row]:
    """What the engines' own threads cost, and ours."""
    for case in of_group(result, "threads"):
        yield named(case), f"{p50(case, 'wall'):.2f}", f"{p50(case, 'processor'):.2f}"


def streams(result: Result) -> Iterator[Row]:
    """Ages of streams, and their stages."""
    for case in of_group(result, "stream"):
        if "age" not in case.stages:
            continue
        age = case.stages["age"]
        parts = (f"{p50(case, stage):.2f}" for stage in STAGES)
        yield (
            f"{case.source or 'synthetic'}: {named(case)}",
            f"{age.p50:.2f}",
            f"{age.p99:.2f}",
            *parts,
        )


def parts_ms(result: Result, stream: Case, pace: str) -> float:
    """Return what decoding with converting and encoding take by themselves, at a pace."""
    decode = f"{DECODE_ALONE}, {pace}", "motorVAE", "fp32", stream.source
    encode = f"{ENCODE_ALONE}, {pace}", stream.engine, stream.precision, None
    return sum(
        p50(case)
        for case in of_group(result, "stream")
        if (case.variant, case.engine, case.precision, case.source) in {decode, encode}
    )


def ages(result: Result) -> Iterator[Row]:
    """What of each age is the parts hot, what their pauses cost, and what no part explains."""
    for case in of_group(result, "stream"):
        hot, paced, awake = (parts_ms(result, case, pace) for pace in (HOT, PACED, AWAKE))
        if "age" not in case.stages or not awake:
            continue
        age = case.stages["age"]
        parts = (age.p50, hot, awake - hot, paced - awake, age.p50 - paced)
        shares = (age.p50 / hot, age.p50 / paced, age.p99 / age.p50)
        name = f"{case.source or 'synthetic'}: {named(case)}"
        yield (name, *(f"{ms:.2f}" for ms in parts), *(f"{share:.2f}" for share in shares))


def alone(result: Result) -> Iterator[Row]:
    """The parts of a stream by themselves."""
    for case in of_group(result, "stream"):
        if "age" not in case.stages:
            yield f"{case.source or ''} {named(case)}".strip(), f"{p50(case):.2f}"


def processes(result: Result) -> Iterator[Row]:
    """Start-up, imports and memory."""
    for case in of_group(result, "start-up", "import"):
        yield f"{case.group}: {named(case)}", f"{p50(case) / 1e3:.2f} s"
    for case in of_group(result, "memory"):
        kept = ", ".join(f"{one.p50:.0f} MiB {name}" for name, one in case.stages.items())
        yield f"memory, {case.source or 'synthetic'}: {named(case)}", kept


def least(cases: Iterable[Case], stage: str | None = None) -> Case | None:
    """Return the fastest case; None where none was measured."""
    return min(cases, key=lambda case: p50(case, stage), default=None)


def goals(result: Result) -> Iterator[Row]:
    """What was set for the default model, and what came of it, as far as this run measured it."""
    yield from path_goals(result)
    yield from engine_goals(result)
    yield from camera_goals(result)
    for case in of_group(result, "start-up"):
        if case.variant != STREAM or case.precision not in {"fp32", "int8"}:
            continue
        goal = 0.6 if case.precision == "int8" else 0.8
        yield verdict(f"start to first latent, {named(case)}", goal, p50(case) / 1e3, " s", -1)
    for case in of_group(result, "memory"):
        if (case.source, case.precision, case.variant) == ("mjpeg", "int8", STREAM):
            rss = p50(case, "rss") * 2**20 / 1e6
            yield verdict(f"resident memory, {named(case)}", 200, rss, " MB", -1)


def path_goals(result: Result) -> Iterator[Row]:
    """Those of whole paths from the largest frame."""
    for source, goal in (("mjpeg", 4.0), ("yuv", 6.0)):
        of_source = [
            case
            for case in of_group(result, "path")
            if (case.frame, case.source) == (LARGE, source) and case.variant != HUFFMAN_ALONE
        ]
        plain = least(case for case in of_source if case.engine == "plain recipe")
        fastest = least(of_source)
        if fastest is None:
            continue
        if plain is not None:
            found = p50(plain) / p50(fastest)
            yield verdict(f"1080p {source} to mu, against the plain recipe", goal, found, " x", 1)
        share = share_of_codes(result, fastest)
        if share is not None:
            yield verdict(f"1080p {source} to mu, of {CODES_AND_ENCODER}", 0.9, share, "", 1)


def engine_goals(result: Result) -> Iterator[Row]:
    """Those of encoders and decoders at batch 1."""
    single = [case for case in of_group(result, "encoder") if case.batch == 1]
    eager = least(case for case in single if case.engine == "torch eager")
    int8 = least(case for case in single if case.precision == "int8")
    fp32 = least(case for case in single if case.precision == "fp32")
    if eager is not None and int8 is not None:
        times = p50(eager) / p50(int8)
        yield verdict("encoder int8, against torch eager", 4.7, times, " x", 1)
    if fp32 is not None and fp32.roofline:
        share = 1 / fp32.roofline.times
        yield verdict("encoder float32 mu, of its roofline", 0.95, share, "", 1)
    decoders = [case for case in of_group(result, "decoder") if case.batch == 1]
    for title, engine, precision, goal in (
        ("decoder float32, ONNX Runtime", "ONNX Runtime", "fp32", 8.0),
        ("decoder int8, OpenVINO", "OpenVINO", "int8", 4.0),
    ):
        own = least(c for c in decoders if (c.engine, c.precision) == (engine, precision))
        if own is not None:
            yield verdict(title, goal, p50(own), " ms", -1)
        elif decoders:
            yield title, f"{goal:g} ms", "does not pass the gate", "**missed**"


def camera_goals(result: Result) -> Iterator[Row]:
    """Those of the age of a camera's latents, which are of the lowest latency, in each engine."""
    for camera in of_group(result, "stream"):
        if (camera.source, camera.precision, camera.variant) != ("mjpeg", "int8", LOWEST):
            continue
        age = camera.stages["age"]
        for pace in (HOT, PACED):
            parts = parts_ms(result, camera, pace)
            if parts:
                times, title = age.p50 / parts, f"lowest age over its parts, {pace}"
                row = verdict(f"{title}, {camera.engine}", 1.15, times, " x", -1)
                yield row if times >= 1 else (*row[:3], "not valid: below its floor")
        ratio = age.p99 / age.p50
        yield verdict(f"p99 over p50 of the lowest age, {camera.engine}", 1.3, ratio, " x", -1)


def verdict(title: str, goal: float, found: float, unit: str, sign: int) -> Row:
    """Return a row; `sign` is 1 where more is better."""
    word = "reached" if sign * (found - goal) >= 0 else "**missed**"
    return title, f"{goal:g}{unit}", f"{found:.3g}{unit}", word


if __name__ == "__main__":
    main(sys.argv[1:])
