"""Atlas: known images on a plane, and where a new latent lies among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..space.collection import Collection
from ..space.distances import units_of
from ..space.projection import Method, Projection, projected

SIDE = 1000.0
"""Of the square that holds all known images, in the view's own units."""


@dataclass(frozen=True)
class Atlas:
    """A map of known images.

    Attributes:
        names: Of the N images.
        known: (N, 2) float32, where each lies in the view, whose second axis points down.
        title: How the map was made, and of what.
    """

    names: tuple[str, ...]
    known: npt.NDArray[np.float32]
    title: str
    _units: npt.NDArray[np.float64]  # (D,), as of `units_of`
    _projection: Projection
    _low: npt.NDArray[np.float64]  # (2,) corner of the square, in the projection's own units
    _scale: float

    def place(self, mu: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return where latents (M, D) lie in the view, (M, 2); it may be outside the square."""
        return self._shown(self._projection.place(mu / self._units))

    def _shown(self, coordinates: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        return _shown(coordinates, self._low, self._scale)


def atlas_of(collection: Collection, method: Method, *, seed: int) -> Atlas:
    """Project known images, in the units of `units_of`; errors as of `projected`."""
    units = units_of(collection.mu, collection.log_var)
    projection = projected(collection.mu / units, method, seed=seed)
    low = projection.coordinates.min(0)
    scale = SIDE / max(float(np.ptp(projection.coordinates, axis=0).max()), 1e-12)
    return Atlas(
        names=collection.names,
        known=_shown(projection.coordinates, low, scale),
        title=f"{method.upper()} of {collection.source}",
        _units=units,
        _projection=projection,
        _low=low,
        _scale=scale,
    )


def _shown(
    coordinates: npt.NDArray[np.float64], low: npt.NDArray[np.float64], scale: float
) -> npt.NDArray[np.float32]:
    """Return places in the view: as in the picture of the map, upwards is less."""
    found = (coordinates - low) * scale
    found[:, 1] = SIDE - found[:, 1]
    return found.astype(np.float32)
