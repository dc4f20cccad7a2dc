"""SourceSpec: what a user named as a source of frames, parsed once."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..core.errors import ConfigError, SourceError, sentence_list
from ..core.frame import DEFAULT_FPS, Mode
from ..core.redaction import HIDDEN, without_credentials
from ..core.text import printable
from ..pixels.files.image_kinds import IMAGE_SUFFIXES, kind_of_file
from .image_list import ImageList, images_in, images_matching

SourceKind = Literal["device", "images", "video", "pipe", "url", "csi", "gst", "synthetic"]
Transport = Literal["auto", "tcp", "udp"]
SYNTHETIC = "synthetic"
URL_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "udp")
SCHEMES = (*(f"{scheme}://" for scheme in URL_SCHEMES), "csi://", "gst:", SYNTHETIC)

Ranges = tuple[tuple[int, int], ...]  # first and last frame numbers, both included, ascending

MAX = "max"
SYNTHETIC_SIZE = 512
_LARGEST_LOOP_BYTES = 1 << 30
_LOOP_AT_MAX = 240


@dataclass(frozen=True, slots=True)
class SyntheticPlan:
    """The query of `synthetic?key=value&...`; a frame's number is its tick of the clock."""

    fps: float | None = DEFAULT_FPS  # None: as fast as they are read, without a clock
    seed: int = 0  # which vehicles drive by
    size: int = SYNTHETIC_SIZE  # side of the image in pixels, a multiple of 32
    loop: int | None = None  # so many images repeat, and none is drawn twice; None: each anew
    frames: int | None = None  # the camera ends after so many ticks
    drop: Ranges = ()  # frames that are not delivered
    freeze: Ranges = ()  # frames that show the picture of the frame before them
    damage: Ranges = ()  # frames that do not decode
    lose: Ranges = ()  # the camera is gone from the first of these on, until the last has passed
    stall: Ranges = ()  # nothing comes while these frames are due


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """What a source is, and how its frames come: liveness is decided here and nowhere else."""

    kind: SourceKind  # a glob or a folder is `images`
    # Index or path of a device, path, URL, pipeline, or number of a CSI camera. It may hold a
    # password and belongs in no message.
    location: str = field(repr=False)
    name: str  # what to call it in messages; never holds credentials
    paths: tuple[Path, ...] = ()  # of images: in their order; names are relative to `location`
    remark: str = ""  # of images: what was not taken and why, in one line
    mode: Mode = field(default_factory=Mode)  # of a CSI camera: what was named with it
    plan: SyntheticPlan = field(default_factory=SyntheticPlan)  # of the synthetic camera
    realtime: bool = False  # a recording is played by the clock, as a camera would deliver it
    # Of a URL, once connected: it announces an end, as a recording on a web server does.
    has_end: bool | None = None
    is_live: bool | None = None  # of a URL or a pipe: as the user says, whatever it announces
    transport: Transport = "auto"  # of RTSP
    allow_hosts: tuple[str, ...] = ()  # where a URL may lead besides its own host and port

    @property
    def is_recording(self) -> bool | None:
        """Whether frames wait until they are read; None where only a connection can show it."""
        if self.is_live is not None:
            return not self.is_live
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
    def local(cls, text: str) -> SourceSpec:
        """Find out what a path or a pattern names on this machine; SourceError for nothing."""
        return _local(text)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        realtime: bool = False,
        fps: float | None = None,
        is_live: bool | None = None,
        transport: Transport = "auto",
        allow_hosts: Sequence[str] = (),
    ) -> SourceSpec:
        """Find out what a text names; looks at the file system, and opens nothing.

        It is a device index such as `0`, a device path, a video file, a named pipe, an image file,
        a folder of images, a pattern such as `photos/*.jpg`, a URL, `csi://0`, `gst:` and a
        pipeline, or `synthetic`, with `?key=value&...` to change it; `fps` is the rate of a
        synthetic camera whose text names none, and `realtime` plays a recording by the clock.
        `is_live`, `transport` and `allow_hosts` are as in the fields of these names; of what is
        neither a URL nor a pipe it is known whether it is live.
        SourceError where there is no such thing; ConfigError for a setting that is not allowed.
        """
        spec = _parsed(text, fps)
        if spec.kind in {"url", "pipe"}:
            spec = replace(spec, is_live=is_live)
        elif is_live is not None and is_live == spec.is_recording:
            what = "a recording: play it like a camera with --realtime" if is_live else "a camera"
            raise ConfigError(f"--live {'yes' if is_live else 'no'}: {spec.name} is {what}")
        return replace(spec, realtime=realtime, transport=transport, allow_hosts=tuple(allow_hosts))


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
        name = without_credentials(url)
        port = re.match(
            r"[a-z]+://(?:[^/?#@]*@)?(?:\[[^\]/?#]*\]|[^:/?#]*):(-?[0-9]+)(?![^/?#])", name
        )
        # FFmpeg would take another port, by the lower 16 bits.
        if port and not (len(port[1]) < 10 and 0 < int(port[1]) < 1 << 16):
            raise SourceError(f"{name}: there is no port {port[1][:20]}: take one from 1 to 65535")
        return SourceSpec("url", url, name)
    return SourceSpec.device(int(text)) if text.isdecimal() else _local(text)


def _local(text: str) -> SourceSpec:
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # leaves an unknown ~user as it is
    if text and os.path.exists(path):  # noqa: PTH110  # false for what is too long for a path
        return _at(path)
    # Who forgot the scheme of a URL may have typed a password.
    shown = without_credentials(text)
    shown = shown if "@" in text.partition(":")[2] or HIDDEN in shown else text
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
        return _images(images_in(path), name)
    if path.is_fifo():
        return SourceSpec("pipe", location, name)
    try:
        is_picture = kind_of_file(path) is not None
    except OSError:
        is_picture = path.suffix.lower() in IMAGE_SUFFIXES  # whose reader says what is wrong
    if is_picture:
        return SourceSpec("images", str(path.parent), name, paths=(path,))
    return SourceSpec("video", location, name)


def _matching(pattern: Path, shown: str) -> SourceSpec:
    """A pattern matches images, or one thing of any kind."""
    name = printable(shown)
    found = images_matching(pattern, name)
    return _images(found, name) if isinstance(found, ImageList) else _at(found)


def _images(found: ImageList, name: str) -> SourceSpec:
    remark = printable(found.remark)
    return SourceSpec("images", str(found.root), name, paths=found.paths, remark=remark)


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


def plan_from_query(query: str, *, fps: float | None = None) -> SyntheticPlan:
    """Read `fps=30&drop=30..45,90`, or raise ConfigError; `fps` where the query names none."""
    values: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, _, text = pair.partition("=")
        if key not in _READERS:
            raise ConfigError(f"synthetic: {key!r} is unknown: take {sentence_list([*_READERS])}")
        if key in values:
            raise ConfigError(f"synthetic: {key} is given twice: give it once")
        read, allowed = _READERS[key]
        try:
            values[key] = read(text)
        except ValueError as error:
            raise ConfigError(f"synthetic: {key}={text!r}: take {allowed}") from error
    plan = SyntheticPlan(**({} if fps is None else {"fps": fps}) | values)
    if plan.fps is None:
        for key in ("lose", "stall"):
            if getattr(plan, key):
                raise ConfigError(
                    f"synthetic: {key} lasts by the clock, and fps={MAX} has none: name a rate"
                )
        plan = replace(plan, loop=plan.loop or _LOOP_AT_MAX)
    if plan.loop is not None and plan.loop * plan.size**2 > _LARGEST_LOOP_BYTES:
        raise ConfigError(
            f"synthetic: loop={plan.loop} of size={plan.size} takes more than "
            f"{_LARGEST_LOOP_BYTES >> 20} MiB: take fewer or smaller images"
        )
    return plan


def _rate(text: str) -> float | None:
    if text == MAX:
        return None
    if not 0 < float(text) <= 1000:  # also true of NaN
        raise ValueError
    return float(text)


def _ranges(text: str) -> Ranges:
    found = []
    for part in text.split(","):
        numbers = re.fullmatch(r"([0-9]{1,18})(?:\.\.([0-9]{1,18}))?", part)
        if not numbers or int(numbers[2] or numbers[1]) < int(numbers[1]):
            raise ValueError
        found.append((int(numbers[1]), int(numbers[2] or numbers[1])))
    return tuple(sorted(found))


# Reads a value, or raises ValueError; and the words for what it takes.
_Reader = tuple[Callable[[str], Any], str]


def _whole(allowed: range) -> _Reader:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) not in allowed:
            raise ValueError
        return int(text)

    kind = f"multiple of {allowed.step}" if allowed.step > 1 else f"whole number from {allowed[0]}"
    return read, f"a {kind} up to {allowed[-1]}"


_FRAMES: _Reader = _ranges, "frame numbers such as 90 or 30..45, joined by commas"
_READERS: dict[str, _Reader] = {
    "fps": (_rate, f"a number above 0 and up to 1000, or {MAX}"),
    "seed": _whole(range(2**32)),
    "size": _whole(range(32, 4097, 32)),
    "loop": _whole(range(1, 100_001)),
    "frames": _whole(range(1, 10**12 + 1)),
    **dict.fromkeys(("drop", "freeze", "damage", "lose", "stall"), _FRAMES),
}
