"""The held-out images and what torch float32 says of them: from a run, or from a bundle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import STATISTICS, VERIFICATION_IMAGES
from ...runtime.core.documents import arrays_from_npz
from ...runtime.core.errors import BundleError, CheckpointError
from ...runtime.engines.open import open_engine
from ...training.model.latent_units import is_informative
from .batches import Images, run_in_batches
from .extremes import RISK
from .figures import floored_spread
from .metrics import note_on_few
from .probes import Probes

JUDGED_IMAGES = 256
"""So many held-out images judge a float graph at most."""
_PROBE_ARRAYS = ("probe_names", "probe_images", "probe_mu", "probe_log_var", "probe_latents")


@dataclass(frozen=True, slots=True)
class Spread:
    """How much each latent varies over the training data.

    Attributes:
        mu: (D,) standard deviations.
        log_var: (D,) standard deviations.
        posterior_variance: (D,) means of exp(log_var); by default those of the reference's images.
    """

    mu: npt.NDArray[np.float64]
    log_var: npt.NDArray[np.float64]
    posterior_variance: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Reference:
    """What torch float32 says of the held-out images, and of probes where there are any.

    Attributes:
        name: Who computed it.
        images: (N, S, S) uint8, fitted luma.
        mu: (N, D) float32.
        log_var: (N, D) float32.
        reconstruction: (N, 1, S, S) float32, decoded from `mu`; anything that gives rows.
        spread: How much each latent varies over the training data.
        probes: Images and latents unlike these; a bundle of an earlier version has none.
        risk: With which probability a batch of fresh images may exceed one bound.
    """

    name: str
    images: npt.NDArray[np.uint8]
    mu: npt.NDArray[np.float32]
    log_var: npt.NDArray[np.float32]
    reconstruction: Images
    spread: Spread
    probes: Probes | None = None
    risk: float = RISK

    def rows(self, rows: slice) -> Reference:
        """Return the same of some of the images, and of all probes."""
        return replace(
            self,
            images=self.images[rows],
            mu=self.mu[rows],
            log_var=self.log_var[rows],
            reconstruction=self.reconstruction[rows],
        )

    @property
    def posterior_variance(self) -> npt.NDArray[np.float64]:
        """(D,) means of exp(log_var)."""
        if self.spread.posterior_variance is not None:
            return self.spread.posterior_variance
        return np.asarray(np.exp(np.asarray(self.log_var, np.float64)).mean(axis=0), np.float64)

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """(D,) which units are not collapsed; see `training.model.latent_units`."""
        return is_informative(self.spread.mu**2, self.posterior_variance)

    @property
    def judged_units(self) -> npt.NDArray[np.bool_]:
        """(D,) whose errors of `mu` are judged by `scale`: the informative, or all if none is."""
        informative = self.informative
        return informative if informative.any() else ~informative

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """(D,) what an error of `mu` is divided by.

        The spread of a unit that carries information. A collapsed one has next to none, and what
        it says is a draw from its posterior: its errors are divided by that deviation.
        """
        informative = self.informative
        scale = np.sqrt(np.maximum(self.posterior_variance, np.finfo(np.float32).tiny))
        if informative.any():
            scale[informative] = floored_spread(self.spread.mu[informative])
        return np.asarray(scale, np.float64)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a verdict by this reference does not cover, and by what units are judged."""
        informative = self.informative
        collapsed = len(informative) - int(informative.sum())
        notes = [*note_on_few(len(self.images))]
        if collapsed:
            notes.append(
                f"{collapsed} of {len(informative)} units are collapsed and carry no information: "
                "their mu is judged by its error over the posterior deviation"
            )
        if self.probes is None:
            notes.append(
                "held-out images alone judge, no probe images: what a graph does elsewhere is "
                "unknown"
            )
        return tuple(notes)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a training run leaves for verification.

    Attributes:
        images: (N, S, S) uint8, fitted luma that was never trained on.
        spread: Standard deviations of the latents over the training images.
    """

    images: npt.NDArray[np.uint8]
    spread: Spread


def held_out_from_run(
    folder: Path, *, image_size: int, latent_size: int, statistics: str = STATISTICS
) -> HeldOut:
    """Read a run's held-out images, and the latent statistics in the file of that name.

    Raises:
        CheckpointError: Either file is missing, unreadable, or does not fit the model.
    """
    (images,) = _arrays(folder / "held_out.npz", ("images",), CheckpointError)
    spread = spread_from_statistics(folder / statistics, error=CheckpointError)
    side = image_size
    if images.dtype != np.uint8 or images.shape[1:] != (side, side) or not len(images):
        raise CheckpointError(
            f"{folder / 'held_out.npz'} holds {images.dtype} {images.shape}, and the model takes "
            f"uint8 (N, {side}, {side}): train again"
        )
    for values in (spread.mu, spread.log_var, spread.posterior_variance):
        if values is not None and values.shape != (latent_size,):
            raise CheckpointError(
                f"{folder / statistics} describes {values.size} latents, and the model has "
                f"{latent_size}: train again"
            )
    return HeldOut(images, spread)


def spread_from_statistics(path: Path, *, error: type[CheckpointError | BundleError]) -> Spread:
    """Return the standard deviations from a file of latent statistics.

    Raises:
        CheckpointError: (or BundleError, as asked) The file is missing or cannot be read.
    """
    covariance, log_var_deviation = _arrays(path, ("covariance", "log_var_deviation"), error)
    every = arrays_from_npz(path, error=error, again="train or export again")
    return Spread(
        mu=np.sqrt(np.clip(np.diag(covariance), 0, None)),
        log_var=log_var_deviation,
        posterior_variance=every.get("posterior_variance_mean"),
    )


def save_reference(path: Path, reference: Reference) -> None:
    """Write the images and their float32 latents, so that a machine without torch can verify.

    Of the probes the same, and the latents that decoders are tried on.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "images": reference.images,
        "mu": reference.mu,
        "log_var": reference.log_var,
    }
    if (probes := reference.probes) is not None:
        arrays |= {
            key: np.asarray(getattr(probes, key.removeprefix("probe_"))) for key in _PROBE_ARRAYS
        }
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def reference_from_bundle(bundle: Bundle) -> Reference:
    """Return the reference that a bundle carries.

    The latents are torch's own. The images decoded from them come from the bundle's float32
    decoder, which was held against torch's when the bundle was made.

    Raises:
        BundleError: The bundle does not hold what verification needs.
    """
    path = bundle.folder / VERIFICATION_IMAGES
    listed = {entry.file for entry in bundle.manifest.files}
    for name in (VERIFICATION_IMAGES, STATISTICS):
        if name not in listed:
            raise BundleError(f"{bundle.folder} lists no {name}: export it again")
    arrays = arrays_from_npz(path, error=BundleError, again="train or export again")
    images, mu, log_var = _arrays(path, ("images", "mu", "log_var"), BundleError)
    has_probes = arrays.keys() >= set(_PROBE_ARRAYS)
    with open_engine(bundle, GraphKey("decoder")) as decoder:
        reconstruction = run_in_batches(decoder, mu)["reconstruction"]
        probes = None
        if has_probes:  # else an earlier version wrote it
            decoded = run_in_batches(decoder, arrays["probe_latents"])["reconstruction"]
            names, probed, *latents = (arrays[key] for key in _PROBE_ARRAYS)
            of_probes, probe_log_var, decoded_from = latents
            probes = Probes(
                tuple(map(str, names)), probed, of_probes, probe_log_var, decoded_from, decoded
            )
    return Reference(
        name="torch float32 latents, float32 ONNX reconstructions",
        images=images,
        mu=mu,
        log_var=log_var,
        reconstruction=reconstruction,
        spread=spread_from_statistics(bundle.folder / STATISTICS, error=BundleError),
        probes=probes,
    )


def _arrays(
    path: Path, keys: tuple[str, ...], error: type[CheckpointError | BundleError]
) -> list[npt.NDArray[Any]]:
    return [*arrays_from_npz(path, keys, error=error, again="train or export again").values()]
