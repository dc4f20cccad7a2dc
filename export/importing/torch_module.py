"""A torch module of anybody, as ONNX graphs, and in torch as what judges them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import nn

from ...runtime.bundle.graph_key import BATCH
from ...runtime.bundle.manifest import Origin
from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.errors import CheckpointError, ConfigError, GraphError, sentence_list
from ...runtime.core.spec import Color, ModelSpec
from ...runtime.engines.base import Arrays, Batch
from ...training.setup.user_code import called, errors_of_user, last_line, object_from_name
from ..onnx_form import OPSET
from ..onnx_import.normal_form import Gives
from ..onnx_import.read import decoder_from_file, encoder_from_file
from ..verify.reference import ORIGINAL
from .onnx_pair import spec_of_user
from .options import ImportOptions
from .user_model import UserModel, digest_of
from .weights_file import tensors_from_file

_DECODING = "its decode(z) must give a tensor (N, C, H, W), or an object with .sample that is one"
_ENCODING = (
    "its encode(x) must give mu and log_var, a tensor that is mu, or a distribution with .mean and "
    ".logvar"
)


@dataclass(frozen=True)
class UserModule:
    """A module in evaluation mode with its weights, and what is known of it beside them."""

    module: nn.Module
    kind: Literal["module", "diffusers"]
    name: str
    files: dict[str, str]  # name of each file that was read, and its SHA-256
    image_size: tuple[int, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # fields of a spec
    scaling: dict[str, float | None] = field(default_factory=dict)  # fields of an origin


class Encoding(nn.Module):
    """The encoder as a module: images in its own range to mu, and log_var where there is one."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return mu and perhaps log_var, as they are shaped."""
        return _latents(self.module.encode(image))


class Decoding(nn.Module):
    """The decoder as a module: latents as they are shaped to images in its own range."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return images (N, C, H, W)."""
        return _image(self.module.decode(z))


class _TorchOriginal:
    """The module itself, float32 on the CPU; by the scaling of a spec."""

    input_dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, half: nn.Module, spec: ModelSpec, gives: Gives) -> None:
        self.name = f"{ORIGINAL} in torch {torch.__version__}"
        self._half, self._spec, self._gives = half, spec, gives
        gains, offsets = (np.array(one, np.float32) for one in spec.scaling)
        self._gains, self._offsets = gains.reshape(-1, 1, 1), offsets.reshape(-1, 1, 1)

    def run(self, batch: Batch, /) -> Arrays:
        """Run it on (N, C, H, W) images in [0, 1], or on (N, D) latents."""
        with torch.inference_mode():
            if isinstance(self._half, Encoding):
                own = np.asarray(batch * self._gains + self._offsets, np.float32)
                parts = self._half(torch.from_numpy(own))
                flat = (part.flatten(1).float().numpy() for part in parts)
                return dict(zip(("mu", "log_var"), flat, strict=False))
            shape = self._spec.latent_shape or (self._spec.latent_size,)
            z = np.ascontiguousarray(batch, np.float32).reshape(len(batch), *shape)
            image = self._half(torch.from_numpy(z)).float().numpy()
        if self._gives == "network":
            image = (image - self._offsets) / self._gains
        return {"reconstruction": np.asarray(image, np.float32)}


def module_from_name(options: ImportOptions) -> UserModule:
    """Import the factory of `--module`, call it, and load `--weights`.

    Raises:
        ConfigError: There is no such module or factory, or it gives no module.
        CheckpointError: The weights cannot be read or do not fit.
    """
    text = str(options.module)
    made = object_from_name("--module", text)
    if not isinstance(made, nn.Module):
        made = called("--module", text, made)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"--module {text} gives a {type(made).__name__}: let it give a torch.nn.Module"
        )
    for half in ("encode", "decode"):
        if not callable(getattr(made, half, None)):
            raise ConfigError(
                f"--module {text} gives a {type(made).__name__} without {half}: give it that "
                "method, or export its halves to ONNX and import those"
            )
    files = {}
    if options.weights is not None:
        load_weights(made, options.weights)
        files = {options.weights.name: sha256_of(options.weights)}
    return UserModule(made, "module", text, files)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load all of a module's weights; a CheckpointError names what does not fit."""
    if not path.is_file():
        raise CheckpointError(f"--weights {path} does not exist: name the file")
    tensors, _ = tensors_from_file(path)
    wanted = module.state_dict()
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - wanted.keys()),
        "of another shape": sorted(
            name
            for name in wanted.keys() & tensors.keys()
            if wanted[name].shape != tensors[name].shape
        ),
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{what}: {sentence_list(names[:4])}" for what, names in problems.items() if names
        )
        raise CheckpointError(f"{path} does not fit the module, {listed}: name its own weights")
    module.load_state_dict(tensors)


def model_from_module(options: ImportOptions, user: UserModule, folder: Path) -> UserModel:
    """Export a module's halves into `folder`, and read them back as anybody's ONNX files.

    Raises:
        ConfigError: The size of its images is not known, or an option does not fit.
        GraphError: It cannot be exported, or not imported then.
    """
    module = user.module.float().cpu().eval()
    channels = _channels_of(module, options.color)
    height, width = _size_of(options, user)
    image = torch.rand(2, channels, height, width)
    with (
        torch.inference_mode(),
        errors_of_user(f"{user.name}.encode failed on {tuple(image.shape)}"),
    ):
        latents = _latents(module.encode(image))  # type: ignore[operator]  # its own method
    with (
        torch.inference_mode(),
        errors_of_user(f"{user.name}.decode failed on {tuple(latents[0].shape)}"),
    ):
        _image(module.decode(latents[0]))  # type: ignore[operator]  # as above
    encoding, decoding = Encoding(module), Decoding(module)
    names = ("mu", "log_var")[: len(latents)]
    encoder_file = _exported(encoding, image, ("image",), names, folder / "encoder.onnx")
    sample = latents[0].clone()
    decoder_file = _exported(decoding, sample, ("z",), ("reconstruction",), folder / "decoder.onnx")
    encoder = encoder_from_file(encoder_file)
    decoder = decoder_from_file(
        decoder_file,
        latent_shape=encoder.facts.latent_shape,
        image_shape=encoder.facts.image_shape,
    )
    spec = spec_of_user(options, encoder, decoder, **user.facts)
    weights = user.files or {"weights": _digest(module)}
    gives = options.decoder_range
    notes = (*encoder.remarks, *decoder.remarks)
    return UserModel(
        name=user.name,
        spec=spec,
        encoder=_TorchOriginal(encoding, spec, gives),
        decoder=_TorchOriginal(decoding, spec, gives),
        encoder_graph=encoder,
        decoder_graph=decoder,
        gives=gives,
        weights_sha256=digest_of(weights.values()),
        origin=Origin(
            kind=user.kind, name=user.name, files=user.files, notes=notes, **user.scaling
        ),
        notes=notes,
    )


def _latents(found: Any) -> tuple[torch.Tensor, ...]:
    """Return mu, and log_var where there is one, of whatever an encoder gives."""
    if isinstance(found, torch.Tensor):
        return (found,)
    found = getattr(found, "latent_dist", found)
    if isinstance(latents := getattr(found, "latents", None), torch.Tensor):
        return (latents,)
    mean = getattr(found, "mean", None)
    if isinstance(mean, torch.Tensor):
        for name in ("logvar", "log_var"):
            if isinstance(log_var := getattr(found, name, None), torch.Tensor):
                return mean, log_var
        variance = getattr(found, "variance", None)
        return (mean, variance.log()) if isinstance(variance, torch.Tensor) else (mean,)
    if (
        isinstance(found, (tuple, list))
        and len(found) == 2
        and all(isinstance(one, torch.Tensor) for one in found)
        and found[0].shape == found[1].shape
    ):
        return found[0], found[1]
    raise GraphError(f"encode(x) gives {_described(found)}", fix=_ENCODING)


def _image(found: Any) -> torch.Tensor:
    sample = getattr(found, "sample", found)
    if isinstance(sample, torch.Tensor) and sample.ndim == 4:
        return sample
    raise GraphError(f"decode(z) gives {_described(found)}", fix=_DECODING)


def _described(found: Any) -> str:
    if isinstance(found, torch.Tensor):
        return f"a tensor {tuple(found.shape)}"
    if isinstance(found, (tuple, list)):
        return f"{len(found)} of {' and '.join({type(one).__name__: None for one in found})}"
    return f"a {type(found).__name__}"


def _channels_of(module: nn.Module, color: Color | None) -> int:
    """Return how many channels a module's images have: as named, or as its first layer takes."""
    if color is not None:
        return 1 if color == "grey" else 3
    for one in module.modules():
        if isinstance(one, nn.Conv2d) and one.in_channels in {1, 3}:
            return one.in_channels
    raise ConfigError("how many channels do its images have? Say --color grey, rgb or bgr")


def _size_of(options: ImportOptions, user: UserModule) -> tuple[int, int]:
    size = options.image_size or user.image_size
    if size is None:
        raise ConfigError(
            f"{user.name} does not say what images it takes: give --image-size HEIGHT WIDTH"
        )
    return (size, size) if isinstance(size, int) else size


def _exported(
    half: nn.Module,
    sample: torch.Tensor,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    path: Path,
) -> Path:
    """Write a half as ONNX, with a free batch axis where torch can."""
    logger = logging.getLogger("torch.onnx")  # warns of packages that we do not use
    level = logger.level
    logger.setLevel(logging.ERROR)
    # A module whose shapes depend on the batch has it freed when the graph is read.
    free: dict[str, Any] = {"dynamic_shapes": ({0: torch.export.Dim(BATCH, min=1)},)}
    problem: GraphError | None = None
    try:
        for settings, given in ((free, sample), ({}, sample[:1])):
            names = {"input_names": [*inputs], "output_names": [*outputs]}
            try:
                _program_of(half, given, **names, **settings).save(path)
            except GraphError as error:
                problem = problem or error
                continue
            return path
    finally:
        logger.setLevel(level)
    raise problem or AssertionError("there is at least one way")


def _program_of(half: nn.Module, sample: torch.Tensor, **settings: Any) -> torch.onnx.ONNXProgram:
    quiet = io.StringIO()  # its progress is printed whatever it is asked
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(quiet):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                half,
                (sample,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                verbose=False,
                **settings,
            )
    except Exception as error:  # whatever the user's code and torch raise
        raise GraphError(
            last_line(error),
            context="torch cannot export it",
            fix="export its halves to ONNX as its own documentation says, and import those",
        ) from error
    if program is None:
        raise AssertionError("torch.onnx.export with dynamo=True returns a program")
    return program


def _digest(module: nn.Module) -> str:
    weights = {name: one.contiguous().clone() for name, one in module.state_dict().items()}
    return hashlib.sha256(safetensors.torch.save(weights)).hexdigest()
