"""Damaged and malicious bundles, each given to a real command in a process of its own.

    python -m tests.attacks.bundles BUNDLE --count 500 --seed 1

BUNDLE is one that motorvae-export wrote; it is copied. Three in five attacks are damage (bits,
stretches, swaps and losses in every file, half of them with sizes and hashes made anew, so that it
reaches deeper), two are malice (graphs, arrays, JSON, and what lies in the folder). The commands
run their own `main` with 1 GB of data at most and 20 s. One line of JSON counts what came of it;
the exit code is 1 where one ended in a traceback, by a signal, too late or too large, changed the
bundle without success, or refused in anything but one last line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime  # noqa: F401  # loaded once, before the processes are made

from motorvae.benchmarks.doctor import main as doctor
from motorvae.export.bundle import check_replaceable
from motorvae.export.cli import main as export
from motorvae.runtime.cli import stream_main as stream
from motorvae.runtime.core.lifecycle import exit_code_of
from motorvae.runtime.encode_cli import encode_main as encode

from .hostile_graphs import ATTACKS
from .limits import LIMIT_S, MOST_BYTES

DATA_BYTES = 1 << 30
ODD = (None, True, -1, 1 << 70, 1e300, "", "\x1b[31m", "../x", [], {}, [[]], "é" * 5000)
CLUES = (b"Traceback (most recent call last)", b"Exception ignored", b"terminate called")

Attack = Callable[[Path, random.Random], str]


def rehash(folder: Path) -> None:
    """Make the manifest vouch for the files as they are."""
    path = folder / "manifest.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_bytes())
        for entry in (*content["graphs"], *content["files"]):
            data = (folder / entry["file"]).read_bytes()
            entry.update(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        path.write_text(json.dumps(content), encoding="utf-8")


def edit_manifest(folder: Path, edit: Callable[[Any], object]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_bytes())
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def damaged_bytes(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    kind = draw.choice(("flip", "flip", "zeros", "cut", "longer", "noise", "twice", "head", "drop"))
    at, length = draw.randrange(max(1, len(data))), draw.randrange(1, 400)
    if draw.random() < 0.5:  # where structure is
        at = draw.choice((draw.randrange(min(600, len(data) or 1)), max(0, len(data) - at % 600)))
    changed = bytearray(data)
    if kind == "flip":
        for _ in range(draw.choice((1, 3, 30))):
            if changed:
                changed[draw.randrange(len(changed)) if draw.random() < 0.5 else at - 1] ^= (
                    1 << draw.randrange(8)
                )
    elif kind == "zeros":
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    elif kind == "cut":
        del changed[at:]
    elif kind == "longer":
        changed += draw.randbytes(length)
    elif kind == "noise":
        changed[at : at + length] = draw.randbytes(len(changed[at : at + length]))
    elif kind == "twice":
        changed += data
    elif kind == "head":
        del changed[:at]
    else:
        del changed[at : at + length]
    return kind, bytes(changed)


def damage(folder: Path, draw: random.Random) -> str:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    path = draw.choice([*files, folder / "manifest.json", folder / "encoder.mu.onnx"])
    kind = draw.choice(("bytes",) * 6 + ("swap", "delete", "empty", "folder", "unreadable"))
    if kind == "bytes":
        kind, data = damaged_bytes(path.read_bytes(), draw)
        path.write_bytes(data)
    elif kind == "swap":
        path.write_bytes(draw.choice(files).read_bytes())
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "unreadable":
            path.symlink_to(path.name)
    if draw.random() < 0.5:
        rehash(folder)
        kind += " rehashed"
    return f"damage {path.suffix[1:]} {kind}"


def odd_manifest(folder: Path, draw: random.Random) -> str:
    """Take a key out of the manifest, or put something odd in its place."""

    def edit(content: Any) -> None:
        here = content
        while True:
            key = draw.choice([*here] if isinstance(here, dict) else range(len(here)))
            inner = here[key]
            if not isinstance(inner, (dict, list)) or not inner or draw.random() < 0.25:
                break
            here = inner
        if draw.random() < 0.4:
            del here[key]
        else:
            here[key] = draw.choice(ODD)

    edit_manifest(folder, edit)
    return "damage manifest value"


def hostile_graph(folder: Path, draw: random.Random) -> str:
    name = draw.choice([*ATTACKS])
    for file in ("encoder.onnx", "encoder.mu.onnx"):
        model = onnx.load(folder / file)
        with contextlib.suppress(Exception):  # some are of the other form only
            ATTACKS[name][0](model)
        (folder / file).write_bytes(model.SerializeToString())
    rehash(folder)
    return f"graph {name}"


def npz_of(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def header(descr: str, shape: str, tail: str = "") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, {tail}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def hostile_arrays(folder: Path, draw: random.Random) -> str:  # noqa: PLR0912  # one a trick
    path = folder / draw.choice(("latents.npz", "verification.npz"))
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    name = draw.choice([*arrays])
    kind = draw.choice(
        ("shape", "dtype", "NaN", "object", "bomb", "header", "encrypted", "many", "lost", "sizes")
    )
    if kind == "shape":
        arrays[name] = np.zeros(draw.choice([(), (0,), (3,), (1, 1, 1, 1, 1), (70000,), (9, 9)]))
    elif kind == "dtype" and arrays[name].dtype.kind != "U":
        arrays[name] = arrays[name].astype(draw.choice(["complex128", "U7", "?", "S3", "int64"]))
    elif kind == "NaN" and arrays[name].dtype.kind == "f":
        arrays[name] = np.full_like(arrays[name], draw.choice([np.nan, np.inf]))
    elif kind == "object":
        arrays[name] = np.array([{"a": 1}], object)
    elif kind == "lost":
        del arrays[name]
    np.savez(path, **arrays)
    data = path.read_bytes()
    if kind == "bomb":
        size = draw.choice((1 << 27, 1 << 29))
        head = header("<f8", f"({size // 8},)")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for one in arrays:
                with archive.open(f"{one}.npy", "w") as file:
                    file.write(head)
                    for _ in range(size >> 24):
                        file.write(bytes(1 << 24))
                break
            for one in [*arrays][1:]:
                archive.writestr(f"{one}.npy", head)
        data = path.read_bytes()
    elif kind == "header":
        shape = draw.choice(("(" * 9000, "(-1,)", "(99999999999,)", "(9,) * 9", "()", "(0x9,)"))
        descr = draw.choice(("<f8", "|O", "<f999", "<U99999999", "[('a', '<f8')]", "<m8[s]"))
        data = npz_of(*((f"{one}.npy", header(descr, shape)) for one in arrays))
    elif kind == "many":
        data = npz_of(*((f"{index}.npy", b"") for index in range(5000)))
    elif kind == "encrypted":
        at = data.rindex(b"PK\1\2") + draw.choice((8, 10))
        data = data[:at] + bytes([draw.choice((1, 14, 99))]) + data[at + 1 :]
    elif kind == "sizes":
        at = data.rindex(b"PK\1\2") + draw.choice((20, 24, 42))
        data = (
            data[:at] + struct.pack("<L", draw.choice((0, 1, 1 << 31, 0xFFFFFFFE))) + data[at + 4 :]
        )
    path.write_bytes(data)
    rehash(folder)
    return f"arrays {kind}"


def hostile_json(folder: Path, draw: random.Random) -> str:
    path = folder / "manifest.json"
    whole = path.read_bytes()
    first = b'{"schema_version": 4,'
    kind = draw.choice(
        [
            "pipe",
            "/dev/zero",
            "/dev/tty",
            "spaces",
            "deep",
            "number",
            "twice",
            "utf8",
            "surrogate",
            "NaN",
            "sparse",
            "folder",
            "loop",
            "many",
            "long",
        ]
    )
    if kind in {"pipe", "/dev/zero", "/dev/tty", "folder", "loop"}:
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("manifest.json" if kind == "loop" else kind)
    elif kind == "sparse":
        os.truncate(path, draw.choice((1 << 32, 1 << 40)))
    elif kind == "spaces":
        path.write_bytes(whole[:-2] + b" " * draw.choice((1 << 20, 1 << 27)) + whole[-2:])
    else:
        inner = {
            "deep": b'"x": ' + b"[" * draw.choice((500, 1500, 100_000)),
            "number": b'"x": ' + b"9" * draw.choice((25, 5000, 3_000_000)) + b",",
            "twice": b'"schema_version": 4,',
            "utf8": b'"x": "\xc3\x28",',
            "surrogate": b'"x": "\\udfff",',
            "NaN": b'"x": [NaN, Infinity, -1e999],',
            "many": b'"x": [' + b"{}," * 1_000_000 + b"0],",
            "long": b'"producer": "' + b"a" * 3_000_000 + b'",',
        }[kind]
        path.write_bytes(first + inner + whole[whole.index(b",") + 1 :])
    return f"json {kind}"


def hostile_folder(folder: Path, draw: random.Random) -> str:  # noqa: PLR0912  # as above
    kind = draw.choice(
        [
            "data",
            "library",
            "pipe",
            "device",
            "outside",
            "absolute",
            "above",
            "sparse",
            "ort",
            "sizes",
            "channels",
            "engine",
            "same",
            "swapped",
            "version",
        ]
    )
    if kind in {"data", "library", "engine"}:
        name = {"data": "encoder.onnx.data", "library": "libcustom.so", "engine": "x.engine"}[kind]
        (folder / name).write_bytes(b"x" * 100)
    elif kind == "pipe":
        os.mkfifo(folder / draw.choice(("pipe", "engines")))
    elif kind == "device":
        (folder / "encoder.mu.onnx").unlink()
        (folder / "encoder.mu.onnx").symlink_to("/dev/zero")
    elif kind == "outside":
        (folder / "latents.npz").unlink()
        (folder / "latents.npz").symlink_to("/etc/passwd")
    elif kind in {"absolute", "above"}:
        file = "/etc/passwd" if kind == "absolute" else "../" * draw.randrange(1, 30) + "etc/passwd"
        edit_manifest(folder, lambda content: draw.choice(content["graphs"]).update(file=file))
    elif kind == "sparse":
        size = draw.choice((1 << 31, 1 << 32, 1 << 40))
        os.truncate(folder / "encoder.mu.onnx", size)
        if draw.random() < 0.5:  # a model of which such a file could be
            edit_manifest(folder, lambda content: content["model"].update(channels=[9999] * 5))

        def bigger(content: Any) -> None:
            for entry in content["graphs"]:
                if entry["file"] == "encoder.mu.onnx":
                    entry["size_bytes"] = size

        edit_manifest(folder, bigger)
    elif kind == "ort":
        (folder / "encoder.mu.onnx").rename(folder / "encoder.ort")

        def renamed(content: Any) -> None:
            for entry in content["graphs"]:
                if entry["file"] == "encoder.mu.onnx":
                    entry["file"] = "encoder.ort"

        edit_manifest(folder, renamed)
    elif kind in {"sizes", "channels"}:
        model = {"image_size": draw.choice((4096, 1 << 40)), "latent_size": 65536}
        if kind == "channels":
            model = {"channels": draw.choice(([65536] * 8, [1 << 70], [], [0], "many"))}
        edit_manifest(folder, lambda content: content["model"].update(model))
    elif kind == "same":
        edit_manifest(
            folder, lambda content: [one.update(file="manifest.json") for one in content["graphs"]]
        )
        rehash(folder)
    elif kind == "swapped":

        def swap(content: Any) -> None:
            files = [entry["file"] for entry in content["graphs"]]
            draw.shuffle(files)
            for entry, file in zip(content["graphs"], files, strict=True):
                entry["file"] = file

        edit_manifest(folder, swap)
        rehash(folder)
    else:
        edit_manifest(folder, lambda content: content.update(schema_version=draw.choice(ODD)))
    return f"folder {kind}"


DAMAGE: tuple[Attack, ...] = (damage, damage, odd_manifest)
MALICE: tuple[Attack, ...] = (hostile_graph, hostile_arrays, hostile_json, hostile_folder)


def commands_for(ground: Path) -> dict[str, Callable[[Path], int]]:
    """Return what strangers' bundles are given to."""
    picture = ground / "picture.png"
    cv2.imwrite(str(picture), np.full((40, 60, 3), 90, np.uint8))
    rows, latents = str(ground / "rows.jsonl"), str(ground / "latents.npz")
    camera = ["synthetic?frames=2&size=64", "--backend", "onnx", "--output", rows]
    return {
        "stream": lambda path: stream([*camera, "--model", str(path)]),
        "stream --reconstruct": lambda path: stream(
            [*camera, "--reconstruct", "every=1", "--model", str(path)]
        ),
        "encode": lambda path: encode(
            [str(picture), "--backend", "onnx", "--output", latents, "--model", str(path)]
        ),
        "doctor": lambda path: doctor(["screen", "--model", str(path)]),
        "export": lambda path: export(["--model", str(path), "--fp16", "--engine", "none"]),
        "export --int8": lambda path: export(
            ["--model", str(path), "--int8", "onnx", "--engine", "none"]
        ),
        "export over": lambda path: exit_code_of(
            "motorvae-export", lambda: print(check_replaceable(path), file=sys.stderr)
        ),
    }


def listing(folder: Path) -> dict[str, object]:
    return {
        path.relative_to(folder).as_posix(): (stat.st_mode, stat.st_size, stat.st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        for stat in (path.lstat(),)
    }


def run_in_child(
    command: Callable[[Path], int], bundle: Path, said: Path, limit_s: float = LIMIT_S
) -> tuple[int, int, bool]:
    """Return the exit code or minus a signal, the largest memory in bytes, and whether too late."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 2)
            os.dup2(handle, 1)
            os.setsid()  # no terminal: what opens /dev/tty finds none
            resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                code = command(bundle)
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:  # noqa: BLE001  # it is shown as Python would
                sys.excepthook(*sys.exc_info())
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    until_s = time.monotonic() + limit_s
    late = False
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, late
        if not late and time.monotonic() > until_s:
            late = True
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def attacked(bundle: Path, *, count: int, seed: int) -> dict[str, Any]:
    """Run attacks; return what is printed."""
    draw, kinds, counts = random.Random(seed), Counter[str](), Counter[str]()
    faults: list[str] = []
    slowest_s = peak = 0.0
    with tempfile.TemporaryDirectory(prefix="motorvae-attacks-") as name:
        ground, said = Path(name), Path(name) / "said.txt"
        commands = commands_for(ground)
        for turn in range(count):
            copy = ground / "bundle"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(bundle, copy)
            group = DAMAGE if turn % 5 < 3 else MALICE
            kind = draw.choice(group)(copy, draw)
            title = draw.choice([*commands])
            before, began_s = listing(copy), time.monotonic()
            # The doctor gives each of its own checks, which are processes, 20 s.
            limit_s = 3 * LIMIT_S if title == "doctor" else LIMIT_S
            code, memory, late = run_in_child(commands[title], copy, said, limit_s)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
            peak = max(peak, memory)
            text = said.read_bytes()
            lines = text.decode(errors="replace").strip().splitlines()
            kinds[kind.partition(" ")[0]] += 1
            counts["damaged" if group is DAMAGE else "malicious"] += 1
            counts["ran" if code == 0 else "refused"] += 1
            last = lines[-1] if lines else ""
            wrong = [
                *(["hang"] if late else []),
                *(["traceback"] if any(clue in text for clue in CLUES) else []),
                *(["signal"] if code < 0 and not late else []),
                *(["memory"] if memory > MOST_BYTES else []),
                *(["changed"] if code and listing(copy) != before else []),
                *(["no line"] if code and title != "doctor" and "motorvae-" not in last else []),
            ]
            for what in wrong:
                counts[what] += 1
                faults.append(f"{what}: {turn} {title}: {kind}: {last[:300]}")
    return {
        **{key: counts[key] for key in ("damaged", "malicious", "refused", "ran")},
        **{key: counts[key] for key in ("traceback", "hang", "signal", "memory", "changed")},
        "no line": counts["no line"],
        "slowest_s": round(slowest_s, 2),
        "peak_mb": round(peak / 1e6),
        "kinds": dict(sorted(kinds.items())),
        "faults": faults[:20],
    }


def is_good(result: dict[str, Any]) -> bool:
    return not result["faults"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    result = attacked(given.bundle, count=given.count, seed=given.seed)
    print(json.dumps(result))
    return 0 if is_good(result) else 1


if __name__ == "__main__":
    sys.exit(main())
