"""Which of a container's streams is its video; a cover, a thumbnail or a tile is none."""

from __future__ import annotations

from av.container import InputContainer
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from ...core.errors import SourceError, sentence_list

# FFmpeg renders these as video, and takes any .txt file for one.
_TEXT_ART = {"ansi", "bintext", "xbin", "idf"}
_STILL = {"png", "bmp", "gif", "tiff", "webp"}  # a cover that its container does not call one
_NO_TRACK = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent


def video_track(
    container: InputContainer, name: str, number: int | None = None
) -> tuple[VideoStream, str | None]:
    """Return the video stream that a container named `name` is read for, and what to say of it.

    That is the `number`th from 1 if one is given, of those that are tracks.

    It is the default one of those that are no cover picture, no thumbnail and no part of another;
    of several defaults, or without one, that of the largest picture, as the ffmpeg program
    chooses, and one of JPEGs only where all are. In a transport stream it is the first, which is
    the first programme's. SourceError where there is none, or none that this FFmpeg decodes.
    """
    videos = container.streams.video
    tracks = [
        stream
        for stream in videos
        if not stream.disposition & _NO_TRACK and _codec_name(stream) not in _TEXT_ART
    ]
    tracks = [stream for stream in tracks if _codec_name(stream) not in _STILL] or tracks
    # A picture in tiles may have its thumbnail beside them, as the only whole one.
    tiles = [stream for stream in videos if stream.disposition & Disposition.dependent]
    if tiles and "mp4" in container.format.name and all(track.frames <= 1 for track in tracks):
        raise SourceError(
            f"{name} is a picture of {len(tiles)} tiles, which is no video: name it as an image "
            "file, whole and on this machine"
        )
    if not tracks:
        only = ", only a cover picture or text" if videos else ""
        raise SourceError(f"{name} holds no video stream{only}: name a video file or stream")
    decodable = [stream for stream in tracks if _codec_name(stream)]
    if not decodable:
        raise SourceError(
            f"{name}: this FFmpeg has no decoder for its video: convert it, such as to H.264"
        )
    if number is not None:
        if number > len(tracks) or tracks[number - 1] not in decodable:
            numbers = sentence_list([str(tracks.index(track) + 1) for track in decodable])
            raise SourceError(f"{name} has no video track {number} to read: take {numbers}")
        return tracks[number - 1], None
    chosen = decodable[0]
    if container.format.name != "mpegts":
        chosen = max(decodable, key=_worth)
    if len(tracks) == 1:
        return chosen, None
    codec = chosen.codec_context
    why = "the default one" if chosen.disposition & Disposition.default else "the largest picture"
    if container.format.name == "mpegts":
        why = "the first, of the first programme"
    return chosen, (
        f"of {len(tracks)} video tracks number {tracks.index(chosen) + 1} is read "
        f"({codec.width}x{codec.height}, {codec.name}; {why}): --track takes another"
    )


def _worth(stream: VideoStream) -> tuple[bool, bool, int]:
    codec = stream.codec_context
    is_default = bool(stream.disposition & Disposition.default)
    return is_default, codec.name != "mjpeg", codec.width * codec.height


def _codec_name(stream: VideoStream) -> str | None:
    """Return the name of a stream's decoder; None where this FFmpeg has none."""
    codec: VideoCodecContext | None = stream.codec_context
    return None if codec is None else codec.codec.name
