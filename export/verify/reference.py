"""The held-out images and what they should give: from a run, a bundle, or float32 graphs."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import GraphKey, Precision
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import STATISTICS, VERIFICATION_IMAGES
from ...runtime.core.documents import MOST_ARRAYS, Form, arrays_from_npz
from ...runtime.core.errors import BundleError, CheckpointError
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.open import GraphFile, open_engine
from ...training.learned import is_informative
from .batches import BATCH_SIZE, Engine, Images, encoder_input, run_in_batches
from .extremes import RISK
from .limits import LIMITS, OTHER_NETWORKS, Limits
from .metrics import floored_spread, note_on_few, note_on_still

JUDGED_IMAGES = 256
"""So many held-out images judge a float graph at most."""
ORIGINAL = "the original"
"""So the name of a reference begins that computes weights which were trained elsewhere."""
_PROBE_FIELDS = ("names", "images", "mu", "log_var", "latents")
"""Of `Probes`, those that a bundle carries, as arrays called probe_names and so on."""
_LOWEST, _HIGHEST = np.float32(-1), np.float32(2)
_STEP = (_HIGHEST - _LOWEST) / np.float32(65535)
_MOST_IN_MEMORY = 1 << 28
"""Bytes of decoded images; more of them lie on disk."""
_MOST_HELD_OUT = 4096
"""No run keeps so many images."""
_arrays = partial(arrays_from_npz, again="train or export again")


@dataclass(frozen=True, slots=True)
class Spread:
    """How much each of D latents varies over the data: standard deviations."""

    mu: npt.NDArray[np.float64]
    log_var: npt.NDArray[np.float64] | None = None  # None for an encoder that gives none
    # means of exp(log_var); by default those of the reference's images
    posterior_variance: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls, mu: npt.NDArray[np.float32], log_var: npt.NDArray[np.float32] | None = None
    ) -> Spread:
        """Return the spreads of latents, (N, D) each."""
        if log_var is None:
            return cls(mu.std(axis=0, dtype=np.float64))
        variance = np.exp(np.asarray(log_var, np.float64)).mean(axis=0)
        return cls(
            mu=mu.std(axis=0, dtype=np.float64),
            log_var=log_var.std(axis=0, dtype=np.float64),
            posterior_variance=np.asarray(variance, np.float64),
        )


@dataclass(frozen=True, slots=True)
class Probes:
    """What the reference gives for images and latents that held-out images do not reach."""

    names: tuple[str, ...]  # what each image is
    images: npt.NDArray[np.uint8]  # (P, H, W) or (P, 3, H, W)
    mu: npt.NDArray[np.float32]  # (P, D)
    log_var: npt.NDArray[np.float32] | None = None  # (P, D)
    latents: npt.NDArray[np.float32] | None = None  # (L, D)
    reconstruction: Images | None = None  # (L, C, H, W), decoded from `latents`


@dataclass(frozen=True, slots=True)
class Reference:
    """What float32 gives for the held-out images, and for probes where there are any.

    Without `log_var` nothing is collapsed, and the spread over the data judges every unit; without
    a decoder there are no images to compare.
    """

    name: str  # who computed it
    images: npt.NDArray[np.uint8]  # (N, H, W) or (N, 3, H, W), fitted pictures
    mu: npt.NDArray[np.float32]  # (N, D)
    log_var: npt.NDArray[np.float32] | None  # (N, D)
    # (N, C, H, W) float32, decoded from `mu`; anything that gives rows
    reconstruction: Images | None
    spread: Spread
    probes: Probes | None = None  # a bundle of an earlier version has none
    risk: float = RISK  # the probability that a batch of fresh images exceeds one bound
    room: float = 1.0  # by how much errors of float32 graphs may exceed their limits

    def limits(self, precision: Precision) -> Limits:
        """Return what a precision is held to by this reference."""
        return LIMITS[precision].loosened(self.room if precision == "fp32" else 1)

    def rows(self, rows: slice) -> Reference:
        """Return the same of some of the images, and of all probes."""
        return replace(
            self,
            images=self.images[rows],
            mu=self.mu[rows],
            log_var=None if self.log_var is None else self.log_var[rows],
            reconstruction=None if self.reconstruction is None else self.reconstruction[rows],
        )

    @property
    def decoded(self) -> Images:
        """The reconstructions; a ValueError where there is no decoder."""
        if self.reconstruction is None:
            raise ValueError(f"{self.name} has no images of a decoder")
        return self.reconstruction

    @property
    def posterior_variance(self) -> npt.NDArray[np.float64] | None:
        """(D,) means of exp(log_var), where there is one."""
        if self.spread.posterior_variance is not None or self.log_var is None:
            return self.spread.posterior_variance
        return np.asarray(np.exp(np.asarray(self.log_var, np.float64)).mean(axis=0), np.float64)

    @property
    def informative(self) -> npt.NDArray[np.bool_]:
        """(D,) which units are not collapsed; see `training.learned`.

        Without `log_var` it is those that vary over the data at all, next to the others.
        """
        if self.posterior_variance is None:
            return np.asarray((self.spread.mu > 0) & (self.spread.mu >= self.scale))
        return is_informative(self.spread.mu**2, self.posterior_variance)

    @property
    def judged_units(self) -> npt.NDArray[np.bool_]:
        """(D,) whose errors of `mu` are judged by `scale`: the informative, or all if none is."""
        informative = self.informative
        if self.posterior_variance is None:
            return np.ones_like(informative)
        return informative if informative.any() else ~informative

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """(D,) what an error of `mu` is divided by: the spread of a unit that carries information.

        A collapsed one has next to none, and gives a draw from its posterior: its errors are
        divided by that deviation, or where none is known by the least that counts as a spread.
        """
        if self.posterior_variance is None:
            return floored_spread(self.spread.mu)
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
        elif not self.spread.mu.any():
            notes.append(
                "mu is the same for all images, so its error is judged by the posterior deviation"
            )
        elif collapsed:
            notes.append(
                f"{collapsed} of {len(informative)} units are collapsed and carry no information: "
                "their mu is judged by its error over the posterior deviation"
            )
        if self.probes is None:
            notes.append("no probe images judge: what a graph does elsewhere is unknown")
        return tuple(notes)


class ImagesOnDisk:
    """Images in an unnamed file of a folder, 16 bits a value, read a few at a time.

    Values are kept from -1 to 2, as decoders without a last squashing function leave [0, 1]
    somewhat. Rounding to 16 bits is an error of -97 dB; float32 graphs are held to -80 dB, INT8
    ones to -40. The file is gone when nothing holds this any more. `parts` are (N, C, H, W) float32
    each, one at least; a full disk raises OSError.
    """

    def __init__(self, folder: Path, parts: Iterable[npt.NDArray[np.float32]]) -> None:
        count, shape = 0, (0,)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Written, not mapped: a mapped page that finds the disk full kills the process.
            for images in parts:
                levels = np.rint((np.clip(images, _LOWEST, _HIGHEST) - _LOWEST) / _STEP)
                levels.astype(np.uint16).tofile(file)
                count, shape = count + len(images), images.shape[1:]
            file.flush()
            self._pixels = np.memmap(file, np.uint16, "r", shape=(count, *shape))

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: Any, /) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = self._pixels[rows] * _STEP + _LOWEST
        return found


def held_out_from_run(
    folder: Path, spec: ModelSpec, statistics: str = STATISTICS
) -> tuple[npt.NDArray[np.uint8], Spread]:
    """Read a run's held-out images, (N, *picture_shape), and its latents' spread.

    `statistics` is the name of the file with the latter. A CheckpointError names the file that is
    missing, unreadable, or does not fit the model.
    """
    path = folder / "held_out.npz"
    form = Form("u1", ("images", *spec.picture_shape))
    # A run keeps more than a bundle, which of large images is much.
    most = max(MOST_ARRAYS, _MOST_HELD_OUT * math.prod(spec.picture_shape))
    images = _arrays(path, {"images": form}, error=CheckpointError, most_bytes=most)["images"]
    if not len(images):
        raise CheckpointError(f"{path} holds no image: train again")
    return images, spread_from_statistics(folder / statistics, spec, error=CheckpointError)


def spread_from_statistics(
    path: Path, spec: ModelSpec, *, error: type[CheckpointError | BundleError]
) -> Spread:
    """Return the standard deviations from a file of latent statistics, or raise `error`."""
    size = spec.latent_size
    forms = {
        "mu_deviation": Form("f", (size,), needed=False),
        "log_var_deviation": Form("f", (size,), needed=spec.has_log_var),
        "posterior_variance_mean": Form("f", (size,), needed=False),
    }
    found = _arrays(path, forms, error=error)
    if "mu_deviation" not in found:
        # Earlier versions kept them in the covariance alone.
        earlier = _arrays(path, {"covariance": Form("f", (size, size), needed=False)}, error=error)
        if "covariance" not in earlier:
            raise error(f"{path} holds no covariance and no mu_deviation: train or export again")
        variance = np.diag(earlier["covariance"])
        found["mu_deviation"] = np.sqrt(np.clip(variance, 0, None))
    return Spread(
        mu=found["mu_deviation"],
        log_var=found.get("log_var_deviation"),
        posterior_variance=found.get("posterior_variance_mean"),
    )


def save_reference(path: Path, reference: Reference) -> None:
    """Write images, probes and their latents, so that a machine without torch can verify."""
    arrays = {name: getattr(reference, name) for name in ("images", "mu", "log_var")}
    if (probes := reference.probes) is not None:
        arrays |= {f"probe_{name}": getattr(probes, name) for name in _PROBE_FIELDS}
    arrays = {name: np.asarray(one) for name, one in arrays.items() if one is not None}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def reference_from_bundle(bundle: Bundle) -> Reference:
    """Return the reference that a bundle carries; BundleError where parts are missing.

    The latents are those that its float32 graphs were compared with. The images decoded from them
    come from the bundle's float32 decoder, which was compared likewise when the bundle was made.
    """
    spec = bundle.spec
    listed = {entry.file for entry in bundle.manifest.files}
    for name in (VERIFICATION_IMAGES, STATISTICS):
        if name not in listed:
            raise BundleError(f"{bundle.folder} lists no {name}: export it again")
    size, picture = spec.latent_size, spec.picture_shape
    forms = {
        "images": Form("u1", ("images", *picture)),
        "mu": Form("f", ("images", size)),
        "probe_names": Form("U", ("probes",), needed=False),
        "probe_images": Form("u1", ("probes", *picture), needed=False),
        "probe_mu": Form("f", ("probes", size), needed=False),
    }
    if spec.has_log_var:
        forms["log_var"] = Form("f", ("images", size))
        forms["probe_log_var"] = Form("f", ("probes", size), needed=False)
    if spec.has_decoder:
        forms["probe_latents"] = Form("f", ("latents", size), needed=False)
    path = bundle.folder / VERIFICATION_IMAGES
    every = _arrays(path, forms, error=BundleError)
    images, mu = every["images"], every["mu"]
    if not len(images):
        raise BundleError(f"{path} holds no image: export again")
    probes = None
    saved = {name: every.get(f"probe_{name}") for name in _PROBE_FIELDS}
    if all(name in every for name in forms):  # else an earlier version wrote it
        names = tuple(map(str, every["probe_names"]))
        probes = Probes(**(saved | {"names": names}))  # type: ignore[arg-type]
    reconstruction = None
    if spec.has_decoder:
        with open_engine(bundle, GraphKey("decoder")) as decoder:
            reconstruction = decoded_images(decoder, mu)
            if probes is not None and probes.latents is not None:
                decoded = decoded_images(decoder, probes.latents)
                probes = replace(probes, reconstruction=decoded)
    whose = "torch" if spec.channels is not None else f"{ORIGINAL}'s"
    return Reference(
        name=f"{whose} float32 latents, float32 ONNX reconstructions",
        images=images,
        mu=mu,
        log_var=every.get("log_var"),
        reconstruction=reconstruction,
        spread=spread_from_statistics(bundle.folder / STATISTICS, spec, error=BundleError),
        probes=probes,
        room=1.0 if spec.channels is not None else OTHER_NETWORKS,
    )


def reference_from_graphs(
    folder: Path, spec: ModelSpec, images: npt.NDArray[np.uint8], verified: Reference
) -> Reference:
    """Run a folder's float32 graphs on (N, *picture_shape) images.

    Reconstructions are never all in memory. The spreads and probes are those of the reference by
    which the graphs passed verification.
    """
    encode = GraphKey("encoder")
    with open_engine(GraphFile(folder / encode.onnx_file, spec), encode) as encoder:
        latents = run_in_batches(encoder, encoder_input(encoder, images))
    reconstruction = None
    if spec.has_decoder:
        decode = GraphKey("decoder", variant="full" if spec.channels is None else "phases")
        with open_engine(GraphFile(folder / decode.onnx_file, spec), decode) as decoder:
            reconstruction = decoded_images(decoder, latents["mu"], folder)
    return replace(
        verified,
        name="float32 ONNX graphs",
        images=images,
        mu=latents["mu"],
        log_var=latents.get("log_var"),
        reconstruction=reconstruction,
    )


def decoded_images(
    decoder: Engine, latents: npt.NDArray[np.float32], folder: Path | None = None
) -> Images:
    """Decode (N, D) latents, a few at a time; in memory unless a folder is named or it is much."""
    starts = range(0, len(latents), BATCH_SIZE)
    parts = (
        run_in_batches(decoder, latents[start : start + BATCH_SIZE])["reconstruction"]
        for start in starts
    )
    first = next(parts)
    every = itertools.chain([first], parts)
    if folder is None and first[0].nbytes * len(latents) <= _MOST_IN_MEMORY:
        return np.concatenate(list(every))
    return ImagesOnDisk(folder or Path(tempfile.gettempdir()), every)
