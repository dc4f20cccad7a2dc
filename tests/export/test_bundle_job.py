from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from motorvae.export import bundle_job
from motorvae.export.bundle_job import BundleJob
from motorvae.export.options import BundleOptions
from motorvae.export.tensorrt.build import EngineBuildRequest
from motorvae.runtime.core.errors import EngineError, VerificationError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.package import import_tensorrt

ADA = Gpu("NVIDIA L4", "8.9", "13.2", None, 24 << 30, integrated=False)

Built = Callable[..., "tuple[str, list[str]]"]


@pytest.fixture
def built(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """Add engines on a GPU where those of one precision fail; what is said, and what was built."""

    def add(
        options: BundleOptions, failing: str = "", error: Exception | None = None
    ) -> tuple[str, list[str]]:
        names: list[str] = []

        def add_engines(_bundle: object, request: EngineBuildRequest, *_: object, **__: object):
            if request.precision == failing and error is not None:
                raise error
            names.append(request.precision)
            return ()

        found = (import_tensorrt("tensorrt-rtx"), ADA)
        monkeypatch.setattr(bundle_job, "find_builder", lambda _: found)
        monkeypatch.setattr(bundle_job, "add_engines_to_bundle", add_engines)
        said = io.StringIO()
        BundleJob(options, Console(file=said, width=200)).run(bundle_copy, lambda _: ())
        return said.getvalue(), names

    return add


ERRORS = [EngineError("no room for it"), VerificationError("it drifted")]


@pytest.mark.parametrize("error", ERRORS)
def test_int8_engines_are_built_where_the_fp16_ones_to_compare_with_are_not(
    built: Built, error: Exception
) -> None:
    said, names = built(BundleOptions(int8=("tensorrt",)), "fp16", error)
    assert names == ["int8"]
    assert f"no fp16 engine was built, and none was asked for: {error}" in said


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("options", "failing"),
    [
        (BundleOptions(int8=("tensorrt",)), "int8"),
        (BundleOptions(fp16=True, int8=("tensorrt",)), "fp16"),
    ],
    ids=["int8", "fp16"],
)
def test_what_was_asked_for_and_is_not_built_is_an_error(
    built: Built, options: BundleOptions, failing: str, error: Exception
) -> None:
    with pytest.raises(type(error), match=str(error)):
        built(options, failing, error)


def test_fp16_engines_that_are_there_stay_as_they_are(
    rtx_bundle: Path, tmp_path: Path, built: Built
) -> None:
    """Tuned, perhaps; of another batch size they are not for comparing, and stay all the same."""
    shutil.copytree(rtx_bundle / "engines", tmp_path / "bundle" / "engines")
    for batch in ("1,1,8", "2,2,2"):
        said, names = built(BundleOptions(int8=("tensorrt",), batch=batch))
        assert (said, names) == ("", ["int8"])
    for path in (tmp_path / "bundle" / "engines").glob("*.engine"):
        path.write_bytes(b"damaged")
    said, names = built(BundleOptions(int8=("tensorrt",)))
    assert names == ["fp16", "int8"]
    assert said == "FP16 engines are built as well, to measure INT8 against them\n"


@pytest.mark.parametrize(("minutes", "expected"), [(None, 10), (7, 7)])
def test_what_int8_is_measured_against_is_tuned_alike(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, minutes: float | None, expected: float
) -> None:
    requests: list[EngineBuildRequest] = []

    def add_engines(_bundle: object, request: EngineBuildRequest, *_: object, **__: object):
        requests.append(request)
        return ()

    package = replace(import_tensorrt("tensorrt-rtx"), name="tensorrt")  # which has routes
    monkeypatch.setattr(bundle_job, "find_builder", lambda _: (package, ADA))
    monkeypatch.setattr(bundle_job, "add_engines_to_bundle", add_engines)
    said = io.StringIO()
    options = BundleOptions(int8=("tensorrt",), tune=True, tune_minutes=minutes)
    BundleJob(options, Console(file=said, width=200)).run(bundle_copy, lambda _: ())
    assert said.getvalue().startswith("FP16 engines are built and tuned as well, to measure INT8")
    assert [one.precision for one in requests] == ["fp16", "int8"]
    assert {one.tune_minutes for one in requests} == {expected}
