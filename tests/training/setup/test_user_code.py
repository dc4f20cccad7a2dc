from __future__ import annotations

import sys
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import ConfigError, OutputError, UserCodeError
from motorvae.training.setup.user_code import called, guard, object_from_name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_user.py").write_text(
        "value = 3\ndef make(): return 4\ndef fails(): raise KeyError('no\\nsuch')\n"
    )
    (tmp_path / "broken_user.py").write_text("import nothing_of_this_name\n")
    monkeypatch.delitem(sys.modules, "of_user", raising=False)


def test_a_name_is_imported_from_the_current_folder(tmp_path: Path) -> None:
    make = object_from_name("--x", "of_user:make")
    assert called("--x", "of_user:make", make) == 4
    assert str(tmp_path) not in sys.path
    assert object_from_name("--x", "pathlib:Path") is Path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("of_user", "--x of_user: write it as package.module:factory"),
        ("of_user:", "write it as package.module:factory"),
        ("of_user:none", "of_user has no none: name what is in it"),
        ("of_user:value", "value cannot be called: name a function"),
        ("of_user:fails", "--x of_user:fails failed: KeyError: "),
        ("broken_user:x", "importing broken_user: ModuleNotFoundError: No module named 'nothing_"),
    ],
)
def test_what_cannot_be_had_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        called("--x", text, object_from_name("--x", text))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Plain:
    def left(self) -> int:
        raise ValueError("ours")

    def hook(self) -> int:
        return 0


class Theirs(Plain):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def hook(self) -> int:
        raise self.error


def test_only_what_the_user_wrote_is_guarded() -> None:
    one = Theirs(ZeroDivisionError("division by zero"))
    guard(one, "--callback a:b", ("hook", "left"), Plain)
    with pytest.raises(UserCodeError) as failure:
        one.hook()
    line = "--callback a:b failed in hook: ZeroDivisionError: division by zero; mend it"
    assert str(failure.value) == line
    with pytest.raises(ValueError, match="ours"):
        one.left()
    for passes in (KeyboardInterrupt(), OutputError("the disk is full")):
        other = Theirs(passes)
        guard(other, "--callback a:b", ("hook",), Plain)
        with pytest.raises(type(passes)):
            other.hook()
