"""How much memory the names of pictures take: `python -m tests.soak.listing_memory 200000`.

One flat folder of empty files is listed as a folder, as a pattern and as a list, each in a process
of its own; nothing is read or encoded. The figures are of docs/encode.md.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from motorvae.runtime.bulk.inputs import InputRequest, Inputs
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.base import CaptureRequest

MIB = 1 << 20


def resident() -> float:
    """Memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / MIB


def measure(data: str) -> None:
    """List and print what that took."""
    before, spec = resident(), ModelSpec()
    inputs = Inputs([data], InputRequest(spec, CaptureRequest(spec=spec)))
    count = sum(1 for _ in inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{Path(data).name}: {count} names, {peak - before:.0f} MiB at most, "
        f"{resident() - before:.0f} MiB at the end"
    )


def main() -> None:
    """Measure each way."""
    if len(sys.argv) == 3:
        measure(sys.argv[2])
        return
    with tempfile.TemporaryDirectory() as place:
        folder, listing = Path(place, "photos"), Path(place, "list.txt")
        folder.mkdir()
        names = [f"photos/frame_{number:06d}.png" for number in range(int(sys.argv[1]))]
        for name in names:
            Path(place, name).touch()
        listing.write_text("\n".join(names), encoding="utf-8")
        for data in (folder, folder / "*.png", listing):
            command = [sys.executable, "-m", "tests.soak.listing_memory", "of", str(data)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
