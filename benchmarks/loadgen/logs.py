"""LoadGen's own log, read for its verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...runtime.core.documents import bytes_of_file
from ...runtime.core.errors import MeasurementError
from ..measure.loadgen import LoadGenVerdict, Scenario

DETAILS = "mlperf_log_detail.txt"
_PREFIX = ":::MLLOG "
_MOST_BYTES = 64 << 20
_AGAIN = "run motorvae-bench again"


def verdict_in(logs: Path, scenario: Scenario) -> LoadGenVerdict:
    """Return the verdict of the run whose log lies in a folder.

    A MeasurementError where LoadGen did not get as far as that.
    """
    path = logs / DETAILS
    text = bytes_of_file(path, most_bytes=_MOST_BYTES, error=MeasurementError, again=_AGAIN)
    found: dict[str, Any] = {}
    errors: list[str] = []
    for line in text.decode("utf-8", errors="replace").splitlines():
        if not line.startswith(_PREFIX):
            continue
        try:
            entry = json.loads(line.removeprefix(_PREFIX))
            found[entry["key"]] = entry["value"]
            if entry["metadata"].get("is_error"):
                errors.append(f"{entry['key']}: {str(entry['value'])[:200]}")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise MeasurementError(f"{path} has a line that is no log entry: {_AGAIN}") from error
    if "result_validity" not in found:
        last = f", its last error is {errors[-1]}" if errors else ""
        raise MeasurementError(f"LoadGen gave no verdict in {path}{last}: {_AGAIN}")
    is_single = scenario == "SingleStream"

    def ms(key: str) -> float | None:
        # 0 is what it writes where too few queries were processed for an estimate.
        return found[key] / 1e6 if is_single and found.get(key) else None

    return LoadGenVerdict(
        version=str(found.get("loadgen_version", "unknown")),
        valid=found["result_validity"] == "VALID",
        min_duration_met=bool(found.get("result_min_duration_met")),
        min_queries_met=bool(found.get("result_min_queries_met")),
        early_stopping_met=bool(found.get("early_stopping_met")),
        queries=int(
            found.get("result_query_count" if is_single else "effective_samples_per_query", 0)
        ),
        p50_ms=ms("result_50.00_percentile_latency_ns"),
        p90_ms=ms("result_90.00_percentile_latency_ns"),
        early_stopping_p90_ms=ms("early_stopping_latency_ss"),
        samples_per_s=None if is_single else found.get("result_samples_per_second"),
        errors=tuple(errors),
    )
