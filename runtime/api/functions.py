"""stream, encode, verify, export and import_weights: what the commands do, for Python."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, cast, get_type_hints

from typing_extensions import Unpack

from .export.compare.options import VerifyOptions
from .export.compare.result import VerifyResult
from .export.importing.options import ImportOptions
from .keywords import (
    EngineKeywords,
    ExportKeywords,
    ImportKeywords,
    PathLike,
    StreamKeywords,
    VerifyKeywords,
    checked_keywords,
    spelled_for_python,
    spelled_out,
)
from .models import Bundle, load
from .runtime.bulk.encoded import Encoded
from .runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from .runtime.bulk.run import DataRequest, encode_in_memory
from .runtime.bundle.load import Bundle as CheckedBundle
from .runtime.core.errors import ConfigError
from .runtime.core.spec import Matrix
from .runtime.core.system.locks import output_locked
from .runtime.engines.open import EngineRequest
from .runtime.ood.detector import OOD_ABOVE
from .runtime.pixels.picture import MAX_PICTURE, limit_for
from .runtime.stream.options import StreamOptions
from .runtime.stream.run import Stream

Camera = int | PathLike


@spelled_out(StreamKeywords, StreamOptions, EngineRequest)
def stream(
    bundle: Bundle | PathLike,
    camera: Camera | Sequence[Camera],
    *,
    output: PathLike | Sequence[PathLike] = (),
    **options: Unpack[StreamKeywords],
) -> Stream:
    """Open cameras and give their latent rows as they come; the rows are those of the command.

        for row in mv.stream("bundle", "0", max_age_ms=50):
            if row.status == "ok":
                steer(row.mu, row.age_ms)

    Args:
        bundle: A bundle, or its folder.
        camera: A device index such as 0, a device path, a video file, a folder or pattern of
            images, a URL, `csi://0`, `gst:` and a pipeline, or `synthetic`; or a list of several.
        output: Where rows go as well: a file or an address, or several; by default nowhere.
        **options: Those of `motorvae-stream` by their names, such as `max_age_ms`, `policy` or
            `precision`; `view` is True or the name of a recording, `reconstruct` may be N.

    Returns:
        An iterator of `Row`s that is also a context manager. It opens all at once and captures
        from the first row on; closing it, leaving its `with` block or dropping it releases cameras
        and threads. It sets up no signal handler: Ctrl-C raises KeyboardInterrupt as it does
        elsewhere, and `stop()` ends it from another thread.

    Raises:
        MotorVAEError: An option is out of range, or something does not open. A camera that is lost
            for good is raised by the iterator, after the last row.
    """
    one_camera = isinstance(camera, (Integral, str, os.PathLike))
    cameras = cast("Sequence[Camera]", [camera] if one_camera else camera)
    outputs = [output] if isinstance(output, (str, os.PathLike)) else output
    given = checked_keywords(StreamKeywords, options)
    engine = {name: given.pop(name) for name in get_type_hints(EngineKeywords) if name in given}
    if "view" in given:
        given["view"] = _words(given["view"])
    if isinstance(given.get("reconstruct"), int):
        given["reconstruct"] = f"every={given['reconstruct']}"
    return Stream(
        _checked(bundle),
        StreamOptions(
            camera=tuple(
                os.fspath(one) if isinstance(one, (str, os.PathLike)) else str(int(one))
                for one in cameras
            ),
            engine=EngineRequest(**engine),
            **given,
        ),
        outputs=[os.path.expanduser(one) for one in outputs],  # noqa: PTH111  # or an address
    )


@spelled_out(EngineKeywords, EngineRequest)
def encode(
    bundle: Bundle | PathLike,
    data: PathLike | Sequence[PathLike],
    output: PathLike | None = None,
    *,
    every: int = 1,
    batch_size: int | None = None,
    workers: int | None = None,
    ood: bool = True,
    matrix: Matrix | None = None,
    track: int | None = None,
    max_picture: float = MAX_PICTURE,
    **engine: Unpack[EngineKeywords],
) -> Encoded:
    """Encode images, folders of them, patterns, lists, tar shards or videos into memory.

    Millions of images are for `motorvae-encode`, which writes as it goes.

    Args:
        bundle: A bundle, or its folder.
        data: A path, an address or a pattern such as `photos/*.jpg`; or several.
        output: An .npz file to write as well; an earlier one is kept under a number.
        every: Of a video each so many frames one is taken.
        batch_size: Images per run of the encoder; by default what a trial shows to be best.
        workers: Threads that read and decode; by default one for each core.
        ood: Measure `ood_score` and `is_ood`, where the bundle can tell.
        matrix: Which matrix video has that names none, such as "bt709", or "auto" by its size; by
            default as the model was trained.
        track: The video track to read, counted from 1 without covers and thumbnails; by default
            the default one, or that of the largest picture.
        max_picture: Megapixels that an image file may have; a larger one is a gap.
        **engine: Which engine runs, as in `Bundle.encoder`.

    Returns:
        Names, `mu` and `log_var` of shape (N, D), the `latent_shape` of each row, `gaps`: what did
        not decode, each with its reason, and `remarks`: what to know of the data, and what was not
        taken.

    Raises:
        MotorVAEError: Nothing decodes, the source never ends, or something does not open.
    """
    path = None if output is None else Path(output).expanduser()
    engines = EngineRequest(**checked_keywords(EngineKeywords, engine))
    texts = [data] if isinstance(data, (str, os.PathLike)) else data
    request = DataRequest(
        tuple(os.fspath(text) for text in texts),
        every=every,
        batch_size=batch_size,
        matrix=matrix,
        track=track,
        max_picture=max_picture,
        workers=workers,
    )
    if path is not None and path.suffix != ".npz":
        raise ConfigError(f"output={str(path)!r}: name a file ending in .npz")
    request.check(path)
    checked = _checked(bundle)
    pool = PoolRequest(
        engines, limit_for(checked.spec, max_picture), workers, OOD_ABOVE if ood else None
    )
    with contextlib.nullcontext() if path is None else output_locked(path):
        inputs = request.inputs(checked)
        with EncoderPool(checked, pool) as opened:
            size = batch_size or opened.best_batch_size()
            encoded = encode_in_memory(inputs, opened, size, checked)
        if path is not None:
            encoded.save(path)
    return encoded


@spelled_out(VerifyKeywords, VerifyOptions)
def verify(
    reference: PathLike,
    candidate: PathLike,
    images: PathLike,
    **options: Unpack[VerifyKeywords],
) -> VerifyResult:
    """Compare a graph with one that is right, output by output, on images of yours.

    Needs the packages of the extra `export`, and no bundle. Nothing is printed.

    Args:
        reference: The .onnx file that is right.
        candidate: The .onnx file that is judged, or a TensorRT .engine.
        images: A folder or a pattern of images, a list of them, or a video; of decoders an .npy or
            .npz file of latents.
        **options: Those of `motorvae verify` by their names, such as `value_range=(-1, 1)`.

    Returns:
        Every figure with its limit; `passed` and `verdict` say whether all are kept.

    Raises:
        MotorVAEError: Nothing can be judged: an option is out of range, a file or an engine does
            not open, a graph is random, or the two do not belong together. A candidate that is
            wrong raises nothing.
    """
    from .export.compare.cli import run_verify  # noqa: PLC0415  # not needed to stream

    given = checked_keywords(VerifyKeywords, options)
    paths: dict[str, Any] = {
        name: Path(given[name]).expanduser() for name in ("encoder", "limits") if given.get(name)
    }
    return run_verify(
        VerifyOptions(
            reference=Path(reference).expanduser(),
            candidate=Path(candidate).expanduser(),
            images=os.path.expanduser(os.fspath(images)),  # noqa: PTH111  # or a pattern
            **(given | paths),
        )
    )


@spelled_for_python()
def export(
    run: PathLike = "runs/latest",
    output: PathLike = "bundle",
    **options: Unpack[ExportKeywords],
) -> Bundle:
    """Export a training run as verified graphs, and TensorRT engines where they can be built.

    Needs torch and the packages of the extra `export`. Nothing is printed; `Bundle.remarks` holds
    what the export warns of.

    Args:
        run: A finished training run, or its checkpoint.
        output: The bundle to write, in one step. An earlier one of the same weights keeps what it
            holds; of other weights, what this export would not make again must be let go with
            `replace=True`.
        **options: Those of `motorvae-export` by their names, such as `fp16=True`; `int8` is True
            for every engine, or names some of "onnx", "openvino" and "tensorrt"; `pretrained`
            names a model to export instead of a run, `triton` a folder for a model repository of
            Triton Inference Server.

    Returns:
        The bundle, checked.

    Raises:
        VerificationError: A graph drifted past its limit, and no bundle was written; where only
            INT8 graphs did, it is there without them.
        OutputError: An earlier bundle would lose something, or nothing can be written there.
        MotorVAEError: The run cannot be read, or has learned too little.
    """
    from rich.console import Console  # noqa: PLC0415  # neither is needed to stream

    from .export.cli import run_export  # noqa: PLC0415
    from .export.options import DEFAULT_CHECKPOINT, ExportOptions  # noqa: PLC0415

    given = checked_keywords(ExportKeywords, options)
    for name in ("int8", "keep_float32"):
        if name in given:
            given[name] = _words(given[name])
    if given.get("triton") is not None:
        given["triton"] = Path(given["triton"]).expanduser()
    is_default = given.get("pretrained") is not None and Path(run) == DEFAULT_CHECKPOINT
    asked = ExportOptions(
        checkpoint=None if is_default else Path(run).expanduser(),
        output=Path(output).expanduser(),
        **given,
    )
    return load(run_export(asked, Console(quiet=True)))


@spelled_out(ImportKeywords, ImportOptions)
def import_weights(
    what: PathLike | None,
    images: PathLike,
    output: PathLike = "bundle",
    **options: Unpack[ImportKeywords],
) -> Bundle:
    """Make a bundle of weights that were trained elsewhere, and of images, by which it is judged.

        bundle = mv.import_weights("encoder.onnx", "photos/", decoder="decoder.onnx")

    Needs the packages of the extra `export`, and torch where the weights are no ONNX files.

    Args:
        what: An encoder as an .onnx file, a checkpoint of the original project, a folder of an
            autoencoder of diffusers; or None, with `module`.
        images: Images of what the model is for: a folder, a pattern or a video.
        output: The bundle to write, in one step.
        **options: Those of `motorvae import` by their names, such as `value_range=(-1, 1)`,
            `fp16=True` or `outputs=["mu=out_0"]`.

    Returns:
        The bundle, checked.

    Raises:
        GraphError: An ONNX file cannot be imported.
        CheckpointError: Weights cannot be read, do not fit, or have learned too little.
        VerificationError: A graph drifted past its limit; as of `export`.
        MotorVAEError: An option contradicts another, or something cannot be read or written.
    """
    from rich.console import Console  # noqa: PLC0415  # not needed to stream

    from .export.importing.cli import run_import  # noqa: PLC0415

    given = checked_keywords(ImportKeywords, options)
    for name in ("int8", "keep_float32"):
        if name in given:
            given[name] = _words(given[name])
    paths: dict[str, Any] = {
        name: Path(given[name]).expanduser()
        for name in ("run", "decoder", "weights")
        if given.get(name)
    }
    words: dict[str, Any] = {
        name: tuple(given[name]) for name in ("inputs", "outputs") if name in given
    }
    named: dict[str, Any] = {**given, **paths, **words}
    asked = ImportOptions(
        what=None if what is None else Path(what).expanduser(),
        images=os.path.expanduser(os.fspath(images)),  # noqa: PTH111  # or a pattern
        output=Path(output).expanduser(),
        **named,
    )
    return load(run_import(asked, Console(quiet=True)))


def _checked(bundle: CheckedBundle | PathLike) -> CheckedBundle:
    return bundle if isinstance(bundle, CheckedBundle) else load(bundle)


def _words(given: bool | PathLike | Sequence[str]) -> tuple[str, ...] | None:
    """Return an option that may have values: None without it, and empty without values."""
    if isinstance(given, bool):
        return () if given else None
    return (os.fspath(given),) if isinstance(given, (str, os.PathLike)) else tuple(given)
