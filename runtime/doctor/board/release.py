"""Which JetPack a Jetson has, which TensorRT and CUDA, and whether motorVAE supports the pair.

L4T is NVIDIA's name for the Linux of a Jetson; JetPack is that with CUDA, TensorRT and more. The
table of releases is that of rbonghi/jetson_stats (jtop/core/jetson_variables.py), whose source is
NVIDIA's JetPack archive; 39.2.1 comes from the dump of an Orin Nano in
vdavid21/edge-inference-benchmark-lab. TensorRT's versions are in docs/jetson.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...engines.tensorrt.package import OLDEST_TENSORRT
from ..finding import Finding
from .container import RELEASE, container_of
from .tree import Tree, Unread

JETPACKS = {
    "39.2.1": "7.2.1",
    "39.2.0": "7.2",
    "38.4.0": "7.1",
    "38.2.2": "7.0",
    "38.2.1": "7.0",
    "38.2.0": "7.0",
    "36.5.0": "6.2.2",
    "36.4.7": "6.2.1",
    "36.4.4": "6.2.1",
    "36.4.3": "6.2",
    "36.4.2": "6.1",
    "36.4.0": "6.1",
    "36.3.0": "6.0",
    "36.2.0": "6.0 (developer preview)",
    "35.6.4": "5.1.6",
    "35.6.3": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.1": "5.1.5",
    "35.6.0": "5.1.4",
    "35.5.0": "5.1.3",
    "35.4.1": "5.1.2",
    "35.3.1": "5.1.1",
    "35.2.1": "5.1",
    "35.1.0": "5.0.2",
}
"""JetPack's version by that of L4T."""
_MAJORS = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7, 39: 7}
"""JetPack's first number by L4T's first number, for releases that are not in the table."""
_KERNELS = {"5.10": 5, "5.15": 6, "6.8": 7}
"""JetPack's first number by the kernel's version, which a container sees, too."""
_OLDEST_JETPACK = 6
_FIRST_11_FOR_JETSON = (11, 4, 1)

_DPKG = "/var/lib/dpkg/status"
_LIBRARIES = "/usr/lib/aarch64-linux-gnu"
_MOST_DPKG_BYTES = 64 << 20  # that of a desktop has a few MB
_WANTED = re.compile(
    r"nvidia-jetpack|nvidia-l4t-core|libnvinfer[0-9]{1,3}|python3-libnvinfer"
    r"|cuda-(?:cudart|toolkit)-[0-9]{1,3}-[0-9]{1,3}"
)
_UPGRADE = "motorvae-stream --camera 0 --backend onnx  # until JetPack 6.2 or newer is there"


class Release(NamedTuple):
    """What is installed; a version that could not be found is None."""

    l4t: str | None
    l4t_package: str | None  # of the package whose file says `l4t`
    jetpack: str | None  # as the table or the package says
    major: int | None  # of JetPack; that of the kernel where nothing else tells
    tensorrt: str | None
    tensorrt_cuda: int | None  # first number of the CUDA that TensorRT was built for
    python_tensorrt: bool
    cuda: str | None


def release_of(tree: Tree) -> Release | tuple[Unread, Unread]:
    """Read /etc/nv_tegra_release and dpkg's list; both reasons where neither can be read."""
    text, packages = tree.read(RELEASE), installed_packages(tree)
    if isinstance(text, Unread) and isinstance(packages, Unread):
        return text, packages
    of_dpkg = {} if isinstance(packages, Unread) else packages
    l4t_package = _numbers_of(of_dpkg.get("nvidia-l4t-core"))
    l4t = (None if isinstance(text, Unread) else l4t_from_text(text)) or l4t_package
    jetpack = _numbers_of(of_dpkg.get("nvidia-jetpack")) or JETPACKS.get(l4t or "")
    major = int(jetpack.split(".")[0]) if jetpack else None
    if major is None and l4t:
        major = _MAJORS.get(int(l4t.split(".")[0]))
    elif major is None:
        major = _major_of_kernel(tree)
    inference = {n: v for n, v in of_dpkg.items() if re.fullmatch(r"libnvinfer[0-9]+", n)}
    newest = max(inference.values(), key=_tuple_of, default=None)
    if newest is None:  # an image may have it from an archive
        files = tree.names(_LIBRARIES, r"libnvinfer\.so(?:\.[0-9]{1,6}){2,5}")
        newest = max((n.partition(".so.")[2] for n in files), key=_tuple_of, default=None)
    cuda = [n for n in of_dpkg if n.startswith("cuda-")]
    built_for = re.search(r"\+cuda([0-9]{1,3})", newest or "")
    return Release(
        l4t=l4t,
        l4t_package=l4t_package,
        jetpack=jetpack,
        major=major,
        tensorrt=_numbers_of(newest),
        tensorrt_cuda=int(built_for[1]) if built_for else None,
        python_tensorrt="python3-libnvinfer" in of_dpkg,
        cuda=max((".".join(n.split("-")[-2:]) for n in cuda), key=_tuple_of, default=None),
    )


def l4t_from_text(text: str) -> str | None:
    """Return L4T's version, such as 36.4.7, from `# R36 (release), REVISION: 4.7, ...`."""
    found = re.search(
        r"#\s*R([0-9]{1,4})\s*\(release\),\s*REVISION:\s*([0-9]{1,4})(?:\.([0-9]{1,4}))?", text
    )
    return f"{found[1]}.{found[2]}.{found[3] or 0}" if found else None


def installed_packages(tree: Tree) -> dict[str, str] | Unread:
    """Return the versions of the packages that matter here, from dpkg's own list."""
    text = tree.read(_DPKG, _MOST_DPKG_BYTES)
    if isinstance(text, Unread):
        return text
    found = {}
    for paragraph in re.split(r"\n[ \t]*\n", text):
        name = re.match(r"Package: (\S+)$", paragraph, re.MULTILINE)
        if not (name and _WANTED.fullmatch(name[1])):
            continue
        version = re.search(r"^Version: (\S+)$", paragraph, re.MULTILINE)
        if version and re.search(r"^Status: \S+ \S+ installed$", paragraph, re.MULTILINE):
            found[name[1]] = version[1]
    return found


def _major_of_kernel(tree: Tree) -> int | None:
    kernel = tree.read("/proc/sys/kernel/osrelease")
    found = None if isinstance(kernel, Unread) else re.match(r"([0-9]+\.[0-9]+)\.\S*tegra", kernel)
    return _KERNELS.get(found[1]) if found else None


def check_release(tree: Tree) -> Iterator[Finding]:
    """Name JetPack with its TensorRT and CUDA, and what is wrong with the pair."""
    release = release_of(tree)
    if not isinstance(release, Release):
        problem = (
            f"could not be read: {RELEASE} is {release[0].reason}, {_DPKG} {release[1].reason}"
        )
        yield Finding("JetPack", problem, "optional", f"cat {RELEASE}")
        return
    parts = [_title(release)]
    parts.append(f"TensorRT {release.tensorrt}" if release.tensorrt else "no TensorRT package")
    if release.cuda:
        parts.append(f"CUDA {release.cuda}")
    found = ", ".join(parts)
    objection = next(_objections(release, inside=container_of(tree) is not None), None)
    if objection is None:
        yield Finding("JetPack", f"{found}; this motorVAE supports them")
    else:
        yield Finding("JetPack", f"{found}; {objection[0]}", "warn", objection[1])


def _title(release: Release) -> str:
    """Return which JetPack it is, as far as it is known."""
    if release.l4t is None and release.jetpack:
        return f"{release.jetpack} by its package"
    if release.l4t is None:
        return f"{release.major} by the kernel" if release.major else "not known"
    if release.jetpack:
        return f"{release.jetpack} (L4T {release.l4t})"
    if release.major:
        return f"an unknown release of JetPack {release.major} (L4T {release.l4t})"
    return f"unknown (L4T {release.l4t})"


def _objections(release: Release, *, inside: bool) -> Iterator[tuple[str, str]]:
    """Yield what is wrong, as a clause, and the command; the first of several counts.

    `inside` a container the packages are the image's, which may have a module without a package.
    """
    major, version = release.major, _tuple_of(release.tensorrt or "")
    if major is not None and major < _OLDEST_JETPACK:
        yield f"JetPack {major} is older than motorVAE's Python and TensorRT need", _UPGRADE
    if release.tensorrt is None and inside:
        image = f"docker build -f containers/jetpack{7 if major == 7 else 6}.Dockerfile ."
        yield "this container's image has none", image
    elif release.tensorrt is None:
        yield "engines need it", "sudo apt-get install nvidia-jetpack"
    elif version[:2] < OLDEST_TENSORRT:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        yield f"engines need TensorRT {oldest} or newer", _UPGRADE
    elif version[0] == 11 and version[:3] < _FIRST_11_FOR_JETSON:
        yield "TensorRT 11 supports Jetsons from 11.4.1 on", "apt-cache policy tensorrt"
    if release.cuda and release.tensorrt_cuda not in {None, int(release.cuda.split(".")[0])}:
        built_for = f"TensorRT was built for CUDA {release.tensorrt_cuda}"
        yield f"{built_for}, which is not installed", "apt-cache policy libnvinfer10"
    if not (release.python_tensorrt or inside):
        install = "sudo apt-get install python3-libnvinfer"
        yield "its Python module is not installed", install
    if release.l4t_package and release.l4t != release.l4t_package and not inside:
        problem = f"the package nvidia-l4t-core is {release.l4t_package}: an upgrade is unfinished"
        yield problem, "sudo apt-get install --fix-broken && sudo reboot"


def _numbers_of(version: str | None) -> str | None:
    """Return the numbers at the start of a package's version: 10.3.0.30 of 10.3.0.30-1+cuda12.5."""
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,5}", version or "")
    return found[0] if found else None


def _tuple_of(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]{1,9}", version)[:6]))
