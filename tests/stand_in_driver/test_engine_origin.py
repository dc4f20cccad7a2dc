"""What is handed to the library that runs engines: what this machine built, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.core.errors import EngineFitError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.open import EngineRequest, open_engine
from motorvae.runtime.engines.select import select_engine
from motorvae.runtime.signing.machine_key import MachineKey

from .engine_bundles import bundle_of, entry_of, put_engine, write_tagged

ENCODER = GraphKey("encoder", "fp16")
NAMED = EngineRequest(backend="tensorrt")

pytestmark = pytest.mark.usefixtures("package")


def by_another_machine(path: Path) -> None:
    write_tagged(path, json.loads(path.read_text()), MachineKey(bytes(32)))


def without_tag(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["built_here"]
    path.write_text(json.dumps(content), encoding="utf-8")


def of_an_earlier_version(path: Path) -> None:
    without_tag(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 3}))


def with_the_tag_of_another(path: Path) -> None:
    other = json.loads(path.with_name("decoder.fp16.tensorrt.json").read_text())
    content = json.loads(path.read_text()) | {"built_here": other["built_here"]}
    path.write_text(json.dumps(content), encoding="utf-8")


def with_another_engine(path: Path) -> None:
    engine = path.with_suffix(".engine")
    engine.write_bytes(engine.read_bytes().replace(b"[1, 1, 8]", b"[1, 1, 9]"))


FOREIGN = [
    by_another_machine,
    without_tag,
    of_an_earlier_version,
    with_the_tag_of_another,
    with_another_engine,
]


def test_the_very_bytes_of_an_engine_that_was_built_here_are_loaded(
    bundle: Bundle, host_tensorrt: Any
) -> None:
    engine, _ = ENCODER.engine_paths(bundle.folder, "tensorrt")
    for request in (NAMED, EngineRequest()):
        with select_engine(bundle, "encoder", request).backend as backend:
            assert backend.run(np.zeros((1, 1, 32, 32), np.float32))["mu"].shape == (1, 8)
            assert backend.notes == ()
    assert host_tensorrt.handed == [engine.read_bytes()] * 2


@pytest.mark.parametrize("change", FOREIGN)
def test_a_foreign_engine_is_never_handed_to_the_library(
    bundle: Bundle, host_tensorrt: Any, change: Callable[[Path], None]
) -> None:
    change(ENCODER.engine_paths(bundle.folder, "tensorrt")[1])
    for open_it in (
        lambda: select_engine(bundle, "encoder", NAMED),
        lambda: select_engine(bundle, "encoder", EngineRequest("tensorrt", precision="fp16")),
        lambda: open_engine(bundle, ENCODER, NAMED),
    ):
        with pytest.raises(EngineFitError, match=r" run motorvae-export --model .* here, or add"):
            open_it()
    assert host_tensorrt.handed == []


@pytest.mark.parametrize("change", FOREIGN[:3])
def test_with_trust_it_is_and_the_first_line_says_so(
    bundle: Bundle, host_tensorrt: Any, change: Callable[[Path], None]
) -> None:
    engine, manifest = ENCODER.engine_paths(bundle.folder, "tensorrt")
    change(manifest)
    chosen = select_engine(bundle, "encoder", EngineRequest(trust=True))
    with chosen.backend:
        assert "was not built by this machine" in chosen.remarks
        assert chosen.remarks.endswith("runs as --trust was given")
    assert host_tensorrt.handed == [engine.read_bytes()]


def test_an_engine_that_stands_in_for_one_of_unknown_origin_says_so(
    bundle: Bundle, host_tensorrt: Any, gpu: Gpu
) -> None:
    without_tag(ENCODER.engine_paths(bundle.folder, "tensorrt")[1])
    entry = entry_of("encoder", "fp32", "full")
    bundle = bundle_of(bundle.folder, *bundle.manifest.graphs, entry)
    put_engine(bundle, entry, gpu)
    for request in (NAMED, EngineRequest()):
        chosen = select_engine(bundle, "encoder", request)
        chosen.backend.close()
        assert chosen.precision == "fp32"
        (line,) = chosen.passed_over
        assert line.startswith("tensorrt: encoder.fp16.tensorrt.engine was not built by this")
        assert f"run motorvae-export --model {bundle.folder} --engine tensorrt --fp16" in line
    assert len(host_tensorrt.handed) == 2


def test_an_engine_that_is_swapped_between_the_check_and_the_load_is_not_loaded(
    bundle: Bundle, host_tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each file that is read on the way, the engine is another one from then on, or before."""
    engine, _ = ENCODER.engine_paths(bundle.folder, "tensorrt")
    genuine = engine.read_bytes()
    planted = genuine.replace(b"[1, 1, 8]", b"[1, 1, 9]")
    opened = 0

    def swap_at(turn: int) -> Callable[..., int]:
        def open_it(*args: Any, **more: Any) -> int:
            nonlocal opened
            opened += 1
            if opened == turn:
                engine.write_bytes(planted)
            handle = real_open(*args, **more)
            if opened == turn - 1:
                engine.write_bytes(planted)
            return handle

        return open_it

    real_open = os.open
    turns = 0
    while opened + 1 >= turns:  # at the last, nothing was swapped any more
        turns += 1
        opened = 0
        engine.write_bytes(genuine)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", swap_at(turns))
            with contextlib.suppress(EngineFitError):
                select_engine(bundle, "encoder", NAMED).backend.close()
    assert turns > 3
    assert planted not in host_tensorrt.handed
    assert genuine in host_tensorrt.handed


def test_a_signed_engine_is_handed_over_and_none_of_another_bundle(
    bundle: Bundle,
    host_tensorrt: Any,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra sign")
    from motorvae.runtime.signing.bundle_signature import digests_of, sign_files
    from motorvae.runtime.signing.keys import new_key, own_private_key, trust_key

    engine, manifest = ENCODER.engine_paths(bundle.folder, "tensorrt")
    (bundle.folder / "manifest.json").write_text(bundle.manifest.model_dump_json())
    genuine, about = engine.read_bytes(), manifest.read_bytes()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("field")))
    with_another_engine(manifest)
    content = json.loads(about)
    planted = engine.read_bytes()
    content["engine"] |= {
        "sha256": hashlib.sha256(planted).hexdigest(),
        "size_bytes": len(planted),
    }
    _, public = new_key("factory")
    engine.write_bytes(genuine)
    sign_files(bundle.folder, digests_of(bundle.folder), *own_private_key(None), None)
    with pytest.raises(EngineFitError, match="it is signed, and no key is trusted here"):
        select_engine(bundle, "encoder", NAMED)
    trust_key(public.read_bytes(), public)
    engine.write_bytes(planted)
    manifest.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(EngineFitError, match="was altered after it was signed"):
        select_engine(bundle, "encoder", NAMED)
    assert host_tensorrt.handed == []
    engine.write_bytes(genuine)
    manifest.write_bytes(about)
    chosen = select_engine(bundle, "encoder", EngineRequest())
    with chosen.backend:
        assert chosen.remarks.startswith("; this engine's bundle was signed by factory (")
    assert host_tensorrt.handed == [genuine]
