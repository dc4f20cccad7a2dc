"""The run as a whole, in real processes: one step's fault is its own, and what is found is kept."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from motorvae.benchmarks.proof.record import Proof, load_proof

if TYPE_CHECKING:
    from .conftest import Ready

Prove = Callable[..., tuple[int, str, dict[str, Any]]]
GOOD, BAD = "print('it works')", "raise SystemExit('it is broken')"
COUNTING = "open('count', 'a').write('x')"


def rows_of(found: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {
        step["name"]: (step["rows"][0]["status"], step["rows"][0]["reason"])
        for step in found["steps"]
    }


def test_a_fault_of_one_step_stops_no_other(prove: Prove, tmp_path: Path) -> None:
    code, said, found = prove(
        {
            "good": GOOD,
            "bad": BAD,
            "hangs": {"code": "import time; time.sleep(600)", "limit_s": 1.5},
            "killed": "import os; os.kill(os.getpid(), 9)",
            "crashes": "import os; os.kill(os.getpid(), 11)",
            "lacks": {"code": GOOD, "modules": ["tensorrt", "none.of.these"]},
            "waits": {"code": GOOD, "files": ["bundle"]},
            "last": GOOD,
        }
    )
    assert code == 1
    rows = rows_of(found)
    assert rows["good"] == rows["last"] == ("proven", None)
    assert rows["bad"] == ("failed", "exit code 1: it is broken")
    assert rows["hangs"] == ("failed", "killed at its time limit, after 2 s")
    assert rows["killed"][1] == (
        "ended by SIGKILL (the system kills so what takes too much memory)"
    )
    assert rows["crashes"][0] == "failed"
    assert (rows["crashes"][1] or "").startswith("ended by SIGSEGV: ")
    assert rows["lacks"][0] == "unproven"
    assert (rows["lacks"][1] or "").startswith("needs tensorrt, which is not installed: pip in")
    assert rows["waits"] == ("unproven", "needs bundle, which is not there: it is made by hand")
    assert said.splitlines()[-1].startswith("gpu-proof: 2 proven, 4 failed, 2 unproven; the reas")
    assert (tmp_path / "gpu-proof" / "proof.html").is_file()
    assert "it is broken" in (tmp_path / "gpu-proof/work/logs/bad.log").read_text("utf-8")


def test_a_second_run_goes_on_where_the_first_failed(prove: Prove, tmp_path: Path) -> None:
    steps = {"counts": COUNTING, "bad": BAD}
    assert prove(dict(steps))[0] == 1
    code, said, found = prove({**steps, "bad": GOOD})
    assert code == 0
    assert {name: status for name, (status, _) in rows_of(found).items()} == {
        "counts": "proven",
        "bad": "proven",
    }
    count = tmp_path / "gpu-proof" / "work" / "count"
    assert count.read_text("utf-8") == "x"
    assert "counts" not in said
    prove({**steps, "bad": GOOD}, "--steps", "counts")
    assert count.read_text("utf-8") == "xx"
    prove({**steps, "bad": GOOD}, "--steps", "all")
    assert count.read_text("utf-8") == "xxx"


def test_a_step_that_its_limit_ended_is_run_again_though_a_part_is_proven(
    prove: Prove, tmp_path: Path
) -> None:
    code = "import time; open('count', 'a').write('x'); time.sleep(600)"
    step = {"code": code, "limit_s": 1.5, "reader": "half_proven"}
    for count in ("x", "xx"):
        _, _, found = prove({"half": dict(step)})
        (half,) = found["steps"]
        assert [row["status"] for row in half["rows"]] == ["proven", "unproven"]
        assert (tmp_path / "gpu-proof" / "work" / "count").read_text("utf-8") == count


def test_what_was_proven_stays_where_the_step_is_not_started_again(prove: Prove) -> None:
    assert prove({"good": GOOD})[0] == 0
    steps = {"long": "import time; time.sleep(600)", "good": GOOD}
    _, said, found = prove(steps, "--steps", "all", "--seconds", "12")
    assert rows_of(found)["good"] == ("proven", None)
    assert "proven earlier, and kept: good; not run again: no time left: 0 s" in " ".join(
        said.split()
    )


def test_the_command_in_the_json_can_be_typed_again(prove: Prove) -> None:
    _, _, found = prove({"good": GOOD}, "--frames", "5", "--work", "a folder")
    assert found["command"] == "python -m motorvae.benchmarks.proof --frames 5 --work 'a folder'"


def test_the_json_does_not_say_where_it_was_written(
    prove: Prove, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = tmp_path_factory.mktemp("kit") / "proof"
    prove({"good": GOOD}, "--output", str(there))
    assert not (tmp_path / "gpu-proof" / "proof.json").exists()
    content = (there / "proof.json").read_text("utf-8")
    assert json.loads(content)["command"] == "python -m motorvae.benchmarks.proof --output proof"
    assert str(there.parent) not in content + (there / "proof.html").read_text("utf-8")


def test_evidence_of_an_earlier_run_is_not_taken_for_this_one(prove: Prove, tmp_path: Path) -> None:
    work = tmp_path / "gpu-proof" / "work"
    work.mkdir(parents=True)
    (work / "report").touch()
    code = "import os, sys; sys.exit(os.path.exists('report'))"
    assert prove({"reads": {"code": code, "leaves": ["report"]}})[0] == 0


def test_ctrl_c_leaves_what_was_found_and_ends_the_step(
    command: Callable[..., list[str]], ready: Ready, tmp_path: Path
) -> None:
    steps = {"good": GOOD, "long": f"{ready.code}time.sleep(600)", "after": GOOD}
    process = subprocess.Popen(command(steps), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    number = ready.wait()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("gpu-proof: interrupted\n")
    assert not Path(f"/proc/{number}").exists()
    found = load_proof(tmp_path / "gpu-proof" / "proof.json")
    rows = rows_of(found.model_dump())
    assert rows["good"] == ("proven", None)
    assert rows["long"] == ("unproven", "interrupted")
    assert rows["after"] == ("unproven", "not reached: the command ended before it")
    page = (tmp_path / "gpu-proof" / "proof.html").read_text("utf-8")
    assert page.endswith("</html>\n")
    assert "interrupted" in page


def test_a_run_that_is_killed_leaves_all_so_far(
    command: Callable[..., list[str]], ready: Ready, tmp_path: Path
) -> None:
    steps = {"good": GOOD, "long": f"{ready.code}time.sleep(5)"}
    process = subprocess.Popen(command(steps), cwd=tmp_path, stderr=subprocess.DEVNULL)
    ready.wait()
    process.kill()
    process.wait(60)
    rows = rows_of(load_proof(tmp_path / "gpu-proof" / "proof.json").model_dump())
    assert rows["good"] == ("proven", None)
    assert rows["long"] == ("unproven", "not reached: the command ended before it")


def test_an_output_that_cannot_be_written_is_refused_before_any_step(
    prove: Prove, tmp_path: Path
) -> None:
    code, said, _ = prove({"counts": COUNTING}, "--output", "/proc/none")
    assert code == 1
    assert said.startswith("gpu-proof: cannot write /proc/none")
    assert said.count("\n") == 1
    assert not (tmp_path / "gpu-proof").exists()


def test_a_disk_that_fills_up_keeps_the_last_whole_json_and_runs_on(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    """As files may have so many bytes only, after which there is room for a few steps."""
    wordy = {f"wordy-{number}": "raise SystemExit('x' * 400)" for number in range(8)}
    steps = {"good": GOOD, **wordy, "counts": COUNTING}
    first = [*command(dict(steps)), "--steps", "good"]
    subprocess.run(first, cwd=tmp_path, check=True)
    files = [tmp_path / "gpu-proof" / name for name in ("proof.json", "proof.html")]
    room = max(file.stat().st_size for file in files) + 2000
    again = tmp_path / "again"
    again.mkdir()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    done = subprocess.run(
        command(dict(steps)),
        cwd=again,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,  # no thread of this test is anywhere else
    )
    assert done.returncode == 1
    assert done.stderr.count("not saved for now: cannot write gpu-proof/proof.") == 1
    assert re.search(
        r"^gpu-proof: cannot write gpu-proof/proof\.(json|html): File too large; choose",
        done.stderr.splitlines()[-1],
    )
    assert "  proven: counts" in done.stderr  # which nothing else tells any more
    assert (again / "gpu-proof/work/count").read_text("utf-8") == "x"
    rows = rows_of(load_proof(again / "gpu-proof/proof.json").model_dump())
    assert rows["good"] == ("proven", None)
    assert rows["counts"][0] == "unproven"
    assert [path.name for path in (again / "gpu-proof").glob("*.tmp*")] == []


def test_a_fault_of_the_command_itself_fails_the_step_and_is_raised_at_the_end(
    prove: Prove,
) -> None:
    prove({"good": GOOD})
    steps = {"good": {"code": GOOD, "reader": "broken"}, "after": GOOD}
    code, said, found = prove(steps, "--steps", "all")
    assert code == 1
    assert rows_of(found) == {
        "good": ("failed", "gpu-proof itself: AttributeError: no such verb"),
        "after": ("proven", None),
    }
    assert said.endswith("\nAttributeError: no such verb\n")


def test_a_fault_of_the_command_itself_is_raised_though_the_page_cannot_be_written(
    command: Callable[..., list[str]], tmp_path: Path
) -> None:
    blocks = "import os; os.mkdir('../proof.html.d'); os.rename('../proof.html', '../kept.html')\n"
    blocks += "os.rename('../proof.html.d', '../proof.html')"
    steps = {"blocks": {"code": blocks, "reader": "broken"}}
    done = subprocess.run(command(steps), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OutputError: cannot write gpu-proof/proof.html: " in done.stderr
    assert done.stderr.endswith("\nAttributeError: no such verb\n")


def test_a_proof_of_another_machine_is_kept_aside(prove: Prove, tmp_path: Path) -> None:
    prove({"counts": COUNTING}, gpu="GPU one")
    code, said, found = prove({"counts": COUNTING}, gpu="GPU two")
    assert code == 0
    assert found["machine"]["gpu"]["name"] == "GPU two"
    kept = load_proof(tmp_path / "gpu-proof" / "proof.1.json")
    assert kept.machine.gpu is not None
    assert kept.machine.gpu.name == "GPU one"
    assert (
        "proof.json is of another machine: GPU one with driver 580.10, and this is GPU two with "
        "driver 580.10; it is kept as gpu-proof/proof.1.json, and every step begins anew"
    ) in said.replace("\n", " ")
    assert (tmp_path / "gpu-proof" / "work" / "count").read_text("utf-8") == "xx"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"schema_version": 99}', "has schema_version=99, and this motorVAE reads 1"),
        ("half a docum", "is not JSON"),
    ],
)
def test_a_json_of_another_version_is_kept_aside(
    prove: Prove, tmp_path: Path, content: str, says: str
) -> None:
    folder = tmp_path / "gpu-proof"
    folder.mkdir()
    (folder / "proof.json").write_text(content, encoding="utf-8")
    code, said, _ = prove({"good": GOOD})
    assert code == 0
    assert says in said.replace("\n", " ")
    assert (folder / "proof.1.json").read_text("utf-8") == content


def test_what_does_not_fit_into_the_time_is_unproven(prove: Prove) -> None:
    steps = {"long": "import time; time.sleep(600)", "after": GOOD}
    code, _, found = prove(steps, "--seconds", "12")
    assert code == 1
    rows = rows_of(found)
    assert rows["long"][0] == "unproven"
    assert (rows["long"][1] or "").startswith("no time left: --seconds ended it after 1")
    assert (rows["after"][1] or "").startswith("no time left: 0 s of --seconds")


def test_two_runs_at_once_do_not_share_an_output(
    command: Callable[..., list[str]], prove: Prove, ready: Ready, tmp_path: Path
) -> None:
    steps = {"long": f"{ready.code}time.sleep(600)"}
    process = subprocess.Popen(command(steps), cwd=tmp_path, stderr=subprocess.DEVNULL)
    ready.wait()
    code, said, _ = prove({"good": GOOD})
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert code == 1
    assert "gpu-proof/proof.json" in said
    assert said.count("\n") == 1


def test_no_host_user_serial_or_uuid_leaves_the_machine(prove: Prove, tmp_path: Path) -> None:
    uuid = "GPU-12345678-9abc-def0-1234-56789abcdef0"
    said = f"hostname=box7 {uuid} Serial Number: 1650522003820 /home/ada/x {tmp_path}/gpu-proof"
    _, _, found = prove({"tells": f"raise SystemExit({said!r})"})
    text = json.dumps(found) + (tmp_path / "gpu-proof" / "proof.html").read_text("utf-8")
    for word in ("box7", "12345678", "1650522003820", "/home/ada", str(tmp_path)):
        assert word not in text
    assert "Serial Number: ..." in text


def test_the_same_machine_and_schema_are_read_back(prove: Prove, tmp_path: Path) -> None:
    prove({"good": GOOD})
    found = load_proof(tmp_path / "gpu-proof" / "proof.json")
    assert isinstance(found, Proof)
    assert (found.steps[0].exit_code, found.steps[0].last_line) == (0, "it works")
