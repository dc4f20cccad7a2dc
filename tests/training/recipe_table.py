"""What each change of the training loop is worth: held-out error, a row a change.

    python tests/training/recipe_table.py OUT [--side 128] [--steps 300] [--seeds 3]
    python tests/training/recipe_table.py OUT --side 256 --minutes 1 --threads 2 \\
        --only "the loop before" "fast"

Each run is a `motorvae-train` process with the demo's narrow network, on the built-in vehicles or
what `--data` names. They are made for equally many steps (of batches of 8), or for equal time, one
after another. OUT is a JSON file that keeps every figure; runs that it has are not made again.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LOOP = "--learning-rate 5e-4 --batch-size 8"
"""The demo's own settings before there were recipes."""
COSINE = "--lr-schedule cosine --warmup 0.05"
STARTS = "--start-log-var -4 --start-at-mean"
MUON = "--batch-size 8 --optimizer muon --learning-rate 0.05 --weight-decay 0.1"
FAST = "--recipe fast"
CHANGES = {
    "the loop before": LOOP,
    "fast": FAST,
    "fast, card's two betas": f"{FAST} --betas 0.001 0.05",
    "fast at rate 0.02": f"{FAST} --learning-rate 0.02",
    "fast at rate 0.1": f"{FAST} --learning-rate 0.1",
    "fast, batch 16, half the steps": f"{FAST} --batch-size 16 --steps {{half}}",
    "fast, batch 4, twice the steps": f"{FAST} --batch-size 4 --steps {{double}}",
    "fast, average of weights 0.99": f"{FAST} --ema 0.99",
    "fast without weight decay": f"{FAST} --weight-decay 0",
    "fast without its starts": f"{MUON} {COSINE} --betas 0.05 0.05",
    "fast without warm-up and cosine": f"{MUON} {STARTS} --betas 0.05 0.05",
    "the loop before with Muon": MUON,
    "Adam with all but Muon": (
        f"--learning-rate 2e-3 --heads-rate 0.1 --batch-size 8 {COSINE} {STARTS} --betas 0.05 0.05"
    ),
    "card's rate 1e-4": "--learning-rate 1e-4 --batch-size 8",
    "rate 1e-3": "--learning-rate 1e-3 --batch-size 8",
    "rate 1e-3, warm-up and cosine": f"--learning-rate 1e-3 --batch-size 8 {COSINE}",
    "rate 2e-3, warm-up and cosine": f"--learning-rate 2e-3 --batch-size 8 {COSINE}",
    "batch 16, half the steps": "--learning-rate 5e-4 --batch-size 16 --steps {half}",
    "batch 4, twice the steps": "--learning-rate 5e-4 --batch-size 4 --steps {double}",
    "image starts at the mean": f"{LOOP} --start-at-mean",
    "log_var starts at -4": f"{LOOP} --start-log-var -4",
    "heads at a tenth, rate 2e-3, cosine": (
        f"--learning-rate 2e-3 --heads-rate 0.1 --batch-size 8 {COSINE}"
    ),
    "average of weights 0.99": f"{LOOP} --ema 0.99",
    "KL weight along a line": f"{LOOP} --kl-schedule linear",
    "gradient clipped at 1000": f"{LOOP} --clip-norm 1000",
    "batches of 16, then of 4": (
        f"{LOOP} --batch-size 16 --steps {{quarter}} then {LOOP} --batch-size 4 --steps {{steps}}"
    ),
    "fast, batches of 16, then of 4": (
        f"{FAST} --batch-size 16 --lr-schedule constant --steps {{quarter}} then "
        f"{FAST} --batch-size 4 --warmup 0 --steps {{steps}}"
    ),
}
FIGURES = ("steps", "elapsed_s", "held_out_reconstruction", "held_out_kl", "held_out_total")
NETWORK = "--channels 16 32 64 128 256 --vehicles-count 1500"


def options_of(change: str, *, steps: int, minutes: float | None) -> list[list[str]]:
    """Return the options of a change's runs, each of which goes on from the one before."""
    numbers = {"quarter": steps // 4, "half": steps // 2, "steps": steps, "double": steps * 2}
    runs = CHANGES[change].format(**numbers).split(" then ")
    return [options_of_run(run.split(), steps=steps, minutes=minutes) for run in runs]


def options_of_run(words: list[str], *, steps: int, minutes: float | None) -> list[str]:
    """Return a run's options; of those that it gives twice the last counts."""
    named: dict[str, list[str]] = {"--steps": [str(steps)]}
    for word in words:
        if word.startswith("--"):
            name = word
            named[name] = []
        else:
            named[name].append(word)
    if minutes is not None:  # more steps than anybody makes in that time
        named |= {"--steps": ["1000000"], "--minutes": [f"{minutes:g}"]}
    return [word for name, values in named.items() for word in (name, *values)]


def figures_of(change: str, seed: int, asked: argparse.Namespace) -> dict[str, float]:
    """Train once, and return what the last epoch came to."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        runs = options_of(change, steps=asked.steps, minutes=asked.minutes)
        for place, options in enumerate(runs):
            run = Path(folder) / str(place)
            words = [
                *(str(Path(sys.executable).parent / "motorvae-train"), asked.data),
                *("--image-size", str(asked.side), "--threads", str(asked.threads)),
                *("--seed", str(seed), "--output", folder, "--name", run.name),
                *NETWORK.split(),
                *options,
                *(("--pretrained", str(run.with_name(str(place - 1)))) if place else ()),
            ]
            subprocess.run(words, check=True, capture_output=True)
            with (run / "metrics.csv").open(encoding="utf-8") as file:
                *_, last = csv.DictReader(file)
            before = found
            found = {name: float(last[name]) for name in FIGURES}
            for name in ("steps", "elapsed_s"):
                found[name] += before.get(name, 0.0)
    return found


def main() -> None:
    """Make what is missing of the table, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="vehicles")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(CHANGES), default=list(CHANGES))
    asked = parser.parse_args()
    names = {"out": asked.out.name, "data": Path(asked.data).name}  # no paths of this machine
    document = {**vars(asked), **names, "network": NETWORK, "runs": {}}
    document["changes"] = {name: CHANGES[name] for name in asked.only}
    if asked.out.exists():
        kept = json.loads(asked.out.read_text(encoding="utf-8"))
        document["runs"] = kept["runs"]
        document["changes"] = kept["changes"] | document["changes"]
        for name in ("data", "side", "steps", "minutes", "threads", "network"):
            if kept.get(name, document[name]) != document[name]:
                raise SystemExit(f"{asked.out} has runs with {name} {kept[name]}: name another")
        for name, options in kept["changes"].items():
            if options != CHANGES.get(name):
                raise SystemExit(f"{asked.out} has runs of another {name!r}: name another file")
    for seed in range(asked.seeds):
        for change in asked.only:
            of_change = document["runs"].setdefault(change, {})
            if str(seed) not in of_change:
                found = of_change[str(seed)] = figures_of(change, seed, asked)
                asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
                print(change, seed, found["held_out_reconstruction"], flush=True)
    base = errors_of(document["runs"][asked.only[0]])
    print("| change | steps | held-out squared error | of the first | lowest to highest | KL |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for change in asked.only:
        runs = document["runs"][change]
        errors = errors_of(runs)
        mean, share = statistics.mean(errors), statistics.mean(errors) / statistics.mean(base)
        steps, kl = (
            statistics.mean(one[name] for one in runs.values()) for name in ("steps", "held_out_kl")
        )
        span = f"{min(errors):.0f} to {max(errors):.0f}"
        print(f"| {change} | {steps:.0f} | {mean:.0f} | {share:.2f} | {span} | {kl:.0f} |")


def errors_of(runs: dict[str, dict[str, float]]) -> list[float]:
    """Return the held-out squared errors of a change's runs."""
    return [one["held_out_reconstruction"] for one in runs.values()]


if __name__ == "__main__":
    main()
