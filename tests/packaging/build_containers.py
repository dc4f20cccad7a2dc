"""Run by itself (make containers): lint the container files, build what can be built, and run it.

    python tests/packaging/build_containers.py                 # from the bases that they name
    python tests/packaging/build_containers.py --stand-in      # from Debian, where none can be had
    python tests/packaging/build_containers.py --stand-in cpu  # one of them

Builds are buildah's, which needs no daemon, but root; Debian has it, and mmdebstrap, as packages.
A stand-in is Debian with Python and, in the place of NVIDIA's, an empty module `tensorrt`: all
steps of the file run on it, with packages of other versions than the base has. Of each image
`doctor` is run as an unknown user; of the one for processors a stream into the user's folder, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FILES = REPOSITORY / "containers"
CERTIFICATES = Path("/etc/ssl/certs")
USER = "4321:4321"
ENVIRONMENT = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}


@dataclass(frozen=True)
class Image:
    """A container file, and the Debian that stands in for its base, with TensorRT or not."""

    name: str
    debian: str
    has_tensorrt: bool = True

    @property
    def file(self) -> Path:
        return FILES / f"{self.name}.Dockerfile"


IMAGES = {
    image.name: image
    for image in (
        Image("cpu", "bookworm", has_tensorrt=False),
        Image("jetpack6", "bookworm"),
        Image("jetpack7", "bookworm"),  # NumPy 1 has no wheels for Debian 13's Python
        Image("gpu", "trixie"),
    )
}


def main() -> int:
    words = argparse.ArgumentParser(description="Lint, build and run the container files.")
    words.add_argument("images", nargs="*", metavar="IMAGE", help=" ".join(IMAGES))
    words.add_argument("--stand-in", action="store_true", help="build upon Debian")
    given = words.parse_args()
    if unknown := set(given.images).difference(IMAGES):
        words.error(f"no container file for {', '.join(sorted(unknown))}: take {' '.join(IMAGES)}")
    lint = Path(sys.executable).with_name("hadolint")
    if run(str(lint), *map(str, sorted(FILES.glob("*.Dockerfile")))):
        return 1
    print("hadolint: nothing to say")
    for program in ("buildah", "mmdebstrap"):
        if shutil.which(program) is None or os.geteuid():
            print(f"not built: needs root and {program}: apt-get install {program}")
            return 0
    times = []
    for name in given.images or IMAGES:
        image, start_s = IMAGES[name], time.monotonic()
        arguments = ("--build-arg", f"BASE={stand_in(image)}") if given.stand_in else ()
        if CERTIFICATES.exists():  # of a network that has its own
            arguments += (f"--volume={CERTIFICATES}:{CERTIFICATES}:ro",)
        build = ("build", "--network=host", *arguments, "--file", str(image.file))
        if buildah(*build, "--tag", f"motorvae:{name}", str(REPOSITORY)) or tried(image):
            print(f"{name}: FAILED", file=sys.stderr)
            return 1
        times.append(f"{name}: built and run in {time.monotonic() - start_s:.0f} s")
    print("\n".join(times))
    return 0


def stand_in(image: Image) -> str:
    """Return an image like the base's in what the file needs of it; made once."""
    name = f"localhost/motorvae-{image.debian}{'-tensorrt' if image.has_tensorrt else ''}"
    if buildah("inspect", "--type=image", name, quiet=True) == 0:
        return name
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        packages = "--include=python3,python3-venv,ca-certificates"
        if run("mmdebstrap", "--quiet", "--variant=minbase", packages, image.debian, str(root)):
            raise SystemExit(f"mmdebstrap cannot make {image.debian}")
        if image.has_tensorrt:
            module = root / "usr/lib/python3/dist-packages/tensorrt"
            module.mkdir(parents=True)
            (module / "__init__.py").write_text('__version__ = "0"\n')
        made = output("buildah", "from", "scratch")
        for words in (
            ("add", "--quiet", made, str(root), "/"),
            ("commit", "--quiet", made, name),
            ("rm", made),
        ):
            if buildah(*words, quiet=True):
                raise SystemExit(f"buildah {words[0]} failed")
    return name


def tried(image: Image) -> int:
    """Run an image's commands; returns an exit code."""
    container = output("buildah", "from", f"motorvae:{image.name}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.chown(folder, *map(int, USER.split(":")))
            words = ("run", "--user", USER, "--volume", f"{folder}:/data", container, "motorvae")
            for name in ("--version", "doctor"):
                code = buildah(*words, name)
                # The doctor says that there is no bundle, and nothing else that FAILED.
                if code not in ({0} if name == "--version" else {0, 1}):
                    return 1
            if image.name == "cpu":
                return streamed(Path(folder), words)
        return 0
    finally:
        buildah("rm", container, quiet=True)


def streamed(folder: Path, words: tuple[str, ...]) -> int:
    """Stream drawn vehicles through a bundle of the shipped model; returns an exit code."""
    bundle = REPOSITORY / ".aarch64/expected/bundle"
    if not bundle.exists():
        print("no bundle to stream with: make test-aarch64 leaves one")
        return 0
    shutil.copytree(bundle, folder / "bundle")
    code = buildah(*words, "stream", "synthetic", "--max-frames", "20", "--output", "rows.jsonl")
    rows = (folder / "rows.jsonl").read_text().count('"ok"') if code == 0 else 0
    owner = (folder / "rows.jsonl").stat().st_uid if rows else None
    print(f"{rows} latents in a file of user {owner}")
    return 0 if (rows, owner) == (20, int(USER.partition(":")[0])) else 1


def run(*command: str) -> int:
    return subprocess.run(command, env=os.environ | ENVIRONMENT, check=False).returncode


def buildah(*words: str, quiet: bool = False) -> int:
    out = subprocess.DEVNULL if quiet else None
    command = ("buildah", *words)
    environment = os.environ | ENVIRONMENT
    return subprocess.run(command, env=environment, stdout=out, stderr=out, check=False).returncode


def output(*command: str) -> str:
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
