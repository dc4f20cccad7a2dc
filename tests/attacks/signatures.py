"""Engines and signatures that were forged, replayed, stripped or downgraded, by the hundred.

    python -m tests.attacks.signatures BUNDLE --count 2000 --seed 1

BUNDLE is one that motorvae-export wrote; it is copied, and engines are built in the copy for real,
by TensorRT-RTX, which needs no GPU for that. Nobody says of a single attack what must come of it:
what is accepted must be, byte for byte, what was built or signed. One line of JSON counts what
happened; the exit code is 1 where anything else was accepted, or an error was not one line.
"""

# ruff: noqa: ARG001  # attacks are called alike, whatever each needs
from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu
from motorvae.runtime.engines.tensorrt.find import check_engine
from motorvae.runtime.engines.tensorrt.package import import_tensorrt
from motorvae.runtime.signing.bundle_signature import digests_of, sign_files, signed_bundle
from motorvae.runtime.signing.keys import new_key, own_private_key, retire_key, trust_key
from motorvae.runtime.signing.machine_key import MachineKey, machine_key

from .limits import LIMIT_S, MOST_BYTES, peak_bytes

PACKAGE = "tensorrt-rtx"
ADA = Gpu("NVIDIA GeForce RTX 4090", "8.9", "13.0", "580.65", 24 << 30, integrated=False)
ORDER = 2**252 + 27742317777372353535851937790883648493

Content = dict[str, bytes]


def content_of(folder: Path) -> Content:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def said_by(text: bytes) -> Any:
    """What JSON says, however it is spelled."""
    return json.loads(text)


@dataclass
class Ground:
    """Two bundles with engines of this machine's, one of them signed, and who is whom."""

    root: Path
    genuine: dict[str, Content] = field(default_factory=dict)
    """Of "ours", "other" (other weights, so to speak) and "signed", every file."""
    earlier: dict[str, bytes] = field(default_factory=dict)
    """The signature of an earlier state of the signed bundle."""

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    def config(self, whose: str) -> Path:
        """Be this user from here on."""
        os.environ["XDG_CONFIG_HOME"] = str(self.root / whose)
        return self.root / whose / "motorvae"

    def put(self, name: str) -> None:
        shutil.rmtree(self.bundle, ignore_errors=True)
        for file, content in self.genuine[name].items():
            path = self.bundle / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def prepared(source: Path, root: Path) -> Ground:
    """Build and sign for real."""
    from rich.console import Console

    from motorvae.export.tensorrt.add_engines import add_engines_to_bundle
    from motorvae.export.tensorrt.build import EngineBuildRequest
    from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile

    ground = Ground(root)
    ground.config("builder")
    request = EngineBuildRequest(
        import_tensorrt("tensorrt-rtx"), NoGpu("none is needed"), "fp16", BatchProfile()
    )

    def build() -> None:
        add_engines_to_bundle(
            load_bundle(ground.bundle), request, Console(quiet=True), on_reports=lambda _: None
        )

    shutil.copytree(source, ground.bundle, ignore=shutil.ignore_patterns("engines", "signature*"))
    build()
    ground.genuine["ours"] = content_of(ground.bundle)
    # Another model: its graphs differ in a word that no engine cares for.
    manifest = json.loads((ground.bundle / "manifest.json").read_text(encoding="utf-8"))
    for entry in manifest["graphs"]:
        path = ground.bundle / entry["file"]
        if not path.exists():
            continue
        content = path.read_bytes().replace(b"of a motorVAE", b"of A motorVAE")
        path.write_bytes(content)
        entry["sha256"] = hashlib.sha256(content).hexdigest()
    (ground.bundle / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    build()
    ground.genuine["other"] = content_of(ground.bundle)

    ground.config("signer")
    publics = [new_key(name)[1] for name in ("factory", "old", "stranger")]
    ground.put("other")
    sign_files(ground.bundle, digests_of(ground.bundle), *own_private_key("factory"), None)
    ground.genuine["other signed"] = content_of(ground.bundle)
    ground.put("ours")
    for name in ("old", "stranger"):
        sign_files(ground.bundle, digests_of(ground.bundle), *own_private_key(name), None)
        ground.earlier[name] = (ground.bundle / "signature.json").read_bytes()
        (ground.bundle / "signature.json").unlink()
    sign_files(ground.bundle, digests_of(ground.bundle), *own_private_key("factory"), None)
    ground.genuine["signed"] = content_of(ground.bundle)
    ground.config("field")
    for path in publics[:2]:
        trust_key(path.read_bytes(), path)
    retire_key("old")
    return ground


# --- what is done to an engine ---


def engines(ground: Ground) -> list[Path]:
    return sorted((ground.bundle / "engines").glob("*.engine"))


def rewrite(path: Path, edit: Callable[[Any], object], **spelling: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content, **spelling), encoding="utf-8")


def leaf_of(content: Any, draw: random.Random) -> tuple[Any, Any]:
    """Some place in a document: what holds it, and under what."""
    while True:
        names = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not names:
            return None, None
        name = draw.choice(names)
        if not isinstance(content[name], (dict, list)) or not content[name]:
            return content, name
        content = content[name]


def changed(value: Any, draw: random.Random) -> Any:
    others: list[Any] = [None, True, 0, -1, 1 << 62, 1e300, "", "0" * 64, [], {}, "\u202e", value]
    if isinstance(value, str) and value:
        at = draw.randrange(len(value))
        others += [value[:at] + draw.choice("0f.Z") + value[at + 1 :], value.upper(), value + " "]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        others += [value + 1, -value, float(value)]
    return draw.choice(others)


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)


def alter_some_value(ground: Ground, about: Path, draw: random.Random) -> None:
    def edit(content: Any) -> None:
        holder, name = leaf_of(content, draw)
        if holder is not None:
            holder[name] = changed(holder[name], draw)

    rewrite(about, edit, indent=draw.choice([None, 2]))


def drop_some_value(ground: Ground, about: Path, draw: random.Random) -> None:
    rewrite(about, lambda content: content.pop(draw.choice(list(content))))


def add_some_value(ground: Ground, about: Path, draw: random.Random) -> None:
    rewrite(about, lambda content: content.update({draw.choice(["alg", "tag", "trust"]): "none"}))


def repeat_a_key(ground: Ground, about: Path, draw: random.Random) -> None:
    text = about.read_text(encoding="utf-8")
    name = draw.choice(list(json.loads(text)))
    twice = f'"{name}": {json.dumps(draw.choice([None, 3, "x"]))}'
    text = f"{{{twice}, {text[1:]}" if draw.random() < 0.5 else f"{text.rstrip()[:-1]}, {twice}}}"
    about.write_text(text, encoding="utf-8")


def flip_a_bit(ground: Ground, about: Path, draw: random.Random) -> None:
    flip(draw.choice([about, about.with_suffix(".engine")]), draw)


def plant(ground: Ground, about: Path, draw: random.Random) -> None:
    """An engine of the attacker's, under an engine manifest that fits it in all but the tag."""
    engine = about.with_suffix(".engine")
    planted = engine.read_bytes() + b"payload"
    engine.write_bytes(planted)
    facts = {"sha256": hashlib.sha256(planted).hexdigest(), "size_bytes": len(planted)}
    key = MachineKey(draw.randbytes(32))

    def edit(content: Any) -> None:
        own = content.pop("built_here", None)
        content["engine"] |= facts
        how = draw.randrange(6)
        if how == 0:
            content["schema_version"] = 3
        elif how == 1:
            content["built_here"] = own  # replayed
        elif how >= 2:
            said = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            real = machine_key()
            known = own["key_id"] if own else real.key_id if real else "0" * 32
            content["built_here"] = {
                "key_id": draw.choice([known, key.key_id, "0" * 32]),
                "tag": draw.choice([key.tag(said.encode()), "0" * 64, draw.randbytes(32).hex()]),
            }

    rewrite(about, edit)


def swap_engines(ground: Ground, about: Path, draw: random.Random) -> None:
    """Of another form or half, with or without its engine manifest, or only its tag."""
    other = draw.choice(engines(ground))
    how = draw.randrange(3)
    if how < 2:
        about.with_suffix(".engine").write_bytes(other.read_bytes())
    if how == 1:
        about.write_bytes(other.with_suffix(".json").read_bytes())
    if how == 2:
        taken = json.loads(other.with_suffix(".json").read_text(encoding="utf-8"))["built_here"]
        rewrite(about, lambda content: content.update(built_here=taken))


def take_of_another_bundle(ground: Ground, about: Path, draw: random.Random) -> None:
    """An engine that this machine built of other graphs."""
    for path in draw.choice(
        [[about], [about.with_suffix(".engine")], [about, about.with_suffix(".engine")]]
    ):
        path.write_bytes(ground.genuine["other"][f"engines/{path.name}"])


def claim_another_graph(ground: Ground, about: Path, draw: random.Random) -> None:
    """A bundle of other graphs says that its graphs are those of the engine."""
    ours = {e["file"]: e for e in said_by(ground.genuine["ours"]["manifest.json"])["graphs"]}
    others = said_by(ground.genuine["other"]["manifest.json"])
    for entry in others["graphs"]:
        if draw.random() < 0.7:
            entry["sha256"] = ours[entry["file"]]["sha256"]
    (ground.bundle / "manifest.json").write_text(json.dumps(others), encoding="utf-8")


def no_plain_file(ground: Ground, about: Path, draw: random.Random) -> None:
    path = draw.choice([about, about.with_suffix(".engine")])
    content = path.read_bytes()
    path.unlink()
    how = draw.randrange(6)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.mkdir()
    elif how == 2:
        path.symlink_to("/dev/zero")
    elif how == 3:
        path.symlink_to("/nowhere")
    elif how == 4:
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        with path.open("wb") as file:
            file.truncate(40 << 30)  # sparse


def harm_the_key(ground: Ground, about: Path, draw: random.Random) -> None:
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "motorvae" / "machine.key"
    content = path.read_bytes()
    path.unlink()
    how = draw.randrange(6)
    if how == 0:
        return
    if how == 1:
        path.symlink_to("elsewhere")
        return
    if how == 2:
        content = content[: draw.randrange(len(content))]
    if how == 3:
        key = MachineKey(draw.randbytes(32))
        content = f"motorvae-machine-key-v1 {key.key_id} {key.secret.hex()}\n".encode()
    if how == 4:
        at = draw.randrange(len(content))
        content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    path.write_bytes(content)
    path.chmod(draw.choice([0o644, 0o666, 0o640]) if how == 5 else 0o600)


ON_ENGINES = (
    *(alter_some_value, drop_some_value, add_some_value, repeat_a_key, flip_a_bit, plant),
    *(swap_engines, take_of_another_bundle, claim_another_graph, no_plain_file, harm_the_key),
)


# --- what is done to a signature ---


def edit_signature(ground: Ground, edit: Callable[[Any], object], *, spelled: bool = True) -> None:
    path = ground.bundle / "signature.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    text = json.dumps(content, indent=2 if spelled else 3) + "\n"
    path.write_text(text, encoding="utf-8")


def strip(ground: Ground, draw: random.Random) -> None:
    if draw.random() < 0.5:
        (ground.bundle / "signature.json").unlink()
    else:
        edit_signature(ground, lambda content: content.update(signatures=[]))
    if draw.random() < 0.5:
        flip(draw.choice(engines(ground)), draw)


def alter_signature(ground: Ground, draw: random.Random) -> None:
    def edit(content: Any) -> None:
        holder, name = leaf_of(content, draw)
        if holder is not None:
            holder[name] = changed(holder[name], draw)

    edit_signature(ground, edit)


def flip_signature(ground: Ground, draw: random.Random) -> None:
    flip(ground.bundle / "signature.json", draw)


def respell(ground: Ground, draw: random.Random) -> None:
    path = ground.bundle / "signature.json"
    text = path.read_bytes()
    how = draw.randrange(5)
    if how == 0:
        text += draw.choice([b" ", b"\n", b"\0", b"{}"])
    elif how == 1:
        text = json.dumps(said_by(text)).encode()
    elif how == 2:
        text = text.replace(b"onnx", rb"\u006fnnx", 1)
    elif how == 3:
        text = b"\xef\xbb\xbf" + text
    else:
        text = text.replace(b'"files"', b'"files": [],\n  "files"', 1)
    path.write_bytes(text)


def malleable(ground: Ground, draw: random.Random) -> None:
    """Other encodings of the same point and scalar, and keys that are signatures of everything."""

    def edit(content: Any) -> None:
        one = content["signatures"][0]
        raw = bytes.fromhex(one["signature"])
        scalar = int.from_bytes(raw[32:], "little")
        how = draw.randrange(5)
        if how == 0:
            scalar += ORDER * draw.randrange(1, 15)
        elif how == 1:
            scalar = (ORDER - scalar) % ORDER
        elif how == 2:
            raw = bytes([raw[0] ^ 1, *raw[1:]])
        elif how == 3:
            raw, scalar = bytes([1, *bytes(31), *raw[32:]]), 0
        else:
            raw = bytes([*raw[:31], raw[31] ^ 0x80, *raw[32:]])
        one["signature"] = (raw[:32] + (scalar % 2**256).to_bytes(32, "little")).hex()

    edit_signature(ground, edit)


def replay(ground: Ground, draw: random.Random) -> None:
    """The signature of another bundle, of a retired key, of a stranger, under other ids."""
    path = ground.bundle / "signature.json"
    other = ground.genuine["other signed"]["signature.json"]
    own = path.read_bytes()
    path.write_bytes(draw.choice([other, *ground.earlier.values()]))
    how = draw.randrange(4)
    if how == 1:
        ids = [said_by(own)["signatures"][0]["key_id"], "0" * 32, "f" * 32]
        edit_signature(
            ground, lambda content: content["signatures"][0].update(key_id=draw.choice(ids))
        )
    if how == 2:
        edit_signature(ground, lambda content: content.update(files=said_by(own)["files"]))
    if how == 3:
        flip(draw.choice(engines(ground)), draw)


def add_or_take(ground: Ground, draw: random.Random) -> None:
    files = sorted(path for path in ground.bundle.rglob("*") if path.is_file())
    path = draw.choice(files)
    how = draw.randrange(7)
    if how == 0:
        path.unlink()
    elif how == 1:
        (ground.bundle / draw.choice(["x", "engines/x.engine", "a\nb"])).write_bytes(b"x")
    elif how == 2:
        path.rename(path.with_name("renamed"))
    elif how == 3:
        other = draw.choice(files)
        held = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(held)
    elif how == 4:
        (ground.bundle / "inner").mkdir()
        (ground.bundle / "inner" / path.name).write_bytes(b"")
    elif how == 5:
        held = path.read_bytes()
        path.unlink()
        (ground.root / "outside").write_bytes(held)
        path.symlink_to(ground.root / "outside")
    else:
        flip(path, draw)


def plant_and_list(ground: Ground, draw: random.Random) -> None:
    """An engine of the attacker's, listed as it should be, under a signature that was."""
    engine = draw.choice(engines(ground))
    about = engine.with_suffix(".json")
    plant(ground, about, draw)
    hashes = {
        f"engines/{path.name}": {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size_bytes": path.stat().st_size,
        }
        for path in (engine, about)
    }
    edit_signature(
        ground,
        lambda content: [entry.update(hashes.get(entry["file"], {})) for entry in content["files"]],
    )


ON_SIGNATURES = (
    *(strip, alter_signature, flip_signature, respell, malleable, replay, add_or_take),
    plant_and_list,
)


# --- the judge ---


@dataclass
class Counts:
    attacks: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    accepted_as_built: int = 0
    """Attacks that changed nothing that counts, such as another spelling."""
    wrongly_accepted: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def judged(counts: Counts, name: str, look: Callable[[], bool]) -> None:
    """Count what comes of one look at what was attacked: whether what is accepted is genuine."""
    counts.attacks[name] += 1
    began_s = time.monotonic()
    try:
        if look():
            counts.accepted_as_built += 1
        else:
            counts.wrongly_accepted.append(name)
    except MotorVAEError as error:
        counts.refused += 1
        if "\n" in str(error):  # what else does not print is made printable where it is printed
            counts.tracebacks.append(f"{name}: not one line: {str(error)!r}")
    except Exception as error:  # noqa: BLE001  # that it comes is the finding
        counts.tracebacks.append(f"{name}: {type(error).__name__}: {error}")
    counts.slowest_s = max(counts.slowest_s, time.monotonic() - began_s)


def accepts_the_engine(ground: Ground, key: GraphKey, genuine: Content) -> bool:
    """Open an engine as far as the driver; return whether it is what was built of these graphs."""
    package = import_tensorrt("tensorrt-rtx")
    bundle = load_bundle(ground.bundle, hash_all=False)
    _, plan = check_engine(bundle, bundle.entry(key), package, ADA)
    engine, about = key.engine_paths(Path(), PACKAGE)
    said = said_by(genuine[about.as_posix()])
    now = said_by((ground.bundle / about).read_bytes())
    return plan.content == genuine[engine.as_posix()] and now == said


def attack_engine(ground: Ground, counts: Counts, draw: random.Random) -> None:
    key = GraphKey("encoder", "fp16", draw.choice(["full", "luma", "mu"]))
    config = ground.config("builder")
    kept = (config / "machine.key").read_bytes()
    ground.put("ours")
    _, about = key.engine_paths(ground.bundle, PACKAGE)
    attack = draw.choice(ON_ENGINES)
    attack(ground, about, draw)
    genuine = ground.genuine["ours"]
    judged(counts, attack.__name__, lambda: accepts_the_engine(ground, key, genuine))
    path = config / "machine.key"
    path.unlink(missing_ok=True)
    path.write_bytes(kept)
    path.chmod(0o600)


def attack_signature(ground: Ground, counts: Counts, draw: random.Random) -> None:
    """The machine in the field, which built nothing, looks at all, and opens an engine."""
    ground.config("field")
    ground.put("signed")
    attack = draw.choice(ON_SIGNATURES)
    attack(ground, draw)
    states = [ground.genuine["signed"], ground.genuine["other signed"]]

    def verifies() -> bool:
        signed = signed_bundle(ground.bundle, hash_all=True)
        if signed is None:
            raise MotorVAEError("not signed")
        return content_of(ground.bundle) in states and not any(
            path.is_symlink() for path in ground.bundle.rglob("*")
        )

    judged(counts, attack.__name__, verifies)
    key = GraphKey("encoder", "fp16", draw.choice(["full", "luma", "mu"]))
    genuine = ground.genuine["signed"]
    judged(counts, f"{attack.__name__}, opened", lambda: accepts_the_engine(ground, key, genuine))


def race(ground: Ground, counts: Counts, seconds: float) -> None:
    """An engine that is another one from moment to moment while it is looked at."""
    ground.config("builder")
    ground.put("ours")
    key = GraphKey("encoder", "fp16")
    engine, about = key.engine_paths(ground.bundle, PACKAGE)
    genuine = {path: path.read_bytes() for path in (engine, about)}
    planted = copy.copy(genuine)
    planted[engine] = genuine[engine][:-7] + b"payload"
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for state in (planted, genuine):
                for path, content in state.items():
                    path.write_bytes(content)

    swapping = threading.Thread(target=swap)
    swapping.start()
    until_s = time.monotonic() + seconds
    package, bundle = import_tensorrt("tensorrt-rtx"), load_bundle(ground.bundle, hash_all=False)

    def look() -> bool:
        _, plan = check_engine(bundle, bundle.entry(key), package, ADA)
        return plan.content == genuine[engine]

    while time.monotonic() < until_s:
        judged(counts, "race", look)
    done.set()
    swapping.join()


def attacked(bundle: Path, *, count: int, seed: int, race_s: float) -> dict[str, Any]:
    """Run attacks; return what is printed."""
    draw, counts, held = random.Random(seed), Counts(), peak_bytes()
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="motorvae-attacks-") as folder:
        try:
            ground = prepared(bundle, Path(folder))
            for turn in range(count):
                (attack_engine if turn % 2 else attack_signature)(ground, counts, draw)
            race(ground, counts, race_s)
        finally:
            os.environ.clear()
            os.environ.update(before)
    return {
        "variants": count,
        "looks": counts.attacks.total(),
        "refused": counts.refused,
        "accepted, as nothing that counts was changed": counts.accepted_as_built,
        "wrongly accepted": counts.wrongly_accepted,
        "tracebacks": counts.tracebacks,
        "slowest_s": round(counts.slowest_s, 2),
        # Whoever calls this may have held much before.
        "peak_mb": round((peak_bytes() - held) / 1e6),
        "kinds": dict(sorted(counts.attacks.items())),
    }


def is_good(result: dict[str, Any]) -> bool:
    return not (
        result["wrongly accepted"]
        or result["tracebacks"]
        or result["slowest_s"] > LIMIT_S
        or result["peak_mb"] * 1e6 > MOST_BYTES
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--race-s", type=float, default=10.0)
    given = parser.parse_args()
    result = attacked(given.bundle, count=given.count, seed=given.seed, race_s=given.race_s)
    print(json.dumps(result))
    return 0 if is_good(result) else 1


if __name__ == "__main__":
    sys.exit(main())
