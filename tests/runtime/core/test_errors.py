from __future__ import annotations

import inspect

import pytest

from motorvae.runtime.core import errors


def classes() -> list[type[errors.MotorVAEError]]:
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass)]
    return [value for value in found if issubclass(value, errors.MotorVAEError)]


def test_the_drawn_tree_is_the_real_one() -> None:
    for found in classes():
        assert found.__name__ in str(errors.__doc__)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.ConfigError, ValueError),
        (errors.MissingDependencyError, ImportError),
        (errors.CameraError, OSError),
        (errors.BundleError, ValueError),
        (errors.ProviderError, RuntimeError),
        (errors.OutputError, OSError),
    ],
)
def test_a_caller_may_catch_the_builtin(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)
    assert str(error("one line")) == "one line"


def test_a_missing_package_comes_with_the_command_and_the_way_round() -> None:
    error = errors.missing_dependency("training", "torch", extra="train", instead="train elsewhere")
    assert str(error) == (
        "training needs the package torch, which is not installed: "
        "pip install 'motorvae[train]', or train elsewhere"
    )
