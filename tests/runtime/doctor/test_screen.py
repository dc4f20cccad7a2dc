from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import pytest
from pydantic import ValidationError
from rich.console import Console

from motorvae.benchmarks.doctor import main
from motorvae.runtime.core.packages import version_of
from motorvae.runtime.core.system.memory import available_bytes
from motorvae.runtime.doctor import screen as screen_module
from motorvae.runtime.doctor.check_engines import (
    check_bundle,
    check_onnx,
    check_tensorrt,
    cuda_finding,
)
from motorvae.runtime.doctor.check_system import (
    cameras_finding,
    check_memory,
    check_opencv,
    check_packages,
    check_pyav,
    check_writing,
    gstreamer_finding,
    memory_finding,
    requirements_of,
)
from motorvae.runtime.doctor.finding import Finding
from motorvae.runtime.doctor.screen import Screen, examine_machine, findings_of, print_screen
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu, find_gpu
from motorvae.runtime.sources.device_names import Camera

NO_GPU = NoGpu("no NVIDIA driver (a test)")
ORIN = Gpu("A GPU of a test", "8.7", "13.0", "580.10", 8 << 30, integrated=True)
NOWHERE = Path("nowhere")

Doctor = Callable[..., tuple[int, dict[str, Finding]]]


def by_what(given: Iterable[Finding]) -> dict[str, Finding]:
    findings = list(given)
    found = {finding.what: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def call(python: Path, *args: object, cwd: Path, **environment: str) -> tuple[int, Screen]:
    """Run the command with --json in an interpreter of its own."""
    done = subprocess.run(
        [python, "-m", "motorvae.benchmarks.doctor", "--json", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
    )
    assert done.stderr == ""
    return done.returncode, Screen.model_validate_json(done.stdout)


def put_distribution(folder: Path, name: str, version: str) -> None:
    """The metadata that pip leaves of a package, and nothing of the package."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (place / "METADATA").write_text(text, encoding="utf-8")


@pytest.fixture
def distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on this interpreter's path, before those of the packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def base_packages() -> Iterator[importlib.metadata.Distribution]:
    """What `pip install motorvae` brings, and what that needs."""
    seen: set[str] = set()
    waiting = ["motorvae"]
    while waiting:
        name = waiting.pop()
        if name in seen or version_of(name) is None:
            continue
        seen.add(name)
        yield importlib.metadata.distribution(name)
        waiting += [r.package for r in requirements_of(name) if r.extra is None]


@pytest.fixture
def base_python(tmp_path: Path) -> Path:
    """A Python with motorVAE, its base packages and nothing else: links to those of this one."""
    folder = tmp_path / "base"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    for distribution in base_packages():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            origin = Path(str(distribution.locate_file(top)))
            if origin.exists() and not (site / top).exists():
                (site / top).symlink_to(origin)
    return folder / "bin" / "python"


def test_the_base_install_alone_is_told_what_is_missing(
    base_python: Path, small_bundle: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    code, screen = call(base_python, "--model", small_bundle, cwd=work)
    rows = by_what(screen.findings)
    assert code == 1
    assert screen.titles("FAILED") == ("ONNX Runtime",)
    assert rows["ONNX Runtime"].found == "not installed"
    assert rows["ONNX Runtime"].next_command == "pip install 'motorvae[cpu]'"
    assert rows["bundle"].verdict == rows["OpenCV"].verdict == rows["PyAV"].verdict == "ok"
    assert "encoder" not in rows  # nothing could run it
    assert rows["outputs"].verdict == rows["extras"].verdict == "optional"
    assert "zmq:// needs pyzmq" in rows["outputs"].found
    assert "torch" in rows["extras"].found
    missing = "openvino,train,export,bench,energy,loadgen,explore,umap,hub,remote,ray"
    assert rows["extras"].next_command == f"pip install 'motorvae[{missing}]'"


def test_a_missing_base_package_is_a_row_and_the_other_rows_are_there(
    base_python: Path, tmp_path: Path
) -> None:
    for name in ("numpy", "av"):
        for link in tmp_path.glob(f"base/lib/python*/site-packages/{name}*"):
            link.unlink()
    code, screen = call(base_python, cwd=tmp_path)
    rows = by_what(screen.findings)
    assert code == 1
    assert (rows["numpy"].verdict, rows["numpy"].found) == ("FAILED", "not installed")
    assert rows["numpy"].next_command == "pip install 'numpy>=1.26'"
    assert (rows["PyAV"].verdict, rows["PyAV"].next_command) == ("FAILED", "pip install av")
    assert rows["OpenCV"].found == "needs numpy, which is not installed"
    assert rows["working folder"].verdict == "ok"


def test_all_is_well_here_and_nothing_is_changed(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in small_bundle.rglob("*")}
    screen = examine_machine(small_bundle)
    rows = by_what(screen.findings)
    assert screen.titles("FAILED") == ()
    assert rows["Python"].found.startswith(sys.version.split()[0])
    assert rows["bundle"].found.startswith(f"{small_bundle}: encoder fp32, ")
    assert rows["encoder"].found == "fp32 ran on the CPU: 32x32 to 8 latents"
    assert "ran a graph on the CPU" in rows["ONNX Runtime"].found
    # Nothing but which graphs have been opened here once.
    assert list(tmp_path.iterdir()) == [cache]
    assert list(cache.iterdir()) == [cache / "motorvae"]
    assert list((cache / "motorvae").iterdir()) == [cache / "motorvae" / "opened"]
    assert {path: path.stat().st_mtime_ns for path in small_bundle.rglob("*")} == before


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_narrow_screen_wraps_and_cuts_nothing(
    width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = (
        Finding(what="one", found="q" * 130),
        Finding(what="two", found="[bold] :+1:", verdict="warn", next_command="type 'a[b]'"),
        Finding(what="three", found="gone", verdict="FAILED", next_command="install"),
        Finding(what="four", found="not here", verdict="optional"),
    )
    screen = Screen(schema_version=1, producer="a test", created="now", findings=findings)
    print_screen(Console(width=width, highlight=False, markup=False, emoji=False), screen)
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert max(map(len, lines)) <= width
    assert said.count("q") == 130
    assert "[bold] :+1:" in said
    assert "next: type 'a[b]'" in said
    assert lines[0] == "a test"
    assert [line.split()[:2] for line in lines[1:] if line[0] != " "][:4] == [
        ["ok", "one"],
        ["warn", "two"],
        ["FAILED", "three"],
        ["optional", "four"],
    ]
    assert "FAILED: three." in said


def test_what_is_wrong_has_a_next_command_or_is_no_finding() -> None:
    with pytest.raises(ValidationError, match="disk: FAILED needs a next_command"):
        Finding(what="disk", found="full", verdict="FAILED")


def test_the_bare_command_prints_the_screen_and_counts_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert "no bundle at bundle" in said.out
    assert "next: motorvae-train && motorvae-export --fp16" in said.out
    assert said.out.rstrip().splitlines()[-1].startswith("FAILED: bundle.")


def test_a_check_that_hangs_is_a_row_and_the_others_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("import signal\nsignal.pause()\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = findings_of(("tensorrt", "packages"), NOWHERE, 3)
    (row,) = found["tensorrt"]
    assert (row.what, row.verdict, row.found) == ("TensorRT", "warn", "no answer within 3 s")
    assert by_what(found["packages"])["packages"].verdict == "ok"


def test_a_check_that_computes_past_the_limit_still_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As all of them do on a slow machine; its answer comes after the first look at its time."""
    (tmp_path / "av.py").write_text(
        "import time\nend = time.monotonic() + 2.7\nwhile time.monotonic() < end:\n    pass\n"
        "raise RuntimeError('at last')\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (row,) = findings_of(("pyav",), NOWHERE, 2)["pyav"]
    assert row.found == "the check broke off: RuntimeError: at last"


class Silent:
    """A process that says nothing, on a clock that runs only while it is waited for."""

    pid = 1

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def communicate(self, timeout: float) -> tuple[bytes, bytes]:
        self.now += timeout
        raise subprocess.TimeoutExpired("a check", timeout)


@pytest.mark.parametrize(
    ("computes_s", "given_up_s"), [(0, 20), (14.9, 20), (17, 25), (23, 30), (1000, 120)]
)
def test_a_check_has_its_limit_and_a_quarter_more_as_long_as_it_computes(
    computes_s: float, given_up_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = Silent()
    monkeypatch.setattr(screen_module, "time", silent)
    monkeypatch.setattr(
        screen_module, "processor_s", lambda _pid: min(silent.now - 1000, computes_s)
    )
    process = cast("subprocess.Popen[bytes]", silent)
    with pytest.raises(subprocess.TimeoutExpired):
        screen_module._said_by(process, deadline=1020.0, limit_s=20.0)
    assert silent.now - 1000 == given_up_s


def test_a_check_that_crashes_or_breaks_off_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    (tmp_path / "av.py").write_text(crash, encoding="utf-8")
    (tmp_path / "cv2.py").write_text("raise RuntimeError('of a test')\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = findings_of(("pyav", "opencv"), NOWHERE, 60)
    (crashed,), (broken,) = found["pyav"], found["opencv"]
    assert (crashed.verdict, crashed.found) == ("FAILED", "the check crashed (SIGSEGV)")
    assert crashed.next_command == (
        "python -X faulthandler -m motorvae.runtime.doctor.run_check pyav nowhere"
    )
    assert (broken.verdict, broken.found) == (
        "FAILED",
        "the check broke off: RuntimeError: of a test",
    )


def test_sigterm_ends_the_checks_that_run(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    (tmp_path / "tensorrt.py").write_text(
        "import os, pathlib, signal\n"
        f"pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "signal.pause()\n",
        encoding="utf-8",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "motorvae.benchmarks.doctor"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        pid = int(started.read_text(encoding="utf-8"))  # waits until the check is there
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "motorvae-doctor: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_two_onnx_runtime_packages_are_told_with_the_way_out(distributions: Path) -> None:
    put_distribution(distributions, "onnxruntime-gpu", "1.20.0")
    (finding,) = check_onnx(NOWHERE)
    assert finding.verdict == "FAILED"
    assert finding.found.startswith("onnxruntime and onnxruntime-gpu are both installed")
    assert finding.next_command == (
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'motorvae[cpu]'"
    )


def test_what_is_left_after_removing_one_of_the_two_is_told(base_python: Path) -> None:
    """Their common folder is then there, and hardly anything in it."""
    (site,) = base_python.parents[1].glob("lib/python*/site-packages")
    (site / "onnxruntime").mkdir()
    put_distribution(site, "onnxruntime", "1.20.0")
    done = subprocess.run(
        [base_python, "-m", "motorvae.runtime.doctor.run_check", "onnx", "nowhere"],
        capture_output=True,
        check=True,
        timeout=60,
        cwd=base_python.parent,
    )
    (finding,) = json.loads(done.stdout)
    assert finding["verdict"] == "FAILED"
    assert finding["found"].startswith("onnxruntime is installed and runs nothing: ")
    assert finding["next_command"] == "pip install --force-reinstall onnxruntime"


def test_a_package_of_another_time_is_told(distributions: Path) -> None:
    put_distribution(distributions, "tyro", "0.9.2")
    put_distribution(distributions, "lightning", "3.0.1")
    rows = by_what(check_packages(NOWHERE))
    assert rows["tyro"].found == "0.9.2 is installed, and >=1.0 is needed"
    assert (rows["tyro"].verdict, rows["tyro"].next_command) == (
        "FAILED",
        "pip install 'tyro>=1.0'",
    )
    assert "train needs lightning" in rows["extras"].found


def test_two_opencv_packages_are_told(distributions: Path) -> None:
    if version_of("opencv-python") is None:
        pytest.skip("this environment has another OpenCV")
    put_distribution(distributions, "opencv-python-headless", "4.9.0.80")
    (finding,) = check_opencv(NOWHERE)
    assert finding.verdict == "FAILED"
    assert (finding.next_command or "").endswith("&& pip install opencv-python")


def test_an_altered_bundle_is_told_with_the_command_that_writes_it(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (bundle_copy / "encoder.onnx").open("r+b") as file:
        file.write(b"x")
    monkeypatch.chdir(tmp_path)
    (finding,) = check_bundle(Path("bundle"))
    assert finding.verdict == "FAILED"
    assert "encoder.onnx was altered" in finding.found
    assert finding.next_command == "motorvae-train && motorvae-export --fp16"
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    (finding,) = check_bundle(bundle_copy)
    assert finding.next_command == f"motorvae-export --fp16 --output {bundle_copy}"


def test_an_engine_is_told_with_what_it_was_built_for(
    request: pytest.FixtureRequest,
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    rtx_bundle: Path = request.getfixturevalue("rtx_bundle")
    if isinstance(find_gpu(), Gpu):
        pytest.skip("this machine has a GPU, which the engine may fit")
    rows = by_what(check_bundle(rtx_bundle))
    assert rows["engine fp16"].verdict == "optional"
    assert rows["engine fp16"].found.startswith("TensorRT-RTX 1.")
    assert rows["engine fp16"].found.endswith("; no GPU here runs it")


def test_an_unreadable_engine_manifest_is_told_with_the_command_that_builds(
    bundle_copy: Path,
) -> None:
    engines = bundle_copy / "engines"
    engines.mkdir()
    (engines / "encoder.fp16.tensorrt.json").write_text("{", encoding="utf-8")
    finding = by_what(check_bundle(bundle_copy))["engine fp16"]
    assert finding.verdict == "warn"
    assert finding.next_command == f"motorvae-export --model {bundle_copy} --engine tensorrt --fp16"


def test_a_folder_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.chdir("/proc")
    folder, cache = check_writing(NOWHERE)
    assert (folder.verdict, folder.next_command) == ("FAILED", "cd ~")
    assert folder.found == "nothing can be written here: No such file or directory"
    assert (cache.verdict, cache.next_command) == ("warn", "export XDG_CACHE_HOME=$PWD/.cache")
    assert cache.found.endswith("cannot be written: Not a directory; it only saves time")


def test_memory_is_held_against_what_a_stream_takes() -> None:
    verdicts = [memory_finding(gb, 2, shared=False).verdict for gb in (1, 2, 3, 4)]
    assert verdicts == ["FAILED", "warn", "warn", "ok"]
    assert "shared with the GPU" in memory_finding(1, 2, shared=True).found
    available = available_bytes()
    assert available is not None
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available <= total
    (finding,) = check_memory(NOWHERE)
    assert "a stream takes about 0.4 GB" in finding.found


def test_cuda_that_is_only_listed_is_told_as_such() -> None:
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert cuda_finding(["CPUExecutionProvider"], NO_GPU) is None
    without = cuda_finding(listed, NO_GPU)
    assert without is not None
    assert without.found == "listed, and does not load: no NVIDIA driver (a test)"
    assert without.verdict == "optional"
    unused = cuda_finding(["CPUExecutionProvider"], ORIN)
    assert unused is not None
    assert (unused.next_command or "").endswith("pip install 'motorvae[gpu]'")


def test_cuda_that_does_not_load_on_a_gpu_is_a_warning() -> None:
    if isinstance(find_gpu(), Gpu):
        pytest.skip("this machine has a GPU, where CUDA may load")
    finding = cuda_finding(["CUDAExecutionProvider"], ORIN)  # this ONNX Runtime has none
    assert finding is not None
    assert finding.verdict == "warn"
    assert finding.found.startswith("listed, and does not load: provider 'cuda' is not in this")


def test_tensorrt_rtx_without_a_gpu_is_named_with_its_version() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    if isinstance(find_gpu(), Gpu):
        pytest.skip("this machine has a GPU")
    (finding,) = check_tensorrt(NOWHERE, "tensorrt-rtx")
    assert finding.verdict == "optional"
    assert finding.found == f"{version_of('tensorrt-rtx')}; runs engines on an NVIDIA GPU only"


def test_gstreamer_is_read_from_how_opencv_was_built() -> None:
    has = gstreamer_finding("    GStreamer:                   YES (1.24.2)\n", on_jetson=True)
    assert (has.verdict, has.found) == ("ok", "1.24.2, for csi:// and gst:")
    lacks = gstreamer_finding("    GStreamer:                   NO\n", on_jetson=True)
    assert lacks.verdict == "optional"
    assert (lacks.next_command or "").startswith("pip uninstall -y opencv-python")


def test_pyav_has_what_network_cameras_need() -> None:
    (finding,) = check_pyav(NOWHERE)
    assert finding.verdict == "ok"
    assert finding.found.endswith("with rtsp and h264")


def test_cameras_are_named_without_their_serial_numbers() -> None:
    device = Path("/dev/video0")
    link = Path("/dev/v4l/by-id/usb-Maker_Lens_S3R14L-video-index0")
    listed = [Camera(device, "A lens", link)]
    finding = cameras_finding(listed, {})
    assert finding.verdict == "ok"
    assert "A lens" in finding.found
    assert "S3R14L" not in finding.found
    closed = cameras_finding(listed, {device: True})
    assert (closed.verdict, (closed.next_command or "")[:21]) == ("FAILED", "sudo usermod -aG vide")
    absent = cameras_finding(listed, {device: False})
    assert absent.next_command == "docker run --device /dev/video0"
    none = cameras_finding([], {})
    assert (none.verdict, none.found) == ("warn", "none found")


def test_a_jetsons_sensors_are_for_csi_and_need_no_device_file() -> None:
    sensor = Camera(Path("/dev/video0"), "vi-output, imx219 9-0010", None)
    alone = cameras_finding([sensor], {})
    assert (alone.verdict, alone.found) == (
        "ok",
        "1 on the CSI connector, for csi://: vi-output, imx219 9-0010",
    )
    beside = cameras_finding([sensor, Camera(Path("/dev/video2"), "A lens", None)], {})
    assert beside.found == "2: /dev/video0 (vi-output, imx219 9-0010), /dev/video2 (A lens)"


def test_the_screen_tells_no_user_and_no_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "some-user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    screen = examine_machine(home / "bundle")
    text = screen.model_dump_json()
    assert "some-user" not in text
    assert not re.search(rf"\b{re.escape(platform.node())}\b", text)
    rows = by_what(screen.findings)
    assert rows["cache folder"].found == "~/.cache/motorvae can be written"
    assert rows["bundle"].found == "no bundle at ~/bundle"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "61"])
def test_cameras_takes_a_time_that_makes_sense(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cameras", "--seconds", seconds]) == 1
    assert capsys.readouterr().err == (
        f"motorvae-doctor: --seconds {seconds}: take more than 0 and at most 60\n"
    )
