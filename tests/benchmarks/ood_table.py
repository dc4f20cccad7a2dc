"""The table of docs/ood.md: what `is_ood` tells on several unlike data sets.

Each set is a bundle, fresh images of its kind, and whatever else the others are; every fresh set
is out of distribution for all the other bundles, and so are the further videos or folders:

    python tests/benchmarks/ood_table.py OUTPUT.json [--images N] \
        NAME=BUNDLE,FRESH ... [NAME=OTHER ...]

FRESH is a folder or video that was not trained on, or `vehicles`. OUTPUT.json is a list of what
motorvae.benchmarks.ood found of each bundle; the Markdown goes to standard output.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import cv2

from motorvae.benchmarks.ood import SeparationResult
from motorvae.benchmarks.ood import main as ood
from motorvae.benchmarks.under_test.scenes import vehicles
from motorvae.runtime.core.spec import ModelSpec

VEHICLES = "vehicles"


def measured(
    name: str, bundle: str, fresh: dict[str, str], others: dict[str, str], images: int
) -> SeparationResult:
    known = fresh[name]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        unlike = [
            f"{other}={written(Path(folder), images) if path == VEHICLES else path}"
            for other, path in (fresh | others).items()
            if other != name
        ]
        code = ood(
            [
                *("--model", bundle, "--images", str(images), "--threads", "1"),
                *("--known", VEHICLES if known == VEHICLES else f"fresh={known}"),
                *("--ood", *unlike),
                *("--output", str(output)),
            ]
        )
        if code:
            raise SystemExit(code)
        return SeparationResult.model_validate_json(output.read_bytes())


def written(folder: Path, count: int) -> Path:
    """Write built-in vehicles as files: as others they must have a path."""
    path = folder / VEHICLES
    path.mkdir()
    for index, image in enumerate(vehicles(7, count, ModelSpec())):
        cv2.imwrite(str(path / f"{index:04d}.png"), image)
    return path


def cell(result: SeparationResult, name: str) -> str:
    kinds = {kind.name: kind.is_ood for kind in result.kinds}
    if name not in kinds:
        return ""
    area = kinds[name].auroc
    return f"{'' if area is None else f'{area:.3f}, '}{100 * kinds[name].flagged:.3g} %"


def main() -> None:
    output, *arguments = sys.argv[1:]
    images = 200
    if arguments[0] == "--images":
        images, arguments = int(arguments[1]), arguments[2:]
    named = dict(text.split("=", 1) for text in arguments)
    sets = {name: text.split(",") for name, text in named.items() if "," in text}
    fresh = {name: path for name, (_, path) in sets.items()}
    others = {name: path for name, path in named.items() if "," not in path}
    results = {
        name: measured(name, bundle, fresh, others, images) for name, (bundle, _) in sets.items()
    }
    rows = list(dict.fromkeys(kind.name for found in results.values() for kind in found.kinds))
    print("| images |", " | ".join(results), "|")
    print("| --- |", " | ".join("---" for _ in results), "|")
    announced = [f"{100 * found.false_alarms:.2g} %" for found in results.values()]
    print("| announced false alarms, at most |", " | ".join(announced), "|")
    for row in rows:
        print(f"| {row} |", " | ".join(cell(found, row) for found in results.values()), "|")
    content = {name: found.model_dump(mode="json") for name, found in results.items()}
    Path(output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
