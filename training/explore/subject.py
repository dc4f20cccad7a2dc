"""Subject: the model that is explored, of a training run or of a bundle, with what it kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.load import Bundle, load_bundle
from ...runtime.bundle.manifest import MANIFEST, STATISTICS, VERIFICATION_IMAGES
from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.documents import Form, arrays_from_npz
from ...runtime.core.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    ConfigError,
    MotorVAEError,
    needed_for,
    next_command,
)
from ...runtime.core.lifecycle import Closing, loading
from ...runtime.core.spec import ModelSpec
from ...runtime.core.text import printable
from ...runtime.ood.features import feature_count
from ..latent_statistics import HELD_OUT_NAME, TRAIN_LATENTS_NAME
from .halves import Halves, halves_of_bundle
from .options import ModelOptions
from .pictures import (
    Pictures,
    Pixels,
    is_image_word,
    kept_pictures,
    picture_of_word,
    pictures_of_data,
)

if TYPE_CHECKING:
    from ..checkpoint import RunConfig

RUN, BUNDLE = Path("runs/latest"), Path("bundle")
_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_BATCH = 16

Floats = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]


class Latents(NamedTuple):
    """Of N images."""

    mu: Floats  # (N, D)
    log_var: Floats | None  # (N, D); None of an encoder that gives none


@dataclass(frozen=True)
class TrainLatents:
    """The latents that a model gives for training images, or as much as is known of them.

    Attributes:
        mu: (N, D) float32; None where only their mean and covariance are known.
        log_var: (N, D) float32, or None as of `Latents`.
        names: Of the N images.
        mean: (D,) float64; None where nothing at all is known.
        covariance: (D, D) float64 of mu; None where there are more than 1024 latents.
        source: What they are, for a sentence.
    """

    mu: Floats | None
    log_var: Floats | None
    names: tuple[str, ...]
    mean: Float64s | None
    covariance: Float64s | None
    source: str


class Subject(Closing):
    """A model to explore. Get one from `open_subject`, and close it.

    Attributes:
        folder: The run or the bundle.
        name: What to call it in titles.
        spec: Its sizes, and how a picture becomes its input.
        bundle: Where it is one; a run otherwise.
        run_config: What a run was trained with; None of a bundle.
    """

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        halves: Halves,
        *,
        bundle: Bundle | None = None,
        run_config: RunConfig | None = None,
        images: str | None = None,
        max_picture: float,
    ) -> None:
        self.folder, self.spec, self.bundle, self.run_config = folder, spec, bundle, run_config
        self.name = printable(folder.resolve().name or str(folder))
        self._halves, self._images, self._max_picture = halves, images, max_picture

    def close(self) -> None:
        """Release the engines; calling it again does nothing."""
        self._halves.close()

    @property
    def is_run(self) -> bool:
        """Whether it is a training run, not a bundle."""
        return self.bundle is None

    @cached_property
    def weights_sha256(self) -> str:
        """Identity of the weights, as a manifest has it and `motorvae-encode` writes it down."""
        if self.bundle is not None:
            return self.bundle.manifest.weights_sha256
        return sha256_of(self.folder / _WEIGHTS)

    @property
    def has_own_images(self) -> bool:
        """Whether images are those that the model came with, not those of `--images`."""
        return self._images is None

    def encode(self, pictures: Pixels) -> Latents:
        """Encode pictures (N, *picture_shape) uint8, in float32.

        A BackendError where a latent is not finite.
        """
        parts: list[tuple[Floats, Floats | None]] = []
        for start in range(0, len(pictures), _BATCH):
            some = pictures[start : start + _BATCH]
            parts.append(self._halves.encode(some.reshape(-1, *self.spec.input_shape)))
        log_vars = [part for _, part in parts if part is not None]
        empty = np.empty((0, self.spec.latent_size), np.float32)
        mu = np.concatenate([empty, *(part for part, _ in parts)])
        log_var = np.concatenate([empty, *log_vars]) if self.spec.has_log_var else None
        for name, values in (("mu", mu), ("log_var", log_var)):
            if values is not None and not np.isfinite(values).all():
                raise BackendError(f"{name} of {self.folder} is not finite: train again")
        return Latents(mu, log_var)

    def rebuild(self, z: npt.NDArray[Any]) -> Floats:
        """Decode latents (N, D) to (N, C, H, W) float32 in [0, 1].

        A BundleError where there is no decoder, a BackendError where a pixel is not finite.
        """
        rows = np.ascontiguousarray(z, np.float32).reshape(-1, self.spec.latent_size)
        found = np.empty((len(rows), *self.spec.input_shape), np.float32)
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            found[part] = self._halves.decode(rows[part])
        if not np.isfinite(found).all():
            raise BackendError(
                f"what {self.folder} decodes is not finite: these latents are too far from any it "
                "knows, or it must be trained again"
            )
        return found.clip(0, 1)

    def decode(self, z: npt.NDArray[Any]) -> Pixels:
        """Decode latents (N, D) to pictures (N, *picture_shape) uint8; errors as of `rebuild`."""
        return self.levels(self.rebuild(z))

    def levels(self, images: Floats) -> Pixels:
        """Return images (N, C, H, W) in [0, 1] as pictures (N, *picture_shape) uint8."""
        rounded: Pixels = np.rint(images * np.float32(255)).astype(np.uint8)
        return rounded.reshape(-1, *self.spec.picture_shape)

    def held_out(self) -> Pictures:
        """Return the images of `--images`, or else the held-out ones that the model came with."""
        return self._held_out

    @cached_property
    def _held_out(self) -> Pictures:
        if self._images is not None:
            return pictures_of_data(self._images, self.spec, max_picture=self._max_picture)
        if self.bundle is None:
            path, what = self.folder / HELD_OUT_NAME, "held-out images"
            return kept_pictures(path, self.spec, what, in_bundle=False)
        path, what = self.folder / VERIFICATION_IMAGES, "held-out images in the bundle"
        return kept_pictures(path, self.spec, what, in_bundle=True)

    def picture(self, word: str) -> tuple[str, Pixels]:
        """Return name and picture of an image that is named as in `picture_of_word`."""
        return picture_of_word(word, self.spec, self.held_out, max_picture=self._max_picture)

    def pictures(self, word: str) -> Pictures:
        """Return one image as of `picture`, or all those of a folder, a pattern or a video."""
        if is_image_word(word):
            name, pixels = self.picture(word)
            return Pictures(pixels[None], (name,), name)
        return pictures_of_data(word, self.spec, max_picture=self._max_picture)

    def statistics(self) -> Arrays:
        """Return what `latents.npz` holds of the latents of training images, as far as it does.

        See `motorvae.training.latent_statistics.statistics_from_outputs`.
        """
        return self._statistics

    @cached_property
    def _statistics(self) -> Arrays:
        size, features = self.spec.latent_size, feature_count(self.spec)
        forms = {
            "mu_deviation": Form("f", (size,), needed=False),
            "posterior_variance_mean": Form("f", (size,), needed=False),
            "log_var_mean": Form("f", (size,), needed=False),
        }
        if features:
            forms |= {
                "mean": Form("f", (features,), needed=False),
                "covariance": Form("f", (features, features), needed=False),
                "covariance_shrinkage": Form("f", (), needed=False),
                "covariance_ridge": Form("f", (), needed=False),
            }
        error: type[MotorVAEError] = CheckpointError if self.is_run else BundleError
        again = "train again" if self.is_run else "export it again"
        return arrays_from_npz(self.folder / STATISTICS, forms, error=error, again=again)

    def train_latents(self) -> TrainLatents:
        """Return the latents of training images: of `--images`, of the run, or their Gaussian."""
        return self._train_latents

    @cached_property
    def _train_latents(self) -> TrainLatents:
        if self._images is not None:
            pictures = self.held_out()
            found = self.encode(pictures.pixels)
            return _measured(found, pictures.names, pictures.source)
        path = self.folder / TRAIN_LATENTS_NAME
        if self.is_run and path.is_file():
            shape = ("images", self.spec.latent_size)
            forms = {
                "names": Form("U", ("images",)),
                "mu": Form("float32", shape),
                "log_var": Form("float32", shape, needed=self.spec.has_log_var),
            }
            again = "train again, or name images with --images"
            arrays = arrays_from_npz(path, forms, error=CheckpointError, again=again)
            if not len(arrays["mu"]):
                raise CheckpointError(f"{path} holds no latent: {again}")
            names = tuple(map(str, arrays["names"]))
            latents = Latents(arrays["mu"], arrays.get("log_var"))
            return _measured(latents, names, f"{len(names)} training images")
        statistics = self.statistics()
        mean, covariance = statistics.get("mean"), statistics.get("covariance")
        if len(self.spec.latent_shape) > 1:
            mean = covariance = None  # they are those of features, not of latents
        return TrainLatents(
            None, None, (), mean, covariance, "mean and covariance of the training latents"
        )


def _measured(latents: Latents, names: tuple[str, ...], source: str) -> TrainLatents:
    mean = latents.mu.mean(axis=0, dtype=np.float64)
    covariance = None
    if latents.mu.shape[1] <= 1024 and len(latents.mu) > 1:
        covariance = np.atleast_2d(np.cov(latents.mu.astype(np.float64), rowvar=False, bias=True))
    return TrainLatents(latents.mu, latents.log_var, names, mean, covariance, source)


def open_subject(options: ModelOptions, *, decodes: bool = False) -> Subject:
    """Open a run's folder (with torch), or a bundle (with the engines of the runtime, no torch).

    Where it `decodes`, a model without a decoder is refused before anything is computed.

    Raises:
        ConfigError: There is nothing by that name, or it is neither.
        CheckpointError, BundleError: It is damaged, or not finished.
        MissingDependencyError: torch, or the engine, is not installed.
        BackendError: The engine does not open.
    """
    folder = _folder_of(options.model)
    settings: dict[str, Any] = {"images": options.images, "max_picture": options.max_picture}
    if (folder / MANIFEST).exists():
        bundle = load_bundle(folder)
        if decodes and not bundle.spec.has_decoder:
            raise BundleError(
                f"{folder} has no decoder, and this draws what one makes of latents: name another "
                "--model, or import it again with a decoder"
            )
        return Subject(folder, bundle.spec, halves_of_bundle(bundle), bundle=bundle, **settings)
    with needed_for("exploring a training run", extra="train"), loading():
        from .run_halves import halves_of_run  # noqa: PLC0415  # torch: a bundle needs none
    halves, config = halves_of_run(folder)
    return Subject(folder, config.model, halves, run_config=config, **settings)


def _folder_of(model: Path | None) -> Path:
    if model is None:
        for one in (RUN, BUNDLE):
            if one.exists():
                return one
        raise ConfigError(
            f"there is neither a training run at {RUN} nor a bundle at {BUNDLE}: run "
            "motorvae-train first, or name one with --model"
        )
    folder = model.parent if model.name in {_WEIGHTS, MANIFEST} and model.is_file() else model
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise ConfigError(f"--model={model} {what}: name a training run or a bundle")
    if not any((folder / name).exists() for name in (MANIFEST, _CONFIG)):
        inner = folder / RUN.name
        fix = "name a training run or a bundle"
        if inner.is_dir():
            fix = f"did you mean {next_command('--model', inner)}?"
        raise ConfigError(
            f"--model={model} is neither a training run nor a bundle, it has no {_CONFIG} and no "
            f"{MANIFEST}: {fix}"
        )
    return folder
