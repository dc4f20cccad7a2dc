"""motorVAE in one screen: load a bundle, encode, decode, stream and export.

    import motorvae as mv

    bundle = mv.load("bundle")
    with bundle.encoder(precision="fp16") as encode:
        latent = encode("car.jpg")
    with bundle.decoder() as decode:
        image = decode(latent.mu)

Nothing is loaded before its first use: `import motorvae` costs about a millisecond.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import Bundle, Decoder, Encoder, Image, Latent, Latents, load
    from .runtime.core.errors import MotorVAEError

    __version__: str

__all__ = (
    "Bundle",
    "Decoder",
    "Encoder",
    "Image",
    "Latent",
    "Latents",
    "MotorVAEError",
    "__version__",
    "load",
)

_MODULES = {"MotorVAEError": ".runtime.core.errors"}
"""Where a name is defined, other than in `.models`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        value: Any = _version()
    else:
        value = getattr(importlib.import_module(_MODULES.get(name, ".models"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from .runtime.core.packages import own_version  # noqa: PLC0415  # no work at import

    return own_version()
