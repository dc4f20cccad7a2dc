from __future__ import annotations

import sys
from pathlib import Path

import pytest

from motorvae.runtime.errors import BackendError, MissingDependencyError
from motorvae.runtime.flavours import EngineLog, open_flavour, title_of


def test_real_tensorrt_rtx_opens() -> None:
    flavour = open_flavour("tensorrt-rtx")
    assert flavour.is_rtx
    assert flavour.trt is sys.modules["tensorrt_rtx"]
    assert flavour.title == f"TensorRT-RTX {flavour.version}"
    supported = flavour.supported_capabilities()
    assert supported is not None
    assert {"7.5", "8.6", "8.9", "12.0"} <= set(supported)
    assert "7.5" not in flavour.portable_capabilities()
    assert set(flavour.portable_capabilities()) < set(supported)


def test_absent_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'motorvae\[tensorrt\]'"):
        open_flavour("tensorrt")


@pytest.mark.parametrize("version", ["8.6.1", "10.2.0", "9.0"])
def test_version_before_the_first_that_fits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(f"__version__ = {version!r}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendError, match=rf"TensorRT {version} is older than 10\.3"):
        open_flavour("tensorrt")


def test_package_whose_library_is_missing_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "raise ImportError('libnvinfer.so.10: cannot open shared object file')\n"
    (tmp_path / "tensorrt.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependencyError, match=r"does not load \(libnvinfer\.so\.10"):
        open_flavour("tensorrt")


def test_log_keeps_errors_and_quotes_the_first_without_nvidias_source_line() -> None:
    trt = open_flavour("tensorrt-rtx").trt
    log = EngineLog(trt)
    assert log.said() == "it gave no reason"
    log.logger.log(trt.ILogger.WARNING, "only a warning")
    log.logger.log(trt.ILogger.ERROR, "no memory\n  left (In build at /_src/optimizer/x.cpp:1)")
    log.logger.log(trt.ILogger.INTERNAL_ERROR, "and more")
    assert log.errors[1:] == ["and more"]
    assert log.said() == "no memory left"


def test_titles() -> None:
    assert (title_of("tensorrt"), title_of("tensorrt-rtx")) == ("TensorRT", "TensorRT-RTX")
