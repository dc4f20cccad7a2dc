"""An encoder and perhaps a decoder as ONNX files; torch is not needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.bundle.manifest import Origin
from ...runtime.core.errors import ConfigError
from ...runtime.core.spec import ModelSpec, spec_from_options
from ...runtime.engines.base import Arrays, Batch
from ...runtime.engines.import_onnxruntime import ort
from ..compare.graph_facts import facts_of
from ..onnx_import.normal_form import original_decoder, original_encoder
from ..onnx_import.proof import Original
from ..onnx_import.read import UserGraph, decoder_from_file, encoder_from_file
from ..verify.reference import ORIGINAL
from .options import ImportOptions
from .user_model import UserModel, digest_of


class OriginalEngine:
    """The user's own file in ONNX Runtime, one image or latent at a time, by its own scaling."""

    input_dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, original: Original, file: str) -> None:
        self.name = f"{ORIGINAL} {file}, ONNX Runtime {ort.__version__}"
        self._original = original

    def run(self, batch: Batch, /) -> Arrays:
        """Run it on (N, ...) float32."""
        own = self._original
        found = [own.from_own(own.session.run(own.to_own(one[None]), own.outputs)) for one in batch]
        return {
            name: np.concatenate([one[name] for one in found]).astype(np.float32)
            for name in found[0]
        }


def model_from_onnx(options: ImportOptions, encoder: Path) -> UserModel:
    """Read and understand an encoder, and the decoder of `--decoder`.

    Raises:
        GraphError: A file cannot be imported; the text says why, and what to do.
        ConfigError: An option does not fit what the files hold.
    """
    inputs, outputs = options.names_of("inputs"), options.names_of("outputs")
    image = outputs.pop("reconstruction", None)
    if options.decoder is None and (image or "z" in inputs):
        raise ConfigError("names of a decoder are given, and no --decoder: name its file")
    size = options.image_size
    read = encoder_from_file(
        encoder,
        input_name=inputs.get("image"),
        outputs=outputs,
        size=(size, size) if isinstance(size, int) else size,
    )
    decoder = None
    if options.decoder is not None:
        decoder = decoder_from_file(
            options.decoder,
            latent_shape=read.facts.latent_shape,
            image_shape=read.facts.image_shape,
            input_name=inputs.get("z"),
            output=image,
        )
    spec = spec_of_user(options, read, decoder)
    files = {
        entry.file: entry.sha256
        for path in (encoder, options.decoder)
        if path is not None
        for entry in facts_of(path).files
    }
    notes = (*read.remarks, *(decoder.remarks if decoder else ()))
    gives = options.decoder_range
    return UserModel(
        name=encoder.name,
        spec=spec,
        encoder=OriginalEngine(original_encoder(read, spec), encoder.name),
        decoder=(
            OriginalEngine(original_decoder(decoder, spec, gives), str(options.decoder))
            if decoder
            else None
        ),
        encoder_graph=read,
        decoder_graph=decoder,
        gives=gives,
        weights_sha256=digest_of(files.values()),
        origin=Origin(kind="onnx", name=encoder.name, files=files, notes=notes),
        notes=notes,
    )


def spec_of_user(
    options: ImportOptions, encoder: UserGraph, decoder: UserGraph | None, **more: Any
) -> ModelSpec:
    """Return the sizes that graphs have, with the preparation that is asked for.

    `more` are values of fields where the user names none. A ConfigError where an option does not
    fit the graphs.
    """
    latent, (channels, height, width) = encoder.facts.latent_shape, encoder.facts.image_shape
    color = options.color or ("grey" if channels == 1 else "rgb")
    if (color == "grey") != (channels == 1):
        raise ConfigError(
            f"--color {color}: the encoder takes {channels} channel{'' if channels == 1 else 's'}: "
            "leave it out, or name another"
        )
    sizes: dict[str, Any] = {
        "image_size": (height, width),
        "color": color,
        "channels": None,
        "latent_size": math.prod(latent),
        "latent_shape": latent if len(latent) > 1 else (),
        "has_log_var": encoder.facts.has_log_var,
        "has_decoder": decoder is not None,
    }
    return spec_from_options(**more | options.preparation(**sizes))
