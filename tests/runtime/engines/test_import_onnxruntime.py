"""What ONNX Runtime says of an arm64 processor is printed by a stand-in module, in its words."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Importing = Callable[..., subprocess.CompletedProcess[str]]

# As seen of version 1.32.0 in an arm64 root without /sys; and pytorch issue 138333.
NO_SYS = """\
Error in cpuinfo: failed to parse the list of possible processors in /sys/devices/system/cpu/possible
Error in cpuinfo: failed to parse the list of present processors in /sys/devices/system/cpu/present
Error in cpuinfo: failed to parse both lists of possible and present processors
onnxruntime cpuid_info warning: Failed to initialize PyTorch cpuinfo library. May cause CPU EP performance degradation due to undetected CPU features.
onnxruntime cpuid_info warning: Unknown CPU vendor. cpuinfo_vendor value: 0
onnxruntime warning: cpuinfo_initialize failed. May cause CPU EP performance degradation due to undetected CPU features.
"""  # noqa: E501
NO_SVE = "Error in cpuinfo: prctl(PR_SVE_GET_VL) failed\n"
ARM64 = "import os, types; os.uname = lambda: types.SimpleNamespace(machine='aarch64')"
OTHER = "libcudart.so.12 is older than this build\n"


@pytest.fixture
def importing(tmp_path: Path) -> Importing:
    def run(said: str, after: str = "", code: str = ARM64) -> subprocess.CompletedProcess[str]:
        module = f"import os\nif {said!r}:\n    os.write(2, {said.encode()!r})\n{after}"
        (tmp_path / "onnxruntime.py").write_text(module)
        script = f"""
            import sys
            sys.path.insert(0, {str(tmp_path)!r})
            {code}
            from motorvae.runtime.engines.import_onnxruntime import unknown_processor
            print(unknown_processor())
            """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_six_lines_about_the_processor_become_one_clause(importing: Importing) -> None:
    done = importing(NO_SYS)
    assert done.stderr == ""
    assert done.stdout.startswith("it could not tell which processor this is")


@pytest.mark.parametrize("said", [NO_SVE, ""])
def test_what_costs_nothing_is_no_finding(importing: Importing, said: str) -> None:
    done = importing(said)
    assert (done.stderr, done.stdout) == ("", "None\n")


def test_everything_else_is_printed(importing: Importing) -> None:
    done = importing(OTHER + NO_SVE + OTHER)
    assert done.stderr == OTHER * 2


def test_an_import_that_fails_says_what_it_said(importing: Importing) -> None:
    done = importing(OTHER, after="raise ImportError('libonnxruntime.so is damaged')")
    assert OTHER in done.stderr
    assert "libonnxruntime.so is damaged" in done.stderr
    assert done.returncode == 1


def test_a_closed_standard_error_is_no_obstacle(importing: Importing) -> None:
    done = importing("", code=ARM64 + "; os.close(2)")
    assert (done.returncode, done.stdout) == (0, "None\n")


def test_on_another_processor_nothing_is_held_back(importing: Importing) -> None:
    here = ARM64.replace("aarch64", "x86_64")
    assert importing(OTHER + NO_SVE, code=here).stderr == OTHER + NO_SVE
