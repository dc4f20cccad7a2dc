from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from motorvae.export.compare.options import VerifyOptions
from motorvae.export.compare.result import OutputResult, VerifyResult
from motorvae.export.compare.run import verified
from motorvae.runtime.core.errors import (
    BackendError,
    ConfigError,
    DataError,
    EngineError,
    MotorVAEError,
)
from motorvae.runtime.engines.gpu_info import NoGpu, find_gpu

from .graphs import BYTE, FLOAT, HALF, SIDE, UNITS, decoder, encoder, heads, save_graph

WEIGHTS = heads()


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("right") / "encoder.onnx", WEIGHTS)


def compared(reference: Path, candidate: Path, images: Path | str, **options: Any) -> VerifyResult:
    return verified(VerifyOptions(reference, candidate, str(images), **options))


def refusal(*graphs: Path, images: Path | str, **options: Any) -> str:
    with pytest.raises(MotorVAEError) as raised:
        compared(graphs[0], graphs[-1], images, **options)
    text = str(raised.value)
    assert "\n" not in text
    return text


def figure(output: OutputResult, name: str) -> Any:
    (found,) = (metric for metric in output.metrics if metric.name == name)
    return found


def test_a_graph_passes_against_itself(right: Path, photos: Path) -> None:
    result = compared(right, right, photos)
    assert result.passed
    assert (result.images, result.precision, result.skipped) == (80, "fp32", ())
    assert [(one.output, one.kind) for one in result.outputs] == [
        ("mu", "mu"),
        ("log_var", "log_var"),
    ]
    assert result.verdict.startswith("passed: encoder.onnx in ONNX Runtime")
    spec = result.preparation
    assert spec is not None
    assert (spec.image_size, spec.color, spec.latent_size) == (SIDE, "rgb", UNITS)
    assert result.reference.files[0].sha256 == result.candidate.files[0].sha256


@pytest.mark.parametrize(
    "form",
    [
        {"dtype": BYTE},
        {"channels_last": True},
        {"dtype": BYTE, "channels_last": True},
        {"batch": 1},
        {"batch": 3},
        {"names": ("z_mean", "z_log_var:0")},
    ],
    ids=str,
)
def test_whatever_a_right_graph_takes_it_gets_the_same_pixels(
    right: Path, photos: Path, tmp_path: Path, form: dict[str, Any]
) -> None:
    other = encoder(tmp_path / "other.onnx", WEIGHTS, **form)
    named = {}
    if "names" in form:
        named = {"outputs": ("mu", "log_var"), "candidate_outputs": form["names"]}
    assert compared(right, other, photos, **named).passed
    if "names" not in form:
        back = compared(other, right, photos, **named)
        assert back.passed
        assert back.reference.input_dtype == ("uint8" if "dtype" in form else "float32")


def test_float16_inputs_and_outputs_are_compared(right: Path, photos: Path, tmp_path: Path) -> None:
    other = encoder(tmp_path / "other.onnx", WEIGHTS, dtype=HALF)
    assert compared(right, other, photos, precision="fp16").passed
    assert not compared(right, other, photos).passed  # pixels in 11 bits, held to fp32


def damaged(name: str, photos: Path, folder: Path) -> Path:
    """A graph that is wrong in one way."""
    weights = {key: values.copy() for key, values in WEIGHTS.items()}
    options: dict[str, Any] = {}
    if name == "bgr":
        planes = weights["of_mu"].reshape(3, -1)
        weights["of_mu"] = planes[::-1].reshape(weights["of_mu"].shape).copy()
    elif name == "one unit":
        weights["of_mu"][:, 3] *= np.float32(1.02)
    elif name == "deviations":
        weights["usual"] = weights["usual"] + np.float32(0.05)
    elif name == "nothing darker than the images":
        nodes = [helper.make_node("Clip", ["mean", "low", "high"], ["mu"])]
        flat = _pixels(photos) @ weights["of_mu"]
        ends = {"low": flat.min().astype(np.float32), "high": flat.max().astype(np.float32)}
        options = {"last": nodes, "more": ends}
    elif name == "nan":
        options = {"last": [helper.make_node("Log", ["mean"], ["mu"])]}
    else:  # doubles mu where it runs one image
        first, size = np.array([0]), np.array([1])
        nodes = [
            helper.make_node("Shape", ["mean"], ["shape"]),
            helper.make_node("Slice", ["shape", "first", "size"], ["count"]),
            helper.make_node("Equal", ["count", "size"], ["alone"]),
            helper.make_node("Add", ["mean", "mean"], ["double"]),
            helper.make_node("Where", ["alone", "double", "mean"], ["mu"]),
        ]
        options = {"last": nodes, "more": {"first": first, "size": size}}
    return encoder(folder / "wrong.onnx", weights, **options)


def _pixels(photos: Path) -> Any:
    from motorvae.export.compare.images import pictures_from_source
    from motorvae.runtime.core.spec import ModelSpec

    spec = ModelSpec(image_size=SIDE, color="rgb", channels=None, latent_size=1)
    rows = pictures_from_source(str(photos), spec, 80).rows
    return rows.reshape(80, -1) * np.float32(1 / 255)


@pytest.mark.parametrize(
    ("name", "caught_by"),
    [
        ("bgr", "mu: max error / spread over data"),
        ("one unit", "mu: max error / spread over data"),
        ("deviations", "log_var: max error of deviation, RMS of an image"),
        ("nan", "mu: NaN or Inf values"),
        ("batch of one", "mu: max error / spread over data"),
        ("nothing darker than the images", "mu: worst probe image, RMS error"),
    ],
)
def test_a_wrong_graph_fails(
    right: Path, photos: Path, tmp_path: Path, name: str, caught_by: str
) -> None:
    result = compared(right, damaged(name, photos, tmp_path), photos)
    assert not result.passed
    assert result.verdict.startswith("FAILED: wrong.onnx")
    assert any(clause.startswith(caught_by) for clause in result.failures), result.failures
    if name.startswith("nothing"):  # no image of the folder shows it
        without = compared(right, tmp_path / "wrong.onnx", photos, skip_probes=True)
        assert without.passed
        assert any("no probe images" in note for note in without.outputs[0].notes)


def test_without_log_var_the_spread_is_that_of_the_images(photos: Path, tmp_path: Path) -> None:
    one = encoder(tmp_path / "one.onnx", WEIGHTS, names=("code", ""), log_var=False)
    weights = dict(WEIGHTS, of_mu=WEIGHTS["of_mu"] * np.float32(1.001))
    other = encoder(tmp_path / "other.onnx", weights, names=("feature", ""), log_var=False)
    result = compared(one, other, photos)  # one output each belongs together, whatever its name
    (output,) = result.outputs
    assert (output.output, output.candidate_output, output.kind) == ("code", "feature", "latent")
    flat = _pixels(photos).astype(np.float64) @ WEIGHTS["of_mu"]
    expected = np.abs(0.001 * flat / flat.std(axis=0)).max()
    found = figure(output, "max error / spread over data").value
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert not any("deviation" in metric.name for metric in output.metrics)


def test_units_that_hardly_vary_are_judged_by_a_share_and_said(
    photos: Path, tmp_path: Path
) -> None:
    weights = {key: values.copy() for key, values in WEIGHTS.items()}
    weights["of_mu"][:, 2] *= np.float32(1e-5)
    graph = encoder(tmp_path / "still.onnx", weights, names=("code", ""), log_var=False)
    (output,) = compared(graph, graph, photos).outputs
    assert any(note.startswith("1 of 6 units vary by less than 1%") for note in output.notes)


def test_few_images_give_a_weak_verdict(right: Path, photos: Path) -> None:
    result = compared(right, right, photos, most_images=10)
    assert result.images == 10
    assert any("weak verdict, as only 10" in note for note in result.outputs[0].notes)
    assert any("10 of 80 images judge" in note for note in result.notes)


def test_latents_that_are_all_alike_are_said_and_not_called_collapsed(
    right: Path, photos: Path
) -> None:
    result = compared(right, right, photos / "00.png")
    notes = " ".join(result.outputs[0].notes)
    assert "mu is the same for all images, so its error is judged by the posterior" in notes
    assert "collapsed" not in notes


def test_grey_images_without_probes_say_nothing_of_colours(
    right: Path, photos: Path, tmp_path: Path
) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for path in sorted(photos.iterdir())[:5]:
        cv2.imwrite(str(grey / path.name), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    wrong = damaged("bgr", photos, tmp_path)
    assert not compared(right, wrong, grey).passed  # by the probes
    unseen = compared(right, wrong, grey, skip_probes=True)
    assert any(note.startswith("all images are grey") for note in unseen.notes)
    colours = compared(right, wrong, photos, skip_probes=True)
    assert not any(note.startswith("all images are grey") for note in colours.notes)


def test_images_of_probes_are_held_to_what_the_limits_name(photos: Path, tmp_path: Path) -> None:
    """Whether neighbours have a limit says nothing of probes."""
    wrong = []
    for name, node in (
        ("same", helper.make_node("Identity", ["image"], ["rebuilt"])),
        ("dark", helper.make_node("Clip", ["image", "low"], ["rebuilt"])),
    ):
        shape = ("batch", 3, SIDE, SIDE)
        path = tmp_path / f"{name}.onnx"
        low = {"low": np.asarray(0.02, np.float32)}
        given = {"image": (FLOAT, shape)}
        wrong.append(save_graph(path, [node], given, {"rebuilt": (FLOAT, shape)}, low))
    limits = tmp_path / "limits.json"

    def failures(precision: str, text: str) -> tuple[str, ...]:
        limits.write_text(text)
        found = compared(*wrong, photos, precision=precision, limits=limits)
        return tuple(clause for clause in found.failures if "probe" in clause)

    loose = '"max_pixel": null, "psnr_db": 0'
    strict = '"probe_pixel": 0.001, "probe_psnr_db": 60'
    assert failures("int8", f"{{{loose}}}") == ()
    assert failures("int8", f'{{{loose}, "neighbours": null}}') == ()
    assert len(failures("int8", f"{{{loose}, {strict}}}")) == 2
    assert len(failures("fp16", f'{{{loose}, {strict}, "neighbours": 0.5}}')) == 2


def test_images_of_decoders_are_compared(photos: Path, right: Path, tmp_path: Path) -> None:
    one = decoder(tmp_path / "one.onnx")
    latents = tmp_path / "latents.npz"
    np.savez(latents, mu=np.random.default_rng(0).normal(size=(70, UNITS)).astype(np.float32))
    for images, options in ((latents, {}), (photos, {"encoder": right})):
        (output,) = compared(one, one, images, **options).outputs
        assert (output.kind, output.shape) == ("image", (3, SIDE, SIDE))
        assert output.passed
        last = decoder(tmp_path / "last.onnx", channels_last=True)
        assert compared(one, last, images, **options).passed
        brighter = decoder(tmp_path / "brighter.onnx", offset=0.01)
        (output,) = compared(one, brighter, images, **options).outputs
        np.testing.assert_allclose(figure(output, "PSNR, worst image").value, 40, atol=0.01)
        assert not output.passed
    # An error counts by the range that the images have.
    (wide,) = compared(one, brighter, latents, image_range=(-1, 1)).outputs
    np.testing.assert_allclose(figure(wide, "PSNR, worst image").value, 46.02, atol=0.01)
    assert (
        compared(one, one, latents, image_range=(0, 0.1))
        .outputs[0]
        .notes[-1]
        .endswith("see --image-range")
    )


def test_a_random_output_is_refused_by_its_node_and_others_are_judged(
    right: Path, photos: Path, tmp_path: Path
) -> None:
    random = encoder(
        tmp_path / "random.onnx",
        WEIGHTS,
        names=("z", "log_var"),
        last=[
            helper.make_node("Identity", ["mean"], ["mu"]),
            helper.make_node("RandomNormalLike", ["mean"], ["eps"], name="draw"),
            helper.make_node("Add", ["mean", "eps"], ["z"]),
        ],
    )
    model = onnx.load(random)
    model.graph.output.append(helper.make_tensor_value_info("mu", FLOAT, ("batch", UNITS)))
    onnx.save(model, random)
    text = refusal(random, images=photos)
    assert "gives another z each time it runs, as its node RandomNormalLike 'draw' draws" in text
    assert "name other outputs with --outputs" in text
    assert compared(random, right, photos, outputs=("mu", "log_var")).passed
    result = compared(right, random, photos)
    assert result.passed
    assert "not judged, as one graph alone has it: z" in result.notes


def test_an_output_without_an_axis_of_images_is_none(
    right: Path, photos: Path, tmp_path: Path
) -> None:
    path = tmp_path / "loss.onnx"
    model = onnx.load(right)
    model.graph.node.append(helper.make_node("ReduceMean", ["mean"], ["loss"], keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("loss", FLOAT, ()))
    onnx.save(model, path)
    for candidate in ("onnx", "openvino"):
        result = compared(path, path, photos, candidate_engine=candidate)
        assert [output.output for output in result.outputs] == ["mu", "log_var"]
    assert "not judged, as it is not one for each image: loss" in result.notes
    assert "has no output 'loss' for each image" in refusal(path, images=photos, outputs=("loss",))


def test_openvino_runs_the_candidate(right: Path, photos: Path) -> None:
    pytest.importorskip("openvino")
    result = compared(right, right, photos, candidate_engine="openvino")
    assert result.passed
    assert result.candidate.engine.startswith("OpenVINO")
    assert result.reference.engine.startswith("ONNX Runtime")


def test_weights_in_a_file_of_their_own_are_read_and_hashed(
    right: Path, photos: Path, tmp_path: Path
) -> None:
    apart = tmp_path / "apart.onnx"
    onnx.save(
        onnx.load(right), apart, save_as_external_data=True, location="w.data", size_threshold=0
    )
    result = compared(right, apart, photos)
    assert result.passed
    assert [entry.file for entry in result.candidate.files] == ["apart.onnx", "w.data"]
    (tmp_path / "w.data").unlink()
    assert "keeps weights in w.data, which cannot be read" in refusal(right, apart, images=photos)


def test_a_free_size_is_asked_for(photos: Path, tmp_path: Path) -> None:
    free = save_graph(
        tmp_path / "free.onnx",
        [helper.make_node("GlobalAveragePool", ["image"], ["code"])],
        {"image": (FLOAT, ("n", 3, "height", "width"))},
        {"code": (FLOAT, ("n", 3, 1, 1))},
        {},
    )
    assert "give height and width with --size" in refusal(free, images=photos)
    assert "24 x 4 pixels: each side must be 8 to" in refusal(free, images=photos, size=(24, 4))
    result = compared(free, free, photos, size=(24, 40))
    assert result.passed
    assert result.preparation is not None
    assert result.preparation.image_size == (24, 40)


def test_what_cannot_be_judged_is_refused_in_one_line(
    right: Path, photos: Path, tmp_path: Path
) -> None:
    grey = encoder(tmp_path / "grey.onnx", heads(1))
    for options in (
        {"outputs": ("mu", "mu")},
        {"outputs": ("mu=mu", "latent=mu")},
        {"outputs": ("mu", "log_var"), "candidate_outputs": ("mu", "mu")},
    ):
        assert "'mu' is there twice" in refusal(right, images=photos, **options)
    whole = save_graph(
        tmp_path / "whole.onnx",
        [helper.make_node("Cast", ["image"], ["mu"], to=TensorProto.DOUBLE)],
        {"image": (FLOAT, ("n", 3, SIDE, SIDE))},
        {"mu": (TensorProto.DOUBLE, ("n", 3, SIDE, SIDE))},
        {},
    )
    assert "whole.onnx has no output of float32 or" in refusal(right, whole, images=photos)
    assert "name two graphs that take the same images" in refusal(right, grey, images=photos)
    nan = encoder(tmp_path / "nan.onnx", WEIGHTS, last=[helper.make_node("Log", ["mean"], ["mu"])])
    assert "a reference must be right" in refusal(nan, right, images=photos)
    narrow = save_graph(
        tmp_path / "narrow.onnx",
        [helper.make_node("GlobalAveragePool", ["image"], ["mu"])],
        {"image": (FLOAT, ("n", 3, SIDE, SIDE))},
        {"mu": (FLOAT, ("n", 3, 1, 1))},
        {},
    )
    assert "outputs of other shapes cannot be compared" in refusal(right, narrow, images=photos)
    assert "has no output 'nu' for each image, it has mu, log_var" in refusal(
        right, images=photos, outputs=("nu",)
    )
    assert "--color grey" in refusal(right, images=photos, color="grey")
    assert "is no .engine" in refusal(right, images=photos, candidate_engine="tensorrt")
    assert "which are no images" in refusal(decoder(tmp_path / "dec.onnx"), images=photos)
    code = encoder(tmp_path / "code.onnx", WEIGHTS, names=("code", ""), log_var=False)
    assert "there is one image" in refusal(code, images=photos / "00.png")
    assert "fixed to batches of 1" in refusal(
        right, encoder(tmp_path / "b1.onnx", WEIGHTS, batch=1), images=photos, batch_sizes=(4,)
    )
    bytes_ = encoder(tmp_path / "bytes.onnx", WEIGHTS, dtype=BYTE)
    assert "takes pixels as they are" in refusal(bytes_, images=photos, value_range=(-1.0, 1.0))


def test_each_refusal_has_its_kind(right: Path, photos: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("no graph")
    for kind, graphs, images in (
        (BackendError, (text, right), photos),
        (BackendError, (right, tmp_path / "absent.onnx"), photos),
        (OSError, (right, right), tmp_path / "absent"),
        (ConfigError, (right, right), "synthetic"),
        (DataError, (right, right), text.rename(tmp_path / "text.png")),
    ):
        with pytest.raises(kind):
            compared(*graphs, images)
        text.write_text("no graph")


def test_an_engine_needs_trust_a_precision_and_a_gpu(
    right: Path, photos: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "encoder.engine"
    plan.write_bytes(b"engine")
    assert "name one with --precision" in refusal(right, plan, images=photos)
    assert "add --trust where you know who built it" in refusal(
        right, plan, images=photos, precision="fp16"
    )
    if isinstance(find_gpu(), NoGpu):
        with pytest.raises(EngineError, match="verify it on the machine with the GPU"):
            compared(right, plan, photos, precision="fp16", trust=True)
