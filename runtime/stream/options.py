"""Every option of motorvae-stream with its default and help, and the checks on them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from ..core.command import ValuesLike
from ..core.errors import ConfigError
from ..core.frame import Mode
from ..core.spec import Matrix
from ..engines.cpu_threads import default_threads
from ..engines.request import EngineRequest
from ..pixels.picture import MAX_PICTURE
from ..sources.spec import SourceSpec, Transport

if TYPE_CHECKING:
    from ..sources.base import CaptureRequest

OODMode = Literal["both", "mu", "none"]
Latency = Literal["lowest", "balanced", "economy"]


@dataclass(frozen=True)
class StreamOptions:
    """Options of motorvae-stream."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "camera": (
            *("width", "height", "fps", "fourcc", "accept_mode"),
            *("matrix", "track", "max_picture", "realtime"),
        ),
        "network": ("live", "rtsp_transport", "allow_hosts"),
        "loss": ("timeout", "freeze_after", "give_up_after", "batch_wait_ms"),
        "out_of_distribution": ("ood", "ood_above"),
    }

    camera: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="CAMERA ...", help_behavior_hint="(also: --camera CAMERA)"),
    ] = ()
    """Where frames come from: a device index such as 0, a device path, a video file, a folder or
    pattern of images, an http or rtsp URL, csi://0, gst:PIPELINE, or synthetic, which can inject
    faults. Several cameras share one run of the encoder where their frames are ready together."""
    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    output: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Where rows go: - for stdout, a .jsonl, .csv, .npz or .mcap file, a .parquet folder,
    zmq://HOST:PORT or udp://HOST:PORT; by default latents.jsonl. An earlier file is kept under a
    number. A slow or dead output holds nothing else up: rows that it missed are counted."""
    max_frames: int | None = None
    """Stop after this many frames that became a latent or were too old for one, of all cameras
    together; by default when every camera has ended."""
    policy: Literal["latest", "every"] | None = None
    """latest: encode the newest frame and drop those it overtook, so age stays low.
    every: encode all frames in order; behind a live source up to 64 wait and grow older, and
    those pushed out by newer ones count as dropped.
    By default latest for live sources and every for recordings."""
    realtime: bool = False
    """Play a recording at its own frame rate, as a camera would deliver it."""
    live: Literal["yes", "no"] | None = None
    """Whether an address or a pipe is live, so that its end is a loss, or a recording. By default
    its protocol says so, or what it announces: docs/sources.md."""
    rtsp_transport: Transport = "auto"
    """How RTSP comes: over tcp, or over udp; auto tries both in this order."""
    allow_hosts: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Another HOST or HOST:PORT that an address may lead to, by a redirection or a playlist; by
    default only its own. Give it once for each."""
    max_age_ms: float | None = None
    """Never give a latent that is older than this when it is ready: its row is stale instead. By
    default age is measured and not judged."""
    latency: Latency = "balanced"
    """What a live camera's latents may cost on a CPU (docs/speed.md has the trade). economy: one
    thread, the least processor time. balanced: the encoder's threads on a core each, if that is
    faster. lowest: the threads of a single camera also run before others where the system allows
    it, until any of them takes more than 70 % of a core for a second (the summary says so), and its
    large JPEGs are decoded on two cores if they have restart markers."""
    timeout: float = 5.0
    """A live source without a frame for so many seconds is lost."""
    freeze_after: float | None = None
    """The same picture for longer than so many seconds is a loss: the camera is frozen. 0 never
    is; by default 5 for live sources and never for recordings."""
    give_up_after: float = 60.0
    """Give up a camera that stays lost for so many seconds, and exit with 1 once all others have
    ended; inf tries for ever."""
    batch_wait_ms: float = 2.0
    """With several cameras: how long a frame waits for those of the others."""
    width: int | None = None
    """Ask the camera for this width in pixels; by default its own choice."""
    height: int | None = None
    """Ask the camera for this height in pixels; by default its own choice."""
    fps: float | None = None
    """Ask the camera for this many frames per second; by default its own choice."""
    fourcc: str | None = None
    """Ask the camera for this pixel format, four letters such as MJPG or YUYV; by default its own
    choice."""
    accept_mode: bool = False
    """Take what the camera delivers where that is not what was asked for; otherwise it is an
    error that names both."""
    matrix: Matrix | None = None
    """Which matrix video has that names none. auto: BT.709 from 1280 pixels across or more than
    576 down, and BT.601 below. By default as the model was trained."""
    track: int | None = None
    """Read this video track of a file or stream, counted from 1 without covers and thumbnails. By
    default the default one; of several, or without one, that of the largest picture."""
    max_picture: float = MAX_PICTURE
    """Megapixels that an image file may have; a larger one is a gap and is not decoded."""
    reconstruct: str | None = None
    """every=N: decode every Nth latent and put the reconstruction's error into its row; by default
    none is decoded."""
    ood: OODMode = "mu"
    """What rows say of how well the model knows an image. mu: by its appearance and by mu, which
    lets an encoder run that is half its size in weights. both: also KL and the distance of
    log_var, which decide nothing (docs/ood.md). none: nothing, by the same encoder."""
    ood_above: float = 99.9
    """Set is_ood in a row where its image is further from what the model knows, by appearance or
    by mu, than this percentage of known images in all."""
    view: Annotated[
        tuple[str, ...] | None, tyro.conf.arg(metavar="[FILE.rrd]"), ValuesLike(r".*\.rrd")
    ] = None
    """Show camera, reconstruction, latents and ages live in Rerun, or record them to a file."""
    engine: EngineRequest = field(default_factory=EngineRequest)
    """Which engine runs."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Where rows go, the default included."""
        return self.output or ("latents.jsonl",)

    @property
    def capture_request(self) -> CaptureRequest:
        """What is asked of every camera."""
        from ..sources.base import CaptureRequest  # noqa: PLC0415  # --help needs no OpenCV

        return CaptureRequest(
            mode=Mode(self.width, self.height, self.fps, self.fourcc),
            accept_mode=self.accept_mode,
            timeout_s=self.timeout,
            matrix=self.matrix,
            track=self.track,
            max_picture=self.max_picture,
            cores=self.cores_for_decoding,
        )

    @property
    def cores_for_decoding(self) -> int:
        """On how many cores a live camera's frame is decoded: what is sooner costs more."""
        is_first = self.latency == "lowest" and len(self.camera) == 1
        return default_threads() if is_first else 1

    def source_spec(self, text: str) -> SourceSpec:
        """Find out what one camera is."""
        return SourceSpec.parse(
            text,
            realtime=self.realtime,
            fps=self.fps,
            is_live=None if self.live is None else self.live == "yes",
            transport=self.rtsp_transport,
            allow_hosts=self.allow_hosts,
        )

    def every(self) -> int | None:
        """Return N of `--reconstruct every=N`, or None without it; refuse anything else."""
        if self.reconstruct is None:
            return None
        found = re.fullmatch(r"every=([1-9][0-9]{0,8})", self.reconstruct)
        if found is None:
            raise ConfigError(
                f"--reconstruct {self.reconstruct}: write every=N with N from 1, such as every=10"
            )
        return int(found[1])

    def freeze_after_s(self, *, can_reconnect: bool) -> float:
        """When a still picture is a loss, for a source that can return and for a recording."""
        if self.freeze_after is None:
            return 5.0 if can_reconnect else math.inf
        return self.freeze_after or math.inf


def check_stream_options(options: StreamOptions) -> None:
    """Refuse values that make no sense, before anything is opened."""
    fourcc = options.fourcc
    if not options.camera:
        raise ConfigError("no camera: name a camera such as 0, a file, a URL, or synthetic")
    takes = {
        "--max-frames": _below(options.max_frames, 1) and "1 or more, or leave it out",
        "--max-age-ms": _below(options.max_age_ms, 0, strict=True) and "more than 0",
        "--timeout": not 0 < options.timeout < math.inf and "seconds above 0",
        "--freeze-after": _below(options.freeze_after, 0) and "0 or more seconds",
        "--give-up-after": not options.give_up_after > 0 and "seconds above 0, or inf",
        "--batch-wait-ms": not 0 <= options.batch_wait_ms <= 1000 and "0 to 1000",
        "--width": _below(options.width, 1) and "pixels from 1",
        "--height": _below(options.height, 1) and "pixels from 1",
        "--fps": _below(options.fps, 0, strict=True) and "more than 0",
        "--track": _below(options.track, 1) and "a number from 1",
        "--max-picture": _below(options.max_picture, 0, strict=True) and "megapixels above 0",
        "--fourcc": fourcc is not None
        and not (len(fourcc) == 4 and fourcc.isascii() and fourcc.isprintable())
        and "four letters, such as MJPG",
        "--ood-above": not 0 < options.ood_above <= 100 and "more than 0 and at most 100",
        "--output": len({*options.output}) < len(options.output) and "each output once",
        "--view": options.view is not None and len(options.view) > 1 and "one file at most",
    }
    for flag, allowed in takes.items():
        if allowed:
            value = getattr(options, flag[2:].replace("-", "_"))
            raise ConfigError(f"{flag}={value}: take {allowed}")
    options.every()


def _below(value: float | None, least: float, *, strict: bool = False) -> bool:
    """Whether a value that was given is below the least allowed; NaN always is."""
    if value is None:
        return False
    return not (value > least if strict else value >= least) or math.isinf(value)
