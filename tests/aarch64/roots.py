"""A root file system of arm64 that an x86-64 machine runs: unpacked, filled with wheels."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
EXTRAS = ("cpu", "export", "openvino", "parquet", "zmq", "mcap", "view", "sign")
ALSO = ("psutil", "pytest", "pytest-timeout")
TENSORRT = (
    ("10.5", "tensorrt_cu12_bindings==10.5.0", 10, 12),
    ("10.16", "tensorrt_cu13_bindings==10.16.*", 10, 13),
    ("11.4", "tensorrt_cu13_bindings==11.4.*", 11, 13),
)
"""TensorRT's own Python bindings: the oldest that there is for arm64, JetPack 7's, the newest. Each
with its major version and the newest Python 3 that there is a wheel for."""
DEBIAN = ("python3", "coreutils", "dash", "bash", "gcc", "libc6-dev", "libgl1")
"""With gcc for the stub libraries that the bindings load; OpenCV's wheel wants GL and GLib."""
PROCESSOR = "cortex-a76"
"""Of those that qemu 7.2 knows the one with an Orin's instructions (Cortex-A78AE): ARMv8.2 with
dot products and FP16, no SVE."""
CORES = 2


class NotPossibleError(RuntimeError):
    """This machine cannot run it: what is missing, and the next step."""


@dataclass(frozen=True)
class Suite:
    """A release of Debian or Ubuntu: its name, Python, C library, and whose package has GLib."""

    name: str
    python: str
    glibc: int
    glib: str = "libglib2.0-0"


SUITES = {
    suite.name: suite
    for suite in (
        Suite("bookworm", "3.11", 36),
        Suite("trixie", "3.13", 41, "libglib2.0-0t64"),
        Suite("jammy", "3.10", 35),  # Ubuntu 22.04, which JetPack 6 is
        Suite("noble", "3.12", 39, "libglib2.0-0t64"),  # Ubuntu 24.04, which JetPack 7 is
    )
}


class Root:
    """The root of one suite, in `folder`/`suite.name`; kept for the next run."""

    def __init__(self, folder: Path, suite: Suite) -> None:
        self.suite = suite
        self.folder = folder / suite.name
        self._packages = self.folder / "usr/local/lib" / f"python{suite.python}" / "dist-packages"

    def make(self) -> None:
        """Unpack it, unless it is there. No maintainer script runs: nothing of it is configured."""
        register_emulator()
        stamp = self.folder / ".made"
        made_of = " ".join((*DEBIAN, self.suite.glib))
        if stamp.exists() and stamp.read_text() == made_of:
            return
        _remove(self.folder)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        needed = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "chroot": "coreutils"}
        for program, package in needed.items():
            if shutil.which(program) is None:
                raise NotPossibleError(f"{program} is not installed: apt-get install {package}")
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64"),
                "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                f"--include={made_of.replace(' ', ',')}",
                *(self.suite.name, str(self.folder)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            _remove(self.folder)
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            said = [line for line in said if line.startswith("E: ")] or said
            raise NotPossibleError(
                f"mmdebstrap cannot unpack {self.suite.name} ({said[-1] if said else 'no word'}): "
                "name another with --suites, or give this machine that distribution's keyring"
            )
        for name in ("proc", "dev", "root", "run", "work"):
            (self.folder / name).mkdir(exist_ok=True)
        _write_processor(self.folder)
        stamp.write_text(made_of)

    def install(self) -> None:
        """Put the wheels of our extras into it, and of motorVAE what the checkout holds now."""
        wanted = [*_requirements(), *ALSO]
        stamp = self.folder / ".packages"
        made_of = "\n".join((*wanted, (REPOSITORY / "constraints.txt").read_text()))
        tags = [f"manylinux_2_{minor}_aarch64" for minor in range(17, self.suite.glibc + 1)]
        fetch = [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"),
            *("install", "--ignore-installed", "--only-binary=:all:", "--no-compile"),
            f"--python-version={self.suite.python}",
            *(f"--platform={tag}" for tag in ("manylinux2014_aarch64", *tags)),
        ]
        if not stamp.exists() or stamp.read_text() != made_of:
            _remove(self._packages)
            constraints = ["-c", str(REPOSITORY / "constraints.txt")]
            _pip([*fetch, f"--target={self._packages}", *constraints, *wanted])
            minor = int(self.suite.python.partition(".")[2])
            for requirement in (held[1] for held in TENSORRT if minor <= held[3]):
                target = self.folder / "work/bindings" / requirement.replace("*", "x")
                _pip([*fetch, "--no-deps", f"--target={target}", requirement])
            stamp.write_text(made_of)
        self._install_ours()

    def run_tests(self, expected: Path, most_s: int) -> int:
        """Run tests/aarch64/inside in it; returns pytest's exit code."""
        work = self.folder / "work"
        _remove(work / "expected")
        shutil.copytree(expected, work / "expected")
        (work / "figures.jsonl").unlink(missing_ok=True)
        command = [
            *("python3", "-P" if self.suite.python != "3.10" else "-B", "-m", "pytest"),
            *("-p", "no:cacheprovider", "--timeout=900", "--durations=12", "-ra"),
            "tests/aarch64/inside",
        ]
        return subprocess.run(self._entered(command, most_s), check=False).returncode

    def figures(self) -> list[object]:
        """What the tests have noted, one JSON document a line."""
        path = self.folder / "work/figures.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def _install_ours(self) -> None:
        copy = self.folder / "work/checkout"
        for place in (copy, self.folder / "work/ours"):
            _remove(place)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=REPOSITORY,
            capture_output=True,
            check=True,
        ).stdout
        for name in listed.decode().split("\0"):
            if name and (REPOSITORY / name).is_file() and not name.startswith("docs/"):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(REPOSITORY / name, copy / name)
        target = f"--target={self.folder / 'work/ours'}"
        _pip(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"),
                *("install", "--no-deps", "--no-build-isolation", "--no-compile", target),
                str(copy),
            ]
        )
        for name in ("runtime", "training", "export", "benchmarks"):  # never by their bare names
            _remove(copy / name)

    def _entered(self, command: list[str], most_s: int) -> list[str]:
        """Return a command in the root; its mounts are its own and end with it."""
        script = (
            'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && '
            'mount --bind "$1/work/cpuinfo" "$1/proc/cpuinfo" && root=$1 && shift && '
            'exec chroot "$root" "$@"'
        )
        variables = {
            "PATH": "/usr/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "QEMU_CPU": PROCESSOR,
            "PYTHONPATH": "/work/ours",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MOTORVAE_EXPECTED": "/work/expected",
            "MOTORVAE_FIGURES": "/work/figures.jsonl",
        }
        return [
            *("timeout", "--kill-after=10", str(most_s)),
            *("unshare", "--mount", "bash", "-c", script, "-", str(self.folder)),
            *("/usr/bin/env", "-i", "-C", "/work/checkout"),
            *(f"{name}={value}" for name, value in variables.items()),
            *command,
        ]


def register_emulator() -> None:
    """See that the kernel hands arm64 programs to qemu; a NotPossibleError where that cannot be."""
    if os.geteuid():
        raise NotPossibleError("a root is entered by chroot, which needs root: run it with sudo")
    places = Path("/proc/sys/fs/binfmt_misc")
    if not (places / "register").exists():
        mounted = subprocess.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", str(places)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode:
            raise NotPossibleError(f"this kernel has no binfmt_misc ({mounted.stderr.strip()})")
    if (places / "qemu-aarch64").exists():
        return
    rule = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
    if not rule.exists():
        raise NotPossibleError(
            "qemu-user-static is not installed: apt-get install qemu-user-static"
        )
    (places / "register").write_text(rule.read_text().strip())


def _requirements() -> list[str]:
    """Return what motorVAE and these extras ask for."""
    found = []
    for text in metadata.requires("motorvae") or ():
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            found.append(str(requirement))
    return found


def _pip(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pip failed: {done.stderr.strip()[-2000:]}")


def _write_processor(root: Path) -> None:
    """Write what a board's kernel says of its processor; the host's own would be x86's.

    The form is that of an Orin's /proc/cpuinfo and /sys. ONNX Runtime reads the lists of
    processors, OpenVINO ends by a signal without the sizes of the caches.
    """
    features = (
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp uscat ilrcpc flagm"
    )
    (root / "work/cpuinfo").write_text(
        "".join(
            f"processor\t: {core}\nBogoMIPS\t: 62.50\nFeatures\t: {features}\n"
            "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
            "CPU part\t: 0xd42\nCPU revision\t: 1\n\n"
            for core in range(CORES)
        )
    )
    every, whole = f"0-{CORES - 1}", f"{(1 << CORES) - 1:x}"
    cpu = root / "sys/devices/system/cpu"
    files = {"possible": every, "present": every, "online": every, "kernel_max": "255"}
    caches = (("Data", 1, 64), ("Instruction", 1, 64), ("Unified", 2, 256), ("Unified", 3, 2048))
    for core in range(CORES):
        own, mask = str(core), f"{1 << core:x}"
        at = f"cpu{core}"
        files |= {
            f"{at}/online": "1",
            f"{at}/regs/identification/midr_el1": "0x00000000410fd421",
            f"{at}/cpufreq/cpuinfo_max_freq": "1984000",
            f"{at}/cpufreq/cpuinfo_min_freq": "115200",
            f"{at}/topology/physical_package_id": "0",
            f"{at}/topology/core_id": own,
            f"{at}/topology/thread_siblings": mask,
            f"{at}/topology/thread_siblings_list": own,
            f"{at}/topology/core_cpus": mask,
            f"{at}/topology/core_cpus_list": own,
            f"{at}/topology/core_siblings": whole,
            f"{at}/topology/core_siblings_list": every,
            f"{at}/topology/package_cpus": whole,
            f"{at}/topology/package_cpus_list": every,
        }
        for number, (kind, level, kibibytes) in enumerate(caches):
            shared = level == len(caches) - 1
            files |= {
                f"{at}/cache/index{number}/{name}": value
                for name, value in {
                    "type": kind,
                    "level": str(level),
                    "size": f"{kibibytes}K",
                    "coherency_line_size": "64",
                    "ways_of_associativity": "4",
                    "number_of_sets": str(kibibytes << 2),
                    "shared_cpu_list": every if shared else own,
                    "shared_cpu_map": whole if shared else mask,
                }.items()
            }
    for name, value in files.items():
        (cpu / name).parent.mkdir(parents=True, exist_ok=True)
        (cpu / name).write_text(value + "\n")
    node = root / "sys/devices/system/node"
    (node / "node0").mkdir(parents=True, exist_ok=True)
    (node / "node0/cpulist").write_text(every + "\n")
    (node / "possible").write_text("0\n")
    (node / "online").write_text("0\n")


def _remove(folder: Path) -> None:
    """Delete a folder of ours; never through a mount, which would be somebody's /dev."""
    if not folder.exists():
        return
    # The kernel lists real paths, with a space in octal.
    mounts = os.fsencode(folder.resolve()).replace(b"\\", b"\\134").replace(b" ", b"\\040")
    listed = Path("/proc/mounts").read_bytes().splitlines()
    if any(line.split()[1].startswith(mounts + b"/") for line in listed):
        raise NotPossibleError(f"something is mounted below {folder}: unmount it first")
    shutil.rmtree(folder)


@functools.cache
def digest_of(*places: str) -> str:
    """Return a digest of files of the checkout, and of all below folders."""
    found = hashlib.sha256()
    for place in places:
        for path in (REPOSITORY / place, *sorted((REPOSITORY / place).rglob("*"))):
            if path.is_file() and path.suffix != ".pyc":
                found.update(path.relative_to(REPOSITORY).as_posix().encode())
                found.update(path.read_bytes())
    return found.hexdigest()
