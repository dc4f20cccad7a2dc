"""Options of motorvae import: what contradicts is refused, presets and names are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motorvae.export.importing.options import ImportOptions
from motorvae.runtime.core.errors import ConfigError

from .conftest import Says

GIVEN: dict[str, Any] = {"what": Path("encoder.onnx"), "images": "photos"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"what": None}, "name what to import: an encoder.onnx, a folder of diffusers"),
        ({"module": "a:b"}, "and not two of them"),
        ({"images": None}, "--images is missing: without images .* nothing could be verified"),
        ({"weights": Path("w.pt")}, "--weights is what --module loads"),
        ({"held_out": 1.0}, "--held-out=1.0: it must be between 0 and 1"),
        ({"workers": -1}, "--workers must be 0 or more"),
        ({"keep_float32": ()}, "--keep-float32 is for FP16 graphs"),
        ({"outputs": ("latent=x",)}, "--outputs latent=x: give NAME of the graph as mu or"),
        ({"outputs": ("mu",)}, "--outputs mu: give NAME of the graph"),
        ({"inputs": ("mu=a",)}, "--inputs mu=a: give NAME of the graph as image or z"),
    ],
)
def test_what_contradicts_is_refused(changed: dict[str, Any], said: str) -> None:
    ImportOptions(**GIVEN).check()
    with pytest.raises(ConfigError, match=said):
        ImportOptions(**GIVEN | changed).check()


def test_names_are_ours_to_the_graphs() -> None:
    options = ImportOptions(outputs=("mu=a,log_var=b/c:0", "reconstruction=d"), inputs=("x", "z=y"))
    assert options.names_of("outputs") == {"mu": "a", "log_var": "b/c:0", "reconstruction": "d"}
    assert options.names_of("inputs") == {"image": "x", "z": "y"}


def test_a_preset_gives_way_to_what_is_said() -> None:
    assert ImportOptions().preparation()["fit"] == "stretch"
    original = ImportOptions(fit="crop").preparation(is_original=True)
    assert (original["fit"], original["interpolation"]) == ("crop", "lanczos")
    plain = ImportOptions(preset="none").preparation(is_original=True)
    assert (plain["fit"], plain["crop_box"]) == ("stretch", None)
    assert ImportOptions(preset="original").preparation()["crop_box"] == (5, 20, -25, -20)
    assert ImportOptions().preparation(value_range=(-1, 1))["value_range"] == (-1, 1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no.onnx"], "no.onnx does not exist"),
        (["notes.txt"], "notes.txt is no .onnx file, no folder and no checkpoint"),
        (["weights.pth", "--decoder", "d.onnx"], "--decoder is not for weights.pth"),
        (["graph.onnx", "--run", "runs/a"], "--run is not for graph.onnx"),
        (["graph.onnx", "--outputs", "reconstruction=a"], "names of a decoder are given, and no"),
    ],
)
def test_what_cannot_be_imported_is_named(
    here: Path, images: Path, says: Says, args: list[str], said: str
) -> None:
    for name in ("notes.txt", "weights.pth", "graph.onnx"):
        (here / name).write_bytes(b"x")
    assert said in says(*args, "--images", images, code=1)
    assert "does not exist" in says("graph.onnx", "--images", "nowhere", code=1)
