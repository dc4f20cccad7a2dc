"""Bundle, Encoder and Decoder: a model's two halves as functions of images and latents."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Unpack

from .keywords import EngineKeywords, checked_keywords, spelled_for_python, spelled_out
from .runtime.bundle.graph_key import Part, Precision
from .runtime.bundle.load import Bundle as CheckedBundle
from .runtime.bundle.load import load_bundle
from .runtime.core.errors import BackendError, ConfigError, ImageError
from .runtime.core.lifecycle import Closing
from .runtime.core.spec import ModelSpec
from .runtime.engines.base import Arrays, Batch
from .runtime.engines.open import EngineRequest
from .runtime.engines.select import SelectedEngine, select_engine
from .runtime.ood.detector import OOD_ABOVE, OODDetector, usable_detector
from .runtime.pixels.convert import fitted, picture_from_image, write_input
from .runtime.pixels.files.image_files import fitted_from_file
from .runtime.pixels.files.image_kinds import IMAGE_SUFFIXES, kind_of_file
from .runtime.pixels.picture import MAX_PICTURE, PictureLimit, limit_for

Image: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any]"
"""A path of an image file, or an array as `Encoder` takes it."""

_BATCH = 16


@dataclass(frozen=True, slots=True)
class Latent:
    """The latent of one image.

    Attributes:
        mu: (D,) float32, the mean of the posterior; row-major where `Bundle.latent_shape` has
            several axes.
        log_var: (D,) float32, the logarithm of its variance; None where the encoder gives none.
        is_ood: Whether the image is out of distribution: unlike those that the model was trained
            on. None where the bundle cannot tell (`Encoder.notes` says why).
    """

    mu: npt.NDArray[np.float32]
    log_var: npt.NDArray[np.float32] | None
    is_ood: bool | None


@dataclass(frozen=True, slots=True)
class Latents:
    """The latents of N images, in their order.

    Attributes:
        mu: (N, D) float32.
        log_var: (N, D) float32, or None; see `Latent`.
        is_ood: (N,) bool, or None; see `Latent`.
    """

    mu: npt.NDArray[np.float32]
    log_var: npt.NDArray[np.float32] | None
    is_ood: npt.NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.mu)


class Bundle(CheckedBundle):
    """A model as `motorvae-export` wrote it. Get one from `load`.

    Attributes:
        folder: Where it lies.
        manifest: All that it says about itself.
        spec: Sizes of the model: `image_size` S and `latent_size` D among them.
        latent_shape: Of a latent: (D,), or such as (4, 32, 32) of one of maps, which is flat in
            rows, files and arrays.
    """

    __slots__ = ()

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What its graphs compute in, such as `("fp32", "fp16")`."""
        return tuple(dict.fromkeys(entry.precision for entry in self.manifest.graphs))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """What a flat latent can be reshaped to: (D,), or such as (4, 32, 32)."""
        return self.spec.latent_shape or (self.spec.latent_size,)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the export wants you to know of this model; usually empty."""
        return self.manifest.remarks

    @property
    def weights_sha256(self) -> str:
        """Identity of the weights."""
        return self.manifest.weights_sha256

    def __repr__(self) -> str:
        return f"<motorvae.Bundle {str(self.folder)!r}: {', '.join(self.precisions)}; {self.spec}>"

    @spelled_out(EngineKeywords, EngineRequest)
    def encoder(self, *, ood_above: float = OOD_ABOVE, **engine: Unpack[EngineKeywords]) -> Encoder:
        """Open the encoder. Close it, or use it in a `with` block.

        Args:
            ood_above: An image is out of distribution where it is further from what the model
                knows than this percentage of known images.
            precision: "fp32", "fp16", "bf16" or "int8"; where left out fp16 for a TensorRT engine
                and fp32 otherwise.
            backend: "tensorrt", "tensorrt-rtx", "onnx", "openvino", or "auto": the first that fits
                this machine, as in `motorvae-stream`.
            provider: Run ONNX Runtime on this provider, such as "cuda".
            threads: Of one run on a CPU; by default one for each core.
            cuda_graph: Record an engine's copies and kernels once, and start them as one.
            trust: Run a TensorRT engine that neither this machine built nor a trusted key signed,
                and open graphs without a trial in a process of its own.
            **engine: These six.

        Raises:
            BundleError: The bundle has no such graph, or a file was altered.
            ConfigError: Two arguments contradict each other, or one is out of range.
            MissingDependencyError: The engine's package is not installed.
            BackendError: The engine that was named does not open here.
        """
        detector, note = usable_detector(self, ood_above=ood_above)
        return Encoder(self._selected("encoder", engine), self.spec, detector, note)

    @spelled_out(EngineKeywords, EngineRequest)
    def decoder(self, **engine: Unpack[EngineKeywords]) -> Decoder:
        """Open the decoder; arguments and errors as of `encoder`.

        A BundleError, too, where the model has none.
        """
        return Decoder(self._selected("decoder", engine), self.spec)

    def _selected(self, part: Part, engine: EngineKeywords) -> SelectedEngine:
        request = EngineRequest(**checked_keywords(EngineKeywords, engine))
        # Whatever has happened to the folder since it was loaded: a file is hashed as it is opened.
        self.unread.update(entry.file for entry in self.manifest.graphs)
        return select_engine(self, part, request)


class _Half(Closing):
    """One opened half of a model: the encoder or the decoder."""

    def __init__(self, selected: SelectedEngine, spec: ModelSpec, *notes: str) -> None:
        self._backend = selected.backend
        self._spec = spec
        self._is_open = True
        self.engine: str = selected.chosen
        self.notes: tuple[str, ...] = (*selected.clauses, *notes)

    def __repr__(self) -> str:
        return f"<motorvae.{type(self).__name__}: {self.engine}>"

    def close(self) -> None:
        """Release the engine, after a run of another thread; calling it again does nothing."""
        self._is_open = False
        self._backend.close()

    def _check_open(self) -> None:
        if not self._is_open:
            half = type(self).__name__.lower()
            raise BackendError(f"this {half} is closed: open another with bundle.{half}()")

    def _run(self, batch: Batch) -> Arrays:
        self._check_open()
        found = self._backend.run(batch)
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise BackendError(
                    f"{name} is not finite: export the bundle again and read its verification"
                )
        return found


class Encoder(_Half):
    """Images to latents. Get one from `Bundle.encoder`, and call it.

    An image is a path, or an array as OpenCV gives it: (H, W) grey, (H, W, 3) **BGR** or
    (H, W, 4) BGRA, uint8 or uint16. Of an RGB array (Pillow, imageio) pass `image[..., ::-1]`.
    Luma is taken, fitted to the model's square and scaled just as in training and in a stream.
    It may be called from several threads; it encodes for one of them at a time.

    Attributes:
        engine: What runs: precision, engine, version and device.
        notes: Why no other engine runs, what to know of this one, and what out-of-distribution
            detection can tell, a clause each.
    """

    def __init__(
        self, selected: SelectedEngine, spec: ModelSpec, detector: OODDetector | None, note: str
    ) -> None:
        super().__init__(selected, spec, note)
        self._detector = detector

    @overload
    def __call__(self, images: Image, *, max_picture: float = ...) -> Latent: ...

    @overload
    def __call__(
        self, images: list[Any] | tuple[Any, ...], *, max_picture: float = ...
    ) -> Latents: ...

    @spelled_for_python()
    def __call__(
        self, images: Image | list[Any] | tuple[Any, ...], *, max_picture: float = MAX_PICTURE
    ) -> Latent | Latents:
        """Encode an image, or a list of them.

        Args:
            images: A path or an array; or a list of such, which may differ in size.
            max_picture: Megapixels that a file may have; a larger one is not decoded.

        Returns:
            A `Latent` of (D,) arrays for one image, `Latents` of (N, D) arrays for a list.

        Raises:
            ImageError: An image does not decode, or is of another shape or dtype.
            BackendError: The engine failed, a latent is not finite, or this is closed.
        """
        limit = limit_for(self._spec, max_picture)
        if isinstance(images, (list, tuple)):
            return self._encoded(images, limit)
        found = self._encoded([images], limit)
        is_ood = None if found.is_ood is None else bool(found.is_ood[0])
        return Latent(found.mu[0], None if found.log_var is None else found.log_var[0], is_ood)

    def _encoded(self, images: Sequence[Image], limit: PictureLimit) -> Latents:
        self._check_open()
        size = self._spec.latent_size
        mu = np.empty((len(images), size), np.float32)
        log_var = np.empty_like(mu) if self._spec.has_log_var else None
        is_ood = None if self._detector is None else np.empty(len(images), np.bool_)
        for start in range(0, len(images), _BATCH):
            pictures = [self._picture(image, limit) for image in images[start : start + _BATCH]]
            batch = np.empty((len(pictures), *self._spec.input_shape), self._backend.input_dtype)
            for picture, row in zip(pictures, batch, strict=True):
                write_input(picture, row)
            part = slice(start, start + len(pictures))
            found = self._run(batch)
            mu[part] = found["mu"]
            if log_var is not None:
                log_var[part] = found["log_var"]
            if self._detector is not None and is_ood is not None:
                for row, picture in enumerate(pictures, start):
                    appearance = self._detector.appearance(picture)
                    spread = None if log_var is None else log_var[row]
                    is_ood[row] = self._detector.scored(mu[row], spread, appearance).is_ood
        return Latents(mu, log_var, is_ood)

    def _picture(self, image: Image, limit: PictureLimit) -> npt.NDArray[np.uint8]:
        if isinstance(image, np.ndarray):
            pixels = picture_from_image(image, self._spec.color)
        elif isinstance(image, (str, os.PathLike)):
            path = Path(image).expanduser()
            if path.is_dir():
                raise ImageError(f"{path} is a folder: encode it with motorvae.encode(bundle, ...)")
            if path.suffix.lower() not in IMAGE_SUFFIXES and _is_other_file(path):
                raise ImageError(
                    f"{path} is no picture: encode videos and other files with "
                    "motorvae.encode(bundle, ...)"
                )
            picture = fitted_from_file(path, self._spec, limit)
            for remark in picture.remarks:
                warnings.warn(f"{path}: {remark}", stacklevel=5)
            return picture.pixels
        else:
            raise ImageError(
                f"{type(image).__name__} is no image: give a path, or a numpy array (H, W), or "
                "(H, W, 3) in BGR order"
            )
        return fitted(pixels, self._spec)


def _is_other_file(path: Path) -> bool:
    """Whether there is a file that is no picture by its content."""
    try:
        return path.exists() and kind_of_file(path) is None
    except OSError:
        return False  # whoever decodes it says why it cannot be read


class Decoder(_Half):
    """Latents to images. Get one from `Bundle.decoder`, and call it.

    Attributes:
        engine: What runs: precision, engine, version and device.
        notes: Why no other engine runs, and what to know of this one, a clause each.
    """

    @spelled_for_python()
    def __call__(self, latents: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Decode one latent or several.

        Args:
            latents: (D,) or (N, D), such as `Latent.mu`, or a sample of your own; or of the shape
                of `Bundle.latent_shape`, one or N of them.

        Returns:
            uint8 pictures, (H, W) or (N, H, W) of a grey model, (3, H, W) or (N, 3, H, W) of
            colour planes in the order of `spec.color`.

        Raises:
            ConfigError: Another shape, or a value is not finite.
            BackendError: The engine failed, an image is not finite, or this is closed.
        """
        self._check_open()
        size, shape = self._spec.latent_size, self._spec.picture_shape
        inner = self._spec.latent_shape or (size,)
        try:
            z = np.asarray(latents, np.float32)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{type(latents).__name__} is no latent: give an array, such as latent.mu"
            ) from error
        # One of (4, 32, 32) is no batch of four, whatever D is: the whole shape decides.
        is_one = z.shape in {(size,), inner}
        fits = is_one or z.shape[1:] in {(size,), inner}
        if not (fits and np.isfinite(z).all()):
            what = "a NaN or inf" if fits else f"shape {z.shape}"
            axes = f", {inner} or (N, {', '.join(map(str, inner))})" if len(inner) > 1 else ""
            raise ConfigError(f"latents of {what}: give finite (D,) or (N, D) with D={size}{axes}")
        rows = np.ascontiguousarray(z.reshape(-1, size))
        images = np.empty((len(rows), *shape), np.uint8)
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            found = self._run(rows[part])["reconstruction"]
            images[part] = np.rint(np.clip(found, 0, 1) * 255).reshape(-1, *shape)
        return images[0] if is_one else images


@spelled_for_python()
def load(folder: str | os.PathLike[str] = "bundle") -> Bundle:
    """Read a bundle and check all of it: schema, sizes, hashes, names, shapes and dtypes.

    Args:
        folder: What `motorvae-export` wrote.

    Raises:
        BundleError: Anything is missing, altered, or of another version.
    """
    found = load_bundle(Path(folder).expanduser())
    return Bundle(found.folder, found.manifest, found.unread)
