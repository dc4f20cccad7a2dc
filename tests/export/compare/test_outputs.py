from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

from motorvae.export.compare.options import VerifyOptions
from motorvae.export.compare.run import verified
from motorvae.runtime.core.errors import ConfigError

from .graphs import FLOAT, SIDE, encoder, heads, save_graph


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose names say nothing."""
    return encoder(tmp_path_factory.mktemp("plain") / "a.onnx", heads(), names=("one", "two"))


@pytest.mark.parametrize(
    ("outputs", "kinds"),
    [
        ((), {"one": "latent", "two": "latent"}),
        (("mu=one", "log_var=two"), {"one": "mu", "two": "log_var"}),
        (("log_var=two", "mu=one"), {"one": "mu", "two": "log_var"}),
        (("mu=one",), {"one": "latent"}),  # without a deviation it is judged by its spread
        (("two",), {"two": "latent"}),
    ],
)
def test_kinds_are_those_that_are_said(
    plain: Path, photos: Path, outputs: tuple[str, ...], kinds: dict[str, str]
) -> None:
    result = verified(VerifyOptions(plain, plain, str(photos), outputs=outputs))
    assert {output.output: output.kind for output in result.outputs} == kinds
    assert result.passed


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (("log_var=two",), "there is one of each"),
        (("image=one",), "is no image of 1 or 3 channels"),
        (("mean=one",), "has no output 'mean=one'"),
    ],
)
def test_kinds_that_cannot_be_are_refused(
    plain: Path, photos: Path, outputs: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        verified(VerifyOptions(plain, plain, str(photos), outputs=outputs))


@pytest.mark.parametrize(
    ("mean", "log_var"),
    [("mu", "logvar"), ("z_mean", "z_log_var"), ("vae/Mean:0", "vae/LogVar:1"), ("loc", "log_var")],
)
def test_names_of_other_exporters_are_known(
    photos: Path, tmp_path: Path, mean: str, log_var: str
) -> None:
    path = encoder(tmp_path / "a.onnx", heads(), names=(mean, log_var))
    result = verified(VerifyOptions(path, path, str(photos)))
    assert [output.kind for output in result.outputs] == ["mu", "log_var"]


def test_an_image_of_the_input_s_size_is_an_image_in_either_layout(
    photos: Path, tmp_path: Path
) -> None:
    node = helper.make_node("Identity", ["image"], ["rebuilt"])
    pool = helper.make_node("GlobalAveragePool", ["image"], ["code"])
    shape = ("batch", 3, SIDE, SIDE)
    given = {"image": (FLOAT, shape)}
    outputs = {"rebuilt": (FLOAT, shape), "code": (FLOAT, ("batch", 3, 1, 1))}
    one = save_graph(tmp_path / "one.onnx", [node, pool], given, outputs, {})
    turned = helper.make_node("Transpose", ["image"], ["rebuilt"], perm=[0, 2, 3, 1])
    outputs["rebuilt"] = FLOAT, ("batch", SIDE, SIDE, 3)
    other = save_graph(tmp_path / "two.onnx", [turned, pool], given, outputs, {})
    result = verified(VerifyOptions(one, other, str(photos)))
    assert result.passed
    assert {output.output: output.kind for output in result.outputs} == {
        "code": "latent",
        "rebuilt": "image",
    }
    assert result.preparation is not None
    assert result.preparation.has_decoder
