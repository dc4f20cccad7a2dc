"""The held-out images and what they should give: from a run, a bundle, or float32 graphs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import STATISTICS, VERIFICATION_IMAGES
from ...runtime.core.documents import MOST_ARRAYS, Form, arrays_from_npz
from ...runtime.core.errors import BundleError, CheckpointError
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.open import GraphFile, open_engine
from ...runtime.pixels.convert import input_from_pixels
from ...training.learned import is_informative
from .batches import BATCH_SIZE, Images, run_in_batches
from .extremes import RISK
from .metrics import floored_spread, note_on_few, note_on_still

JUDGED_IMAGES = 256
"""So many held-out images judge a float graph at most."""
_PROBE_FIELDS = ("names", "images", "mu", "log_var", "latents")
"""Of `Probes`, those that a bundle carries, as arrays called probe_names and so on."""
_LEVELS = 65535
_MOST_HELD_OUT = 4096
"""No run keeps so many images."""
_arrays = partial(arrays_from_npz, again="train or export again")


@dataclass(frozen=True, slots=True)
class Spread:
    """How much each of D latents varies over the training data: standard deviations."""

    mu: npt.NDArray[np.float64]
    log_var: npt.NDArray[np.float64]
    # means of exp(log_var); by default those of the reference's images
    posterior_variance: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Probes:
    """What the reference gives for images and latents that held-out images do not reach."""

    names: tuple[str, ...]  # what each image is
    images: npt.NDArray[np.uint8]  # (P, S, S)
    mu: npt.NDArray[np.float32]  # (P, D)
    log_var: npt.NDArray[np.float32]  # (P, D)
    latents: npt.NDArray[np.float32]  # (L, D)
    reconstruction: npt.NDArray[np.float32]  # (L, 1, S, S), decoded from `latents`


@dataclass(frozen=True, slots=True)
class Reference:
    """What torch float32 gives for the held-out images, and for probes where there are any."""

    name: str  # who computed it
    images: npt.NDArray[np.uint8]  # (N, S, S), fitted luma
    mu: npt.NDArray[np.float32]  # (N, D)
    log_var: npt.NDArray[np.float32] | None  # (N, D), where the encoder gives it
    reconstruction: Images  # (N, 1, S, S) float32, decoded from `mu`; anything that gives rows
    spread: Spread
    probes: Probes | None = None  # a bundle of an earlier version has none
    risk: float = RISK  # the probability that a batch of fresh images exceeds one bound

    def rows(self, rows: slice) -> Reference:
        """Return the same of some of the images, and of all probes."""
        names = ["images", "mu", "reconstruction"]
        names += ["log_var"] if self.log_var is not None else []
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @property
    def posterior_variance(self) -> npt.NDArray[np.float64]:
        """(D,) means of exp(log_var); of an encoder without it next to nothing."""
        if self.spread.posterior_variance is not None:
            return self.spread.posterior_variance
        if self.log_var is None:
            return np.zeros(self.mu.shape[1])
        return np.asarray(np.exp(np.asarray(self.log_var, np.float64)).mean(axis=0), np.float64)

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """(D,) which units are not collapsed; see `training.learned`.

        Without `log_var` a collapsed unit cannot be told, and all count, unless none varies.
        """
        if self.log_var is None:
            return np.full(self.mu.shape[1], bool(np.any(self.spread.mu > 0)))
        return is_informative(self.spread.mu**2, self.posterior_variance)

    @property
    def judged_units(self) -> npt.NDArray[np.bool_]:
        """(D,) whose errors of `mu` are judged by `scale`: the informative, or all if none is."""
        informative = self.informative
        return informative if informative.any() else ~informative

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """(D,) what an error of `mu` is divided by: the spread of a unit that carries information.

        A collapsed one has next to none, and gives a draw from its posterior: its errors are
        divided by that deviation.
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
        if self.log_var is None:
            notes += note_on_still(self.spread.mu)
        elif collapsed:
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


class ImagesOnDisk:
    """Images in [0, 1] in an unnamed file of a folder, 16 bits a pixel, read a few at a time.

    Rounding to 16 bits is an error of -107 dB; INT8 graphs are held to -40 dB. The file is gone
    when nothing holds this any more. `parts` are (N, 1, S, S) float32 each, one at least; a full
    disk raises OSError.
    """

    def __init__(self, folder: Path, parts: Iterable[npt.NDArray[np.float32]]) -> None:
        count, shape = 0, (0,)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Written, not mapped: a mapped page that finds the disk full kills the process.
            for images in parts:
                levels = np.rint(np.clip(images, 0, 1) * np.float32(_LEVELS))
                levels.astype(np.uint16).tofile(file)
                count, shape = count + len(images), images.shape[1:]
            file.flush()
            self._pixels = np.memmap(file, np.uint16, "r", shape=(count, *shape))

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._pixels[rows] * np.float32(1 / _LEVELS)
        return found


def held_out_from_run(
    folder: Path, spec: ModelSpec, statistics: str = STATISTICS
) -> tuple[npt.NDArray[np.uint8], Spread]:
    """Read a run's held-out images, (N, S, S), and the latent statistics in the file of that name.

    A CheckpointError names the file that is missing, unreadable, or does not fit the model.
    """
    path, shape = folder / "held_out.npz", spec.picture_shape
    form = Form("u1", ("images", *shape))
    # A run keeps more than a bundle, which of large images is much.
    most = max(MOST_ARRAYS, _MOST_HELD_OUT * math.prod(shape))
    images = _arrays(path, {"images": form}, error=CheckpointError, most_bytes=most)["images"]
    if not len(images):
        raise CheckpointError(f"{path} holds no image: train again")
    return images, spread_from_statistics(folder / statistics, spec, error=CheckpointError)


def spread_from_statistics(
    path: Path, spec: ModelSpec, *, error: type[CheckpointError | BundleError]
) -> Spread:
    """Return the standard deviations from a file of latent statistics, or raise `error`."""
    size = spec.latent_size
    found = _arrays(
        path,
        {
            "covariance": Form("f", (size, size)),
            "log_var_deviation": Form("f", (size,)),
            "posterior_variance_mean": Form("f", (size,), needed=False),
        },
        error=error,
    )
    return Spread(
        mu=np.sqrt(np.clip(np.diag(found["covariance"]), 0, None)),
        log_var=found["log_var_deviation"],
        posterior_variance=found.get("posterior_variance_mean"),
    )


def save_reference(path: Path, reference: Reference) -> None:
    """Write images, probes and their latents, so that a machine without torch can verify."""
    arrays = {name: np.asarray(getattr(reference, name)) for name in ("images", "mu", "log_var")}
    if (probes := reference.probes) is not None:
        arrays |= {f"probe_{name}": np.asarray(getattr(probes, name)) for name in _PROBE_FIELDS}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def reference_from_bundle(bundle: Bundle) -> Reference:
    """Return the reference that a bundle carries; BundleError where parts are missing.

    The latents are torch's own. The images decoded from them come from the bundle's float32
    decoder, which was compared with torch's when the bundle was made.
    """
    listed = {entry.file for entry in bundle.manifest.files}
    for name in (VERIFICATION_IMAGES, STATISTICS):
        if name not in listed:
            raise BundleError(f"{bundle.folder} lists no {name}: export it again")
    shape, size = bundle.spec.picture_shape, bundle.spec.latent_size
    forms = {
        "images": Form("u1", ("images", *shape)),
        "mu": Form("f", ("images", size)),
        "log_var": Form("f", ("images", size)),
        "probe_names": Form("U", ("probes",), needed=False),
        "probe_images": Form("u1", ("probes", *shape), needed=False),
        "probe_mu": Form("f", ("probes", size), needed=False),
        "probe_log_var": Form("f", ("probes", size), needed=False),
        "probe_latents": Form("f", ("latents", size), needed=False),
    }
    path = bundle.folder / VERIFICATION_IMAGES
    every = _arrays(path, forms, error=BundleError)
    images, mu, log_var = (every[name] for name in ("images", "mu", "log_var"))
    if not len(images):
        raise BundleError(f"{path} holds no image: export again")
    saved = {name: every[f"probe_{name}"] for name in _PROBE_FIELDS if f"probe_{name}" in every}
    probes = None
    with open_engine(bundle, GraphKey("decoder")) as decoder:
        reconstruction = run_in_batches(decoder, mu)["reconstruction"]
        if len(saved) == len(_PROBE_FIELDS):  # else an earlier version wrote it
            decoded = run_in_batches(decoder, saved["latents"])["reconstruction"]
            names = tuple(map(str, saved.pop("names")))
            probes = Probes(names, **saved, reconstruction=decoded)
    return Reference(
        name="torch float32 latents, float32 ONNX reconstructions",
        images=images,
        mu=mu,
        log_var=log_var,
        reconstruction=reconstruction,
        spread=spread_from_statistics(bundle.folder / STATISTICS, bundle.spec, error=BundleError),
        probes=probes,
    )


def reference_from_graphs(
    folder: Path, spec: ModelSpec, images: npt.NDArray[np.uint8], verified: Reference
) -> Reference:
    """Run a folder's float32 graphs on (N, S, S) images, reconstructions never all in memory.

    The spreads and probes are those of the reference by which the graphs passed verification.
    """
    encode, decode = GraphKey("encoder"), GraphKey("decoder", variant="phases")
    starts = range(0, len(images), BATCH_SIZE)
    with open_engine(GraphFile(folder / encode.onnx_file, spec), encode) as encoder:
        parts = [
            run_in_batches(encoder, input_from_pixels(images[start : start + BATCH_SIZE]))
            for start in starts
        ]
    mu, log_var = (np.concatenate([part[name] for part in parts]) for name in ("mu", "log_var"))
    with open_engine(GraphFile(folder / decode.onnx_file, spec), decode) as decoder:
        decoded = (
            run_in_batches(decoder, mu[start : start + BATCH_SIZE])["reconstruction"]
            for start in starts
        )
        return replace(
            verified,
            name="float32 ONNX graphs",
            images=images,
            mu=mu,
            log_var=log_var,
            reconstruction=ImagesOnDisk(folder, decoded),
        )
