"""floor_of: what the time of a case cannot be below, as it was measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence

from ..measure.case import (
    BARE,
    DECODE_ALONE,
    ENCODE_ALONE,
    HUFFMAN_ALONE,
    PACED,
    STREAM_MODULE,
    Case,
)

CODES_AND_ENCODER = "Huffman + encoder"


def floor_of(case: Case, cases: Sequence[Case]) -> tuple[str, float | None]:
    """Return what a time cannot be below, and its milliseconds where this run measured them."""
    if case.group in {"encoder", "decoder"}:
        return "roofline", case.roofline.least_ms if case.roofline else None
    if case.group == "path":
        return _of_path(case, cases)
    if case.group == "stream":
        return "parts alone", _parts_ms(case, cases)
    if case.group == "start-up":
        of_engine = BARE, case.engine, case.precision
        bare = [
            one.whole.p50
            for one in cases
            if (one.variant, one.engine, one.precision) == of_engine and one.whole
        ]
        if bare:
            return "bare script", min(bare)
        imports = [one.whole.p50 for one in cases if one.engine == STREAM_MODULE and one.whole]
        return "imports", min(imports, default=None)
    return "", None


def _parts_ms(stream: Case, cases: Sequence[Case]) -> float | None:
    """Return the sum of decoding and encoding alone, in loops as slow as the camera."""
    of_engine = stream.engine, stream.precision
    parts = [
        case
        for case in cases
        if case.group == "stream"
        and case.whole
        and (
            (case.variant, case.source) == (f"{DECODE_ALONE}, {PACED}", stream.source)
            or (case.variant, case.engine, case.precision)
            == (f"{ENCODE_ALONE}, {PACED}", *of_engine)
        )
    ]
    return sum(part.whole.p50 for part in parts if part.whole) if len(parts) == 2 else None


def _of_path(path: Case, cases: Sequence[Case]) -> tuple[str, float | None]:
    """Return the encoder, and of a JPEG its Huffman codes as well, each in a loop by itself.

    The encoder's is its time behind the conversion, which leaves caches cold, or beside a JPEG that
    of the encoder cases, where this run has them and it is less.
    """
    encode_ms = [path.stages["encode"].p50] if "encode" in path.stages else []
    if path.source != "mjpeg":
        return "encoder alone", min(encode_ms, default=None)
    same = path.engine, path.precision, path.outputs, path.variant
    encode_ms += [
        one.whole.p50
        for one in cases
        if one.whole is not None
        and (one.group, one.batch) == ("encoder", 1)
        and (one.engine, one.precision, one.outputs, one.variant) == same
    ]
    codes_ms = [
        one.whole.p50
        for one in cases
        if (one.variant, one.frame) == (HUFFMAN_ALONE, path.frame) and one.whole is not None
    ]
    is_known = bool(encode_ms and codes_ms)
    return CODES_AND_ENCODER, min(codes_ms) + min(encode_ms) if is_known else None
