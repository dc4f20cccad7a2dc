"""SourceSpec: what a user named as a source of frames, parsed once."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..core.errors import ConfigError, SourceError, sentence_list
from ..core.frame import Mode
from ..core.redaction import without_credentials
from ..pixels.image_files import IMAGE_SUFFIXES, image_paths, in_natural_order
from .synthetic.plan import SyntheticPlan, plan_from_query

SourceKind = Literal["device", "images", "video", "pipe", "url", "csi", "gst", "synthetic"]
SYNTHETIC = "synthetic"
URL_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "udp")
SCHEMES = (*(f"{scheme}://" for scheme in URL_SCHEMES), "csi://", "gst:", SYNTHETIC)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What a source is, and how its frames come: liveness is decided here and nowhere else."""

    kind: SourceKind  # a glob or a folder is `images`
    # Index or path of a device, path, URL, pipeline, or number of a CSI camera. It may hold a
    # password and belongs in no message.
    location: str = field(repr=False)
    name: str  # what to call it in messages; never holds credentials
    paths: tuple[Path, ...] = ()  # of images: in their order; names are relative to `location`
    mode: Mode = field(default_factory=Mode)  # of a CSI camera: what was named with it
    plan: SyntheticPlan = field(default_factory=SyntheticPlan)  # of the synthetic camera
    realtime: bool = False  # a recording is played by the clock, as a camera would deliver it
    # Of a URL, once connected: it announces an end, as a recording on a web server does.
    has_end: bool | None = None

    @property
    def is_recording(self) -> bool | None:
        """Whether frames wait until they are read; None where only a connection can tell."""
        if self.kind == "url":
            return self.has_end
        if self.kind == "synthetic":
            return self.plan.fps is None
        return self.kind in {"images", "video"}

    @property
    def live(self) -> bool:
        """Whether frames come by the clock, read or not; so does a URL until an end is found."""
        return self.realtime or not self.is_recording

    @property
    def can_reconnect(self) -> bool:
        """Whether what fails or ends may come back, so that opening it again is worth trying."""
        return not self.is_recording

    @classmethod
    def device(cls, location: int | str | Path) -> SourceSpec:
        """Name a camera of this machine, by its index or the path of its device file."""
        return cls("device", str(location), f"camera {printable(str(location))}")

    @classmethod
    def parse(cls, text: str, *, realtime: bool = False, fps: float | None = None) -> SourceSpec:
        """Find out what a text names; looks at the file system, and opens nothing.

        Args:
            text: A device index such as `0`, a device path, a video file, a named pipe, an image
                file, a folder of images, a pattern such as `photos/*.jpg`, a URL, `csi://0`,
                `gst:` and a pipeline, or `synthetic`, with `?key=value&...` to change it.
            realtime: Play a recording by the clock.
            fps: The rate of a synthetic camera whose text names none.

        Raises:
            ConfigError: A setting in the text is not allowed.
            SourceError: There is no such thing, or no image in it.
        """
        return replace(_parsed(text, fps), realtime=realtime)


def _parsed(text: str, fps: float | None) -> SourceSpec:
    scheme, separator, rest = text.partition(":")
    scheme = scheme.lower()
    kind, _, query = text.partition("?")
    if kind == SYNTHETIC:
        return SourceSpec("synthetic", text, SYNTHETIC, plan=plan_from_query(query, fps=fps))
    if separator and scheme == "gst":
        return SourceSpec("gst", rest, name_of_pipeline(rest))
    if rest.startswith("//") and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        if scheme == "csi":
            return _csi(rest[2:])
        if scheme not in URL_SCHEMES:
            raise SourceError(f"{scheme}:// is no source: take {sentence_list(SCHEMES)}, or a path")
        url = f"{scheme}:{rest}"
        return SourceSpec("url", url, without_credentials(url))
    return SourceSpec.device(int(text)) if text.isdecimal() else _local(text)


def _local(text: str) -> SourceSpec:
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # leaves an unknown ~user as it is
    if text and os.path.exists(path):  # noqa: PTH110  # false for what is too long for a path
        return _at(path)
    # Who forgot the scheme of a URL may have typed a password.
    shown = without_credentials(text) if "@" in text.partition(":")[2] else text
    if text and glob.has_magic(text):
        return _matching(path, shown)
    raise SourceError(
        f"no such source: {shown!r}; name an existing file, folder or device, a URL, "
        "a camera index such as 0, or synthetic"
    )


def _at(path: Path) -> SourceSpec:
    location, name = str(path), printable(str(path))
    if path.is_char_device():
        return SourceSpec.device(path)
    if path.is_dir():
        return SourceSpec("images", location, name, paths=tuple(image_paths(path)))
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return SourceSpec("images", str(path.parent), name, paths=(path,))
    return SourceSpec("pipe" if path.is_fifo() else "video", location, name)


def _matching(pattern: Path, shown: str) -> SourceSpec:
    """A pattern matches images, or one thing of any kind."""
    name = printable(shown)
    root = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    paths = in_natural_order(map(Path, glob.glob(str(pattern), recursive=True)), root)  # noqa: PTH207
    if not paths:
        raise SourceError(f"nothing matches {name}: check the pattern, and put it in quotes")
    if len(paths) == 1:
        return _at(paths[0])
    others = [path.name for path in paths if path.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        raise SourceError(
            f"{name} matches {len(paths)} files that are not all images, such as "
            f"{printable(others[0])}: narrow the pattern, or give each video its own --camera"
        )
    return SourceSpec("images", str(root), name, paths=tuple(paths))


def _csi(address: str) -> SourceSpec:
    number, _, query = address.partition("?")
    pairs = [pair for pair in query.split("&") if pair]
    usable = [re.fullmatch("(width|height|fps)=([1-9][0-9]{0,4})", pair) for pair in pairs]
    if not number.isdecimal() or None in usable:
        raise ConfigError(
            "csi:// takes the number of a camera: write csi://0, or "
            "csi://0?width=1920&height=1080&fps=30 with whole numbers"
        )
    values: dict[str, Any] = {match[1]: int(match[2]) for match in usable if match}
    return SourceSpec("csi", number, f"csi://{number}", mode=Mode(**values))


def name_of_pipeline(pipeline: str) -> str:
    """Return what a pipeline may be called: by its first element, before any of its settings."""
    first = re.match(r"\s*([a-z][a-z0-9_-]*)(?=\s|$)", pipeline)
    return f"gst:{first[1]}" if first else "gst"


def printable(text: str) -> str:
    """Return text in which the bytes of a file name that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
