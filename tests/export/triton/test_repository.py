"""`motorvae-export --triton`: the folder whole or as it was, and what is refused in one line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import motorvae as mv
from motorvae.export.cli import main
from motorvae.export.triton import repository as repository_module
from motorvae.export.triton.manifest import RepositoryManifest
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.atomic_files import sha256_of

from .agreement import config_of, configs_of, problems_of


def says(capsys: pytest.CaptureFixture[str], *words: object, code: int = 1) -> str:
    """Run the command, which fails, and return its one line."""
    capsys.readouterr()
    assert main([*map(str, words)]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return " ".join(captured.err.split())


def hashes_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def of_other_weights(bundle: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(bundle, tmp_path / "other"))
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32), encoding="utf-8")
    return copy


def test_models_are_the_bundles_own_files_and_all_are_listed(
    framed_bundle: Path, repository: Path
) -> None:
    bundle = load_bundle(framed_bundle)
    text = (repository / "motorvae.json").read_text(encoding="utf-8")
    manifest = RepositoryManifest.model_validate_json(text)
    listed = {entry.file: entry.sha256 for entry in manifest.files}
    assert listed == {
        name: digest for name, digest in hashes_of(repository).items() if name != "motorvae.json"
    }
    by_title = {entry.title: entry for entry in bundle.manifest.graphs}
    for model in manifest.models:
        if model.steps:
            continue
        assert model.graph is not None
        entry = by_title[model.graph]
        assert listed[f"{model.name}/1/model.onnx"] == entry.sha256
        assert (model.inputs, model.outputs) == (entry.inputs, entry.outputs)
        reports = [one for one in bundle.manifest.verification if one.key == entry.key]
        assert [*model.verification] == reports != []
    assert manifest.weights_sha256 == bundle.manifest.weights_sha256
    assert manifest.manifest_sha256 == sha256_of(framed_bundle / "manifest.json")


def test_the_page_beside_them_says_what_was_verified(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "| motorvae_encoder_bgr | `frame` uint8 48 x 64 x 3 (bgr:64x48) |" in text
    assert "motorvae_encoder (encoder fp32): in ONNX Runtime " in text
    assert "Triton itself was no part of that" in text
    assert ("ab" * 32) in text


def test_the_same_weights_are_written_anew_in_one_step(
    framed_bundle: Path, repository: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    words = ["--model", str(framed_bundle), "--triton", str(folder), "--triton-version", "2"]
    assert main(words) == 0
    assert problems_of(folder) == []
    assert sorted(path.name for path in (folder / "motorvae_encoder").iterdir()) == [
        "2",
        "config.pbtxt",
    ]


def test_other_weights_need_replace(
    framed_bundle: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    other, before = of_other_weights(framed_bundle, tmp_path), hashes_of(folder)
    line = says(capsys, "--model", other, "--triton", folder)
    assert "serves other weights (sha256 abababababab..., and the bundle's are cdcdcd" in line
    assert "or replace it with --replace" in line
    assert hashes_of(folder) == before
    assert main(["--model", str(other), "--triton", str(folder), "--replace"]) == 0
    assert json.loads((folder / "motorvae.json").read_text())["weights_sha256"] == "cd" * 32


def edited(folder: Path) -> str:
    path = folder / "motorvae_encoder" / "config.pbtxt"
    path.write_text(path.read_text().replace("count: 1", "count: 2"), encoding="utf-8")
    return "motorvae_encoder/config.pbtxt"


def with_a_model_more(folder: Path) -> str:
    (folder / "resnet" / "1").mkdir(parents=True)
    return "resnet, resnet/1"


def with_a_version_more(folder: Path) -> str:
    (folder / "motorvae_decoder" / "2").mkdir()
    return "motorvae_decoder/2"


def with_a_file_less(folder: Path) -> str:
    (folder / "README.md").unlink()
    return "README.md"


def with_a_link(folder: Path) -> str:
    path = folder / "motorvae_decoder" / "1" / "model.onnx"
    path.rename(folder.with_name("elsewhere.onnx"))
    path.symlink_to(folder.with_name("elsewhere.onnx"))
    return "motorvae_decoder/1/model.onnx"


@pytest.mark.parametrize(
    "change", [edited, with_a_model_more, with_a_version_more, with_a_file_less, with_a_link]
)
def test_what_somebody_changed_is_not_thrown_away(
    framed_bundle: Path,
    repository: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], str],
) -> None:
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    what, before = change(folder), hashes_of(folder)
    line = says(capsys, "--model", framed_bundle, "--triton", folder)
    assert f"was changed since it was written ({what}): name another folder" in line
    assert hashes_of(folder) == before
    assert main(["--model", str(framed_bundle), "--triton", str(folder), "--replace"]) == 0
    assert problems_of(folder) == []


def test_a_folder_that_is_not_ours_stays(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for further in ((), ("--replace",)):
        line = says(capsys, "--model", small_bundle, "--triton", folder, *further)
        assert "is not empty, and no repository of ours: name another folder for --triton" in line
    (folder / "notes.txt").rename(folder / "motorvae.json")
    assert "motorvae.json" in says(capsys, "--model", small_bundle, "--triton", folder)
    assert [path.name for path in folder.iterdir()] == ["motorvae.json"]
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file: name another folder" in says(
        capsys, "--model", small_bundle, "--triton", file
    )
    assert file.read_text() == "mine"


@pytest.mark.parametrize("place", ["bundle", "bundle/models", "."])
def test_neither_lies_in_the_other(
    bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    before = hashes_of(bundle_copy)
    line = says(capsys, "--model", bundle_copy, "--triton", tmp_path / place)
    assert "lie in one another: name a folder elsewhere" in line
    assert hashes_of(bundle_copy) == before


def test_an_empty_folder_is_taken(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert main(["--model", str(small_bundle), "--triton", str(tmp_path / "models")]) == 0
    assert problems_of(tmp_path / "models") == []


def test_what_fails_in_the_middle_leaves_what_was_there(
    framed_bundle: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(repository, tmp_path / "models"))
    before = hashes_of(folder)

    def full(_path: Path, *_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository_module, "ensemble_text", full)
    for place in (folder, tmp_path / "new"):
        line = says(capsys, "--model", framed_bundle, "--triton", place)
        assert f"cannot write {place}: No space left on device" in line
    assert hashes_of(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models"]


def test_a_server_on_the_cpu_has_the_decoder_that_is_made_for_onnx_runtime_there(
    small_bundle: Path, tmp_path: Path
) -> None:
    own = "decoder fp32 phases for onnx"
    for device, title in (("cpu", own), ("auto", "decoder fp32 phases")):
        folder = tmp_path / device
        words = ["--model", str(small_bundle), "--triton", str(folder), "--triton-device", device]
        assert main(words) == 0
        parameters = config_of(folder / "motorvae_decoder").parameters
        assert parameters["motorvae.graph"].string_value == title


def test_an_altered_graph_is_not_passed_on(
    bundle_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle_copy / "decoder.phases.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = says(capsys, "--model", bundle_copy, "--triton", tmp_path / "models")
    assert "decoder.phases.onnx was altered" in line
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--triton-precision", "int8"), "--int8 onnx"),
        (("--triton-platform", "tensorrt"), "has no TensorRT engine of its encoder in fp16: run"),
        (("--triton-name", "a/b"), "--triton-name='a/b': take up to 64 letters"),
        (("--triton-name", ""), "--triton-name='': take up to 64 letters"),
        (("--triton-batch", "0"), "--triton-batch=0 is out of range: take 1 to 1024"),
        (("--triton-version", "0"), "--triton-version=0 is out of range"),
        (("--triton-instances", "0"), "--triton-instances=0 is out of range"),
        (("--triton-delay-us", "-1"), "--triton-delay-us=-1 is out of range"),
        (("--triton-platform", "openvino", "--triton-device", "gpu"), "for the CPU only"),
        (("--triton-platform", "tensorrt", "--triton-device", "cpu"), "engines run on GPUs"),
        (("--triton-precision", "bf16"), "is an arithmetic of OpenVINO: add --triton-platform"),
        (("--triton-platform", "tensorrt", "--triton-batch", "4"), "engines have their own"),
        (("--triton-platform", "openvino", "--triton-delay-us", "9"), "each request by itself"),
    ],
)
def test_what_cannot_be_is_one_line(
    small_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    line: str,
) -> None:
    said = says(capsys, "--model", small_bundle, "--triton", tmp_path / "models", *words)
    assert line in said
    assert list(tmp_path.iterdir()) == []


def test_options_without_a_folder_are_refused(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = says(capsys, "--model", small_bundle, "--fp16", "--triton-batch", "4")
    assert "--triton-batch is for --triton: add that, or leave it out" in line
    frame = ("--whole-frame", "bgr:free", "--output", tmp_path / "a.onnx", "--triton", tmp_path)
    assert "--triton has no part in" in says(capsys, "--model", small_bundle, *frame)


def test_precisions_and_frames_are_added_first(small_bundle: Path, tmp_path: Path) -> None:
    """In one command each; what the bundle has already is said, and all is served."""
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    folder = tmp_path / "models"
    common = ["--model", str(bundle), "--triton", str(folder), "--triton-precision", "fp16"]
    assert main([*common, "--whole-frame", "bgr:64x48"]) == 0
    assert "motorvae_encoder_bgr" in configs_of(folder)
    assert main([*common, "--fp16", "--engine", "none"]) == 0
    assert problems_of(folder) == []


def test_the_place_is_looked_at_before_long_work(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    before = hashes_of(bundle)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").mkdir()
    words = ("--whole-frame", "bgr:64x48", "--triton", tmp_path / "models")
    assert "no repository of ours" in says(capsys, "--model", bundle, *words)
    assert hashes_of(bundle) == before


def test_int8_graphs_are_served_by_the_engine_that_they_are_for(
    int8_bundle: Path, tmp_path: Path
) -> None:
    for platform in ("onnxruntime", "openvino"):
        folder = tmp_path / platform
        words = ["--triton-precision", "int8", "--triton-platform", platform]
        assert main(["--model", str(int8_bundle), "--triton", str(folder), *words]) == 0
        assert problems_of(folder) == []
        manifest = RepositoryManifest.model_validate_json((folder / "motorvae.json").read_text())
        target = "onnx" if platform == "onnxruntime" else "openvino"
        assert all(
            one.steps or (one.graph or "").endswith(f" for {target}") for one in manifest.models
        )


def test_frames_without_a_graph_of_that_precision_are_named(
    int8_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    assert main(["--model", str(bundle), "--whole-frame", "bgr:64x48"]) == 0
    capsys.readouterr()
    words = ["--triton", str(tmp_path / "models"), "--triton-precision", "int8"]
    assert main(["--model", str(bundle), *words]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "note: the encoder of bgr:64x48 frames is left out, as the bundle has no int8" in said


def test_python_takes_the_same_options(tmp_path: Path) -> None:
    with pytest.raises(mv.MotorVAEError, match="triton_batch=0 is out of range"):
        mv.export(tmp_path / "run", tmp_path / "bundle", triton=tmp_path / "m", triton_batch=0)


def unshares() -> bool:
    """Whether a process may have mounts of its own here."""
    command = ("unshare", "-rm", "true")
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, check=False).returncode
    )


def test_a_server_that_has_it_mounted_as_the_page_says_sees_the_new_one(
    small_bundle: Path, tmp_path: Path
) -> None:
    """As a container would, by the command of docs/serving.md."""
    if not unshares():
        pytest.skip("unshare -rm is not allowed here")
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text("utf-8")
    ((source, mount),) = re.findall(r'-v "(\$PWD[^:]*):([^:]+):ro"', page)
    (seen,) = re.findall(r"--model-repository (\S+)", page)
    words = ["--model", str(small_bundle), "--triton", str(tmp_path / "models")]
    assert main(words) == 0
    place = tmp_path / "container"
    (place / mount.lstrip("/")).mkdir(parents=True)
    look = 'for _ in 1 2; do read _; ls -m -w 0 "$1"; done'
    script = f'mount --bind "{source}" "{place}{mount}" && {look}'
    command = ("unshare", "-rm", "sh", "-c", script, "sh", f"{place}{seen}")
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for version in (1, 2):
            server.stdin.write("\n")
            server.stdin.flush()
            assert "motorvae_encoder, " in server.stdout.readline()
            if version == 1:
                assert main([*words, "--triton-version", "2"]) == 0
