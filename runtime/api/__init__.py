"""motorVAE in one screen: load a bundle, encode, decode, stream, export and verify.

    import motorvae as mv

    bundle = mv.load("bundle")
    with bundle.encoder(precision="fp16") as encode:
        latent = encode("car.jpg")
    with bundle.decoder() as decode:
        image = decode(latent.mu)
    for row in mv.stream(bundle, "0", max_age_ms=50):
        print(row.index, row.age_ms, row.mu)

Nothing is loaded before its first use.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

TYPE_CHECKING = False  # as type checkers know it; loading typing would be most of the import
if TYPE_CHECKING:
    from typing import Any

    from . import explore, hub
    from .export.compare.result import VerifyResult
    from .functions import encode, export, import_weights, stream, verify
    from .models import Bundle, Decoder, Encoder, Image, Latent, Latents, load
    from .runtime.bulk.encoded import Encoded
    from .runtime.core.errors import MotorVAEError
    from .runtime.core.row import Row
    from .runtime.stream.run import Stream

    __version__: str

__all__ = (
    "Bundle",
    "Decoder",
    "Encoded",
    "Encoder",
    "Image",
    "Latent",
    "Latents",
    "MotorVAEError",
    "Row",
    "Stream",
    "VerifyResult",
    "__version__",
    "encode",
    "explore",
    "export",
    "hub",
    "import_weights",
    "load",
    "stream",
    "verify",
)

_MODULES = {
    "Encoded": ".runtime.bulk.encoded",
    "MotorVAEError": ".runtime.core.errors",
    "Row": ".runtime.core.row",
    "Stream": ".runtime.stream.run",
    "VerifyResult": ".export.compare.result",
    "encode": ".functions",
    "explore": ".explore",
    "export": ".export",
    "hub": ".hub",
    "import_weights": ".functions",
    "stream": ".functions",
    "verify": ".functions",
}
"""Where a name is defined, other than in `.models`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from .runtime.core.packages import own_version  # noqa: PLC0415  # no work at import

        value: Any = own_version()
    else:
        module = importlib.import_module(_MODULES.get(name, ".models"), __name__)
        value = module if name in {"explore", "export", "hub"} else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Exporter(ModuleType):
    """The package `motorvae.export`, which can be called as `motorvae.functions.export`."""

    def __call__(self, *args: Any, **options: Any) -> Bundle:
        bundle: Bundle = self._function()(*args, **options)
        return bundle

    @property
    def __signature__(self) -> Any:
        from .export.options import ExportOptions  # noqa: PLC0415  # no work at import
        from .keywords import ExportKeywords, spelled_out  # noqa: PLC0415  # as above

        return vars(spelled_out(ExportKeywords, ExportOptions)(self._function()))["__signature__"]

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return f"export{self.__signature__}\n\n{self._function().__doc__}"

    @staticmethod
    def _function() -> Any:
        from .functions import export  # noqa: PLC0415  # no work at import

        return export


class _Package(ModuleType):
    """This package: `motorvae.export` is a folder of it and a function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "export" and isinstance(value, ModuleType):  # by the import of that folder
            value.__class__ = _Exporter
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
