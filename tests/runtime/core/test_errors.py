from __future__ import annotations

import importlib
import inspect
import pickle

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


@pytest.mark.parametrize(("package", "named"), [(None, "no-such-thing"), ("pyno", "pyno")])
def test_an_import_in_vain_names_the_package_and_its_extra(package: str | None, named: str) -> None:
    with (
        pytest.raises(errors.MissingDependencyError) as caught,
        errors.needed_for("viewing", extra="view", package=package),
    ):
        importlib.import_module("no_such_thing")
    assert str(caught.value) == (
        f"viewing needs the package {named}, which is not installed: pip install 'motorvae[view]'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("kind", sorted(classes(), key=lambda found: found.__name__))
def test_a_problem_can_be_quoted_without_what_stands_around_it(
    kind: type[errors.MotorVAEError],
) -> None:
    plain = kind("it was unplugged", fix="plug it in")
    framed = kind("it was unplugged", context="lost camera 0", fix="plug it in")
    assert str(plain) == "it was unplugged: plug it in"
    assert str(framed) == "lost camera 0: it was unplugged; plug it in"
    assert (
        str(kind("it was unplugged", context="lost camera 0")) == "lost camera 0: it was unplugged"
    )
    copy = pickle.loads(pickle.dumps(framed))  # noqa: S301  # of our own making
    for error in (plain, framed, copy):
        assert error.clause() == "it was unplugged"
        assert str(error) in {str(plain), str(framed)}


def test_a_package_is_named_as_it_is_installed() -> None:
    with (
        pytest.raises(errors.MissingDependencyError, match="package scikit-learn, which"),
        errors.needed_for("exploring", extra="explore"),
    ):
        raise ModuleNotFoundError("No module named 'sklearn.mixture'", name="sklearn.mixture")


def test_a_long_list_says_how_many_more_there_are() -> None:
    assert errors.shortened(tuple("abcdefg")) == "a, b, c, d, e and 2 more"
    assert errors.shortened("abc", 3) == "a, b, c"
    assert errors.shortened(()) == "none"
