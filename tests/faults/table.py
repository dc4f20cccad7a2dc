"""Run the fault matrix and print what came of each fault, as a table in Markdown.

.venv/bin/python tests/faults/table.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).parent


def rows_from_report(report: Path) -> list[tuple[str, str, str, str]]:
    """Fault, kind of source, rows and exit code of every test that says them."""
    found = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # written just now
        said = {entry.get("name"): entry.get("value", "") for entry in case.iter("property")}
        if "rows" in said:
            kind = case.get("classname", "").rpartition("test_faults_")[2]
            fault = case.get("name", "").removeprefix("test_").replace("_", " ")
            found.append((fault, kind, said["rows"], said["code"]))
    return sorted(found)


def main() -> int:
    """Run the tests, print the table, and return pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(HERE), f"--junitxml={report}"]
        code = subprocess.run([*command, *sys.argv[1:]], stdout=sys.stderr, check=False).returncode
        rows = rows_from_report(report)
    counts = Counter(kind for _, kind, _, _ in rows)
    sys.stdout.write(
        ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) + "\n\n"
    )
    sys.stdout.write("| fault | source | rows | exit code |\n| --- | --- | --- | --- |\n")
    for row in rows:
        sys.stdout.write(f"| {' | '.join(row)} |\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
