from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import BackendError, MissingDependencyError
from motorvae.runtime.engines.tensorrt.package import EngineLog, import_tensorrt, title_of


@pytest.fixture
def tensorrt_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Let `import tensorrt` run this text, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    earlier = sys.modules.pop("tensorrt", None)

    def write(text: str) -> None:
        (tmp_path / "tensorrt.py").write_text(text, encoding="utf-8")

    yield write
    sys.modules.pop("tensorrt", None)
    if earlier is not None:
        sys.modules["tensorrt"] = earlier


def test_real_tensorrt_rtx_opens() -> None:
    package = import_tensorrt("tensorrt-rtx")
    assert package.is_rtx
    assert package.trt is sys.modules["tensorrt_rtx"]
    assert package.title == f"TensorRT-RTX {package.version}"
    supported = package.supported_capabilities()
    assert supported is not None
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(supported)
    assert "7.5" not in package.portable_capabilities()
    assert set(package.portable_capabilities()) < set(supported)


def test_absent_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'motorvae\[tensorrt\]'"):
        import_tensorrt("tensorrt")


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "9.0"])
def test_version_before_the_first_that_fits_is_refused(
    tensorrt_says: Callable[[str], None], version: str
) -> None:
    tensorrt_says(f"__version__ = {version!r}\n")
    with pytest.raises(BackendError, match=rf"TensorRT {version} is older than 10\.3"):
        import_tensorrt("tensorrt")


def test_package_whose_library_is_missing_says_which(
    tensorrt_says: Callable[[str], None],
) -> None:
    tensorrt_says("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    with pytest.raises(MissingDependencyError, match=r"does not load \(libnvinfer\.so\.10"):
        import_tensorrt("tensorrt")


def test_package_that_misses_another_one_is_not_called_absent(
    tensorrt_says: Callable[[str], None],
) -> None:
    tensorrt_says("import no_such_module_of_nvidia\n")
    with pytest.raises(MissingDependencyError, match=r"does not load .*no_such_module_of_nvidia"):
        import_tensorrt("tensorrt")


def test_empty_folder_of_that_name_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensorrt_says: Callable[[str], None]
) -> None:
    (tmp_path / "elsewhere" / "tensorrt").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    del tensorrt_says  # only to forget the module afterwards
    with pytest.raises(MissingDependencyError, match="holds no TensorRT"):
        import_tensorrt("tensorrt")


def test_log_keeps_errors_and_quotes_the_first_without_nvidias_source_line() -> None:
    trt = import_tensorrt("tensorrt-rtx").trt
    log = EngineLog(trt)
    assert log.said() == "it gave no reason"
    log.logger.log(trt.ILogger.WARNING, "only a warning")
    log.logger.log(trt.ILogger.ERROR, "no memory\n  left (In build at /_src/optimizer/x.cpp:1)")
    log.logger.log(trt.ILogger.INTERNAL_ERROR, "and more")
    assert log.errors[1:] == ["and more"]
    assert log.said() == "no memory left"


def test_titles() -> None:
    assert (title_of("tensorrt"), title_of("tensorrt-rtx")) == ("TensorRT", "TensorRT-RTX")
