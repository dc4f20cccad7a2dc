"""Code of the user's, named as MODULE:NAME: imported, called, and its errors in one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from ...runtime.core.errors import ConfigError, MotorVAEError, UserCodeError

_LONGEST = 300


def object_from_name(option: str, text: str, what: str = "factory") -> Any:
    """Import what an option names, from the current folder too; `what` it is, for the user.

    A ConfigError where it is not written as MODULE:NAME, cannot be imported, or is not there.
    """
    package, colon, name = text.partition(":")
    if not (package and colon and name.isidentifier()):
        raise ConfigError(f"{option} {text}: write it as package.module:{what}")
    with path_of_here(), errors_of_user(f"{option} {text}: importing {package}"):
        found = getattr(importlib.import_module(package), name, None)
    if found is None:
        raise ConfigError(f"{option} {text}: {package} has no {name}: name what is in it")
    return found


def called(option: str, text: str, found: Any) -> Any:
    """Call what was imported; a ConfigError where it cannot be, or fails."""
    if not callable(found):
        name = text.partition(":")[2]
        raise ConfigError(f"{option} {text}: {name} cannot be called: name a function")
    with path_of_here(), errors_of_user(f"{option} {text} failed"):
        return found()


def guard(one: object, what: str, names: tuple[str, ...], plain: type) -> None:
    """Let these methods of an object raise UserCodeError where they fail; `plain` ones are ours.

    What stops training on purpose (Ctrl-C, our own errors of a full disk) passes.
    """
    for name in names:
        method = getattr(one, name)
        if getattr(method, "__func__", method) is not getattr(plain, name, None):
            setattr(one, name, _guarded(method, f"{what} failed in {name}"))


def _guarded(method: Callable[..., Any], what: str) -> Callable[..., Any]:
    @wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with errors_of_user(what, error=UserCodeError, fix="mend it"):
            return method(*args, **kwargs)

    return run


@contextlib.contextmanager
def path_of_here() -> Iterator[None]:
    """Let the block import from the current folder, as `python -m` does."""
    here = os.getcwd()  # noqa: PTH109  # what goes into sys.path is text
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


@contextlib.contextmanager
def errors_of_user(
    what: str, *, error: type[MotorVAEError] = ConfigError, fix: str = "try it in Python alone"
) -> Iterator[None]:
    """Turn whatever the user's code raises within the block into an error of one line."""
    try:
        yield
    except MotorVAEError:
        raise
    except Exception as cause:  # of the user's code
        kind, reason = type(cause).__name__, last_line(cause)
        raise error(f"{what}: {kind}: {reason}; {fix}") from cause


def last_line(error: BaseException | None) -> str:
    """Return the last line of an error's text, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[:_LONGEST] if lines else type(error).__name__
