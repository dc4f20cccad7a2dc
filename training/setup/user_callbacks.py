"""Callbacks of the user's: made by the factories that `--callback` names."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch.callbacks import Callback

from ...runtime.core.errors import ConfigError
from .user_code import called, guard, object_from_name

_HOOKS = tuple(
    name for name in dir(Callback) if not name.startswith("_") and callable(getattr(Callback, name))
)


def callbacks_from_names(names: Sequence[str]) -> list[Callback]:
    """Call each MODULE:FACTORY, in the order in which they are given.

    A hook that fails in training raises a UserCodeError that names it. A ConfigError says what
    cannot be imported or called, or gives no Callback of Lightning's.
    """
    made = []
    for text in names:
        one = called("--callback", text, object_from_name("--callback", text))
        if not isinstance(one, Callback):
            raise ConfigError(
                f"--callback {text} gives a {type(one).__name__}: let it give a "
                "lightning.pytorch.Callback"
            )
        guard(one, f"--callback {text}", _HOOKS, Callback)
        made.append(one)
    keys = [one.state_key for one in made]
    if twice := [text for text, key in zip(names, keys, strict=True) if keys.count(key) > 1]:
        raise ConfigError(
            f"--callback {twice[0]} and {twice[1]} would keep their states under the same name: "
            "give one of them a state_key of its own"
        )
    return made
