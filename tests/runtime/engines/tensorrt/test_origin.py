"""Which engines run: those that this machine built. The engines are real, and of its builder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.core.errors import EngineError, EngineFitError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.engine_manifest import EngineManifest, ReadEngineManifest
from motorvae.runtime.engines.tensorrt.find import EnginePlan, check_engine
from motorvae.runtime.engines.tensorrt.package import import_tensorrt
from motorvae.runtime.signing.machine_key import MachineKey, machine_key

ENCODER = GraphKey("encoder", "fp16")
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0", "580.65", 24 << 30, integrated=False)


@pytest.fixture
def bundle(rtx_bundle: Path, tmp_path: Path) -> Bundle:
    return load_bundle(Path(shutil.copytree(rtx_bundle, tmp_path / "bundle")))


def manifest_of(bundle: Bundle) -> Path:
    return ENCODER.engine_paths(bundle.folder, "tensorrt-rtx")[1]


def checked(bundle: Bundle, *, trust: bool = False) -> EnginePlan:
    package = import_tensorrt("tensorrt-rtx")
    return check_engine(bundle, bundle.entry(ENCODER), package, ADA, trust=trust)[1]


def refusal(bundle: Bundle) -> str:
    with pytest.raises(EngineFitError) as caught:
        checked(bundle)
    text = str(caught.value)
    again = f"motorvae-export --model {bundle.folder} --engine tensorrt-rtx --fp16"
    assert text.endswith(f": run {again} here, or add --rebuild")
    assert "\n" not in text
    return text


def test_an_engine_is_tagged_by_the_machine_that_built_it(bundle: Bundle) -> None:
    plan = checked(bundle)
    assert plan.notes == ()
    assert plan.content == manifest_of(bundle).with_suffix(".engine").read_bytes()
    key = machine_key()
    assert key is not None
    content = json.loads(manifest_of(bundle).read_text(encoding="utf-8"))
    tag = content.pop("built_here")
    said = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert tag == {"key_id": key.key_id, "tag": key.tag(said.encode())}


def test_another_spelling_of_the_same_engine_manifest_says_the_same(bundle: Bundle) -> None:
    path = manifest_of(bundle)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=7))
    assert checked(bundle).notes == ()


def leaves(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(content, (dict, list)):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        return [leaf for name, value in items for leaf in leaves(value, (*path, name))]
    return [path]


def other_than(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return value[:-1] + ("0" if value[-1:] != "0" else "1")


def test_whatever_an_engine_manifest_says_is_under_its_tag(bundle: Bundle) -> None:
    """Each single value is changed in turn: it is refused at the latest for its tag."""
    path = manifest_of(bundle)
    genuine = path.read_text(encoding="utf-8")
    found = leaves(json.loads(genuine))
    assert len(found) > 25
    for leaf in found:
        content = json.loads(genuine)
        place = content
        for name in leaf[:-1]:
            place = place[name]
        place[leaf[-1]] = other_than(place[leaf[-1]])
        path.write_text(json.dumps(content), encoding="utf-8")
        refusal(bundle)
    path.write_text(genuine, encoding="utf-8")
    checked(bundle)


def test_a_key_that_is_there_twice_is_refused(bundle: Bundle) -> None:
    """No reader can take another of the two for what was tagged."""
    path = manifest_of(bundle)
    genuine = path.read_text(encoding="utf-8")
    driver = '"driver": null'
    assert driver in genuine
    for twice in (f'"driver": "1.0",\n  {driver}', f'{driver},\n  "driver": "1.0"'):
        path.write_text(genuine.replace(driver, twice), encoding="utf-8")
        with pytest.raises(EngineError, match="the key 'driver' stands twice"):
            ReadEngineManifest.of(path)


def strip(content: dict[str, Any]) -> None:
    del content["built_here"]


def downgrade(content: dict[str, Any]) -> None:
    content["schema_version"] = 3


def strip_and_downgrade(content: dict[str, Any]) -> None:
    strip(content)
    downgrade(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (strip, r"was not built by this machine \(its engine manifest has no tag\), and"),
        (
            strip_and_downgrade,
            r"was not built by this machine \(its engine manifest has no tag\), and",
        ),
        (downgrade, r"\(its tag is of another engine or engine manifest\)"),
        (lambda content: content.update(built_here=None), "has no tag"),
        (lambda content: content["built_here"].update(tag=""), "built_here.tag="),
        (lambda content: content["built_here"].pop("tag"), "built_here.tag: Field required"),
        (lambda content: content["built_here"].update(alg="none"), "built_here.alg: Extra"),
        (
            lambda content: content["built_here"].update(tag=content["built_here"]["tag"].upper()),
            r"built_here\.tag=",
        ),
        (lambda content: content["built_here"].update(key_id="0" * 32), "its tag is of key 000000"),
    ],
)
def test_an_engine_without_its_tag_is_refused(
    bundle: Bundle, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    path = manifest_of(bundle)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EngineFitError, match=says):
        checked(bundle)
    refusal(bundle)


def test_an_engine_of_another_machine_runs_with_trust_only(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = manifest_of(bundle)
    manifest = EngineManifest.model_validate_json(path.read_bytes())
    path.write_text(manifest.tagged(MachineKey(bytes(32))).model_dump_json(), encoding="utf-8")
    assert "its tag is of key " in refusal(bundle)
    (note,) = checked(bundle, trust=True).notes
    assert note.endswith("), and its bundle is not signed, and runs as --trust was given")
    # Nor does the tag of another machine that has the key in its manifest only.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert "this machine has no key yet" in refusal(bundle)


def test_a_tag_is_of_one_engine(bundle: Bundle, tmp_path: Path) -> None:
    """This machine's tag of an earlier engine of the same graph, with another engine file."""
    path = manifest_of(bundle)
    engine = path.with_suffix(".engine")
    engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    assert "was altered after it was built" in refusal(bundle)
    content = json.loads(path.read_text(encoding="utf-8"))
    import hashlib

    content["engine"]["sha256"] = hashlib.sha256(engine.read_bytes()).hexdigest()
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "its tag is of another engine" in refusal(bundle)
    for other in ("mu", "luma"):
        shutil.copyfile(
            GraphKey("encoder", "fp16", other).engine_paths(  # type: ignore[arg-type]
                bundle.folder, "tensorrt-rtx"
            )[1],
            tmp_path / "other.json",
        )
        taken = json.loads((tmp_path / "other.json").read_text(encoding="utf-8"))
        path.write_text(json.dumps(content | {"built_here": taken["built_here"]}))
        assert "its tag is of another engine" in refusal(bundle)


def test_a_key_that_is_of_no_use_is_named_with_its_remedy(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "motorvae" / "machine.key"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(b"")
    path.chmod(0o644)
    with pytest.raises(
        EngineError, match=r"whether this machine built encoder.*0644.*: chmod 600 \S+$"
    ) as caught:
        checked(bundle)
    assert not isinstance(caught.value, EngineFitError)  # building it again does not help


@pytest.fixture
def signed(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Signed by the machine that built it; looked at by another one, which trusts that key."""
    pytest.importorskip("cryptography", reason="signatures need the extra sign")
    from motorvae.runtime.signing.bundle_signature import digests_of, sign_files
    from motorvae.runtime.signing.keys import new_key, own_private_key, trust_key

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "factory"))
    _, public = new_key("factory")
    sign_files(bundle.folder, digests_of(bundle.folder), *own_private_key(None), None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "field"))
    trust_key(public.read_bytes(), public)
    return bundle


def test_an_engine_of_a_bundle_that_a_trusted_key_signed_runs(signed: Bundle) -> None:
    (note,) = checked(signed).notes
    assert note.startswith("this engine's bundle was signed by factory (")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def another_engine_with_a_manifest_that_fits(bundle: Bundle) -> None:
    import hashlib

    path = manifest_of(bundle)
    engine = path.with_suffix(".engine")
    flip(engine)
    text = path.read_text(encoding="utf-8")
    was = json.loads(text)["engine"]["sha256"]
    path.write_text(text.replace(was, hashlib.sha256(engine.read_bytes()).hexdigest()))


def another_date(bundle: Bundle) -> None:
    """A change of the engine manifest that its size does not show."""
    path = manifest_of(bundle)
    path.write_bytes(path.read_bytes().replace(b'"created": "2', b'"created": "1'))


def another_manifest_than_was_read(bundle: Bundle) -> None:
    path = bundle.folder / "manifest.json"
    path.write_text(path.read_text(encoding="utf-8").replace("0.2.0", "0.2.1"), encoding="utf-8")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (
            lambda b: (b.folder / "signature.json").unlink(),
            r"\), and its bundle is not signed: run",
        ),
        (lambda b: flip(b.folder / "signature.json"), "its bundle's signature is of no use: "),
        (another_engine_with_a_manifest_that_fits, "fp16.tensorrt-rtx.engine' was altered after"),
        (
            lambda b: manifest_of(b).write_bytes(manifest_of(b).read_bytes().replace(b"  ", b" ")),
            "fp16.tensorrt-rtx.json' was altered after",
        ),
        (another_date, "fp16.tensorrt-rtx.json' was altered after"),
        (another_manifest_than_was_read, "'manifest.json' was altered after it was signed"),
        (lambda b: (b.folder / "engines/more.engine").touch(), "'engines/more.engine' was added"),
        (lambda b: (b.folder / "decoder.onnx").unlink(), "'decoder.onnx' is signed and is missing"),
    ],
)
def test_an_engine_whose_signature_does_not_hold_is_refused(
    signed: Bundle, harm: Callable[[Bundle], object], says: str
) -> None:
    checked(signed)
    harm(signed)
    with pytest.raises(EngineFitError, match=says):
        checked(signed)
    refusal(signed)


def test_a_retired_or_forgotten_key_vouches_for_nothing(signed: Bundle) -> None:
    from motorvae.runtime.signing.keys import remove_key, retire_key

    retire_key("factory")
    assert "and that was retired here: have it signed by a newer key" in refusal(signed)
    remove_key("factory")
    assert "it is signed, and no key is trusted here" in refusal(signed)
