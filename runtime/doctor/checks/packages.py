"""The doctor's checks of Python and its packages, against what motorVAE's metadata asks for."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import sentence_list
from ...core.packages import OPENCV_PACKAGES, version_of, versions_of
from ...engines.tensorrt.engine_manifest import this_platform
from ..finding import Finding

OUTPUTS = {"pyarrow": ".parquet", "pyzmq": "zmq://", "mcap": ".mcap", "rerun-sdk": "--view"}
"""What each optional package writes to."""

_OWN_ROWS = {*OPENCV_PACKAGES, "av"}
"""Absent or not is seen by importing them: a Jetson's own OpenCV is in no list of packages."""
_ENGINES = {"cpu", "gpu", "tensorrt", "tensorrt-rtx", "pycuda"}
_DEVELOPERS = {"dev", "docs"}
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of the metadata.

    Attributes:
        package: Its name.
        bounds: Such as ">=2.8,<3".
        extra: The extra that asks for it, or None where motorVAE itself does.
    """

    package: str
    bounds: str
    extra: str | None

    def problem(self) -> str | None:
        """Return in a clause what is wrong with what is installed, or None."""
        version = version_of(self.package)
        if version is None:
            return "not installed"
        for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", self.bounds):
            if (_numbers(version) >= _numbers(bound)) != (sign == ">="):
                return f"{version} is installed, and {sign}{bound} is needed"
        return None


def check_packages(_model: Path) -> tuple[Finding, ...]:
    """Look at Python, the packages of every installation, and those of the extras."""
    try:
        requirements = requirements_of("motorvae")
    except importlib.metadata.PackageNotFoundError:
        problem = "this Python runs it without having it installed"
        return _python(()), Finding("motorvae", problem, "FAILED", "pip install -e '.[cpu]'")
    tested = importlib.metadata.metadata("motorvae").get_all("Classifier") or []
    return (
        _python(tuple(tested)),
        *_base(requirements),
        _outputs(requirements),
        _extras(requirements),
    )


def requirements_of(package: str) -> tuple[Requirement, ...]:
    """Return what an installed package asks for.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    found = []
    for line in importlib.metadata.requires(package) or ():
        text, _, marker = line.partition(";")
        name = re.match(r"[\w.-]+", text)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if name:
            bounds = text[name.end() :].strip()
            package = installed_opencv() if name[0] == OPENCV_PACKAGES[0] else name[0]
            found.append(Requirement(package, bounds, extra[1] if extra else None))
    return tuple(found)


def installed_opencv() -> str:
    """Return the package of OpenCV that is here, any of which serves; else the one asked for."""
    return next(iter(versions_of(OPENCV_PACKAGES)), OPENCV_PACKAGES[0])


def _python(classifiers: tuple[str, ...]) -> Finding:
    tested = [text.rpartition(" ")[2] for text in classifiers if re.search(r":: 3\.\d+$", text)]
    version = platform.python_version()
    found = f"{version} on {this_platform()}"
    if not tested or version.rpartition(".")[0] in tested:
        return Finding("Python", found)
    problem = f"{found}; this motorVAE is tested with {sentence_list(tested)}"
    return Finding("Python", problem, "warn", f"python{tested[-1]} -m venv .venv")


def _base(requirements: tuple[Requirement, ...]) -> tuple[Finding, ...]:
    wrong, right = [], []
    for requirement in requirements:
        package, problem = requirement.package, requirement.problem()
        version = version_of(package)
        if requirement.extra or (package in _OWN_ROWS and (problem is None or version is None)):
            continue
        if problem is None:
            right.append(f"{package} {version}")
        else:
            command = f"pip install '{package}{requirement.bounds}'"
            wrong.append(Finding(package, problem, "FAILED", command))
    return (Finding("packages", sentence_list(right)), *wrong)


def _outputs(requirements: tuple[Requirement, ...]) -> Finding:
    extras = {r.package: r.extra for r in requirements if r.package in OUTPUTS}
    present, absent, missing = [], [], []
    for package, target in OUTPUTS.items():
        if version := version_of(package):
            present.append(f"{target} ({package} {version})")
        else:
            extra = extras.get(package)
            absent.append(f"{target} needs {package}")
            missing.append(f"'motorvae[{extra}]'" if extra else package)
    if not absent:
        return Finding("outputs", sentence_list(present))
    command = f"pip install {' '.join(dict.fromkeys(missing))}"
    return Finding("outputs", "; ".join((*present, *absent)), "optional", command)


def _extras(requirements: tuple[Requirement, ...]) -> Finding:
    """Return which extras are complete; engines and outputs have rows of their own."""
    packages: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        if requirement.extra and requirement.extra not in _ENGINES | _DEVELOPERS:
            packages.setdefault(requirement.extra, []).append(requirement)
    complete, lacking = [], {}
    for extra, needed in packages.items():
        if all(requirement.package in OUTPUTS for requirement in needed):
            continue
        if problems := [requirement.package for requirement in needed if requirement.problem()]:
            lacking[extra] = problems
        else:
            complete.append(extra)
    if not lacking:
        return Finding("extras", sentence_list(complete))
    texts = [f"{extra} needs {sentence_list(problems)}" for extra, problems in lacking.items()]
    command = f"pip install 'motorvae[{','.join(lacking)}]'"
    return Finding("extras", "; ".join((*complete, *texts)), "optional", command)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first numbers of a version, as many for each so that they compare."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:_PARTS]]
    return tuple(numbers + [0] * (_PARTS - len(numbers)))
