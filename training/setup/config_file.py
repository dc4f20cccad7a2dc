"""Options of a run in a YAML or JSON file, in and out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.documents import bytes_of_file, json_from_file
from ...runtime.core.errors import ConfigError, OutputError, needed_for
from ...runtime.core.text import printable
from ..options import TrainOptions

_YAML = (".yaml", ".yml")
_MOST_BYTES = 1 << 20
_AGAIN = "give a file of options by their names, as --write-config writes"
_COMMAND_LINE = ("config", "write_config", "resume", "finish")
"""What only a command line says."""
_OF_ONE_RUN = ("name", *_COMMAND_LINE)
"""What another run is not given of a run's own `config.json`."""


def options_in_file(path: Path) -> dict[str, Any]:
    """Return the options that a file names, each as `TrainOptions` has it.

    A YAML file is read by its type: `no` is a text where an option is one, and `1e-4` a number. A
    run's own `config.json` gives all of its options but its name.

    Raises:
        ConfigError: It cannot be read, or a key or a value is none of an option.
    """
    if path.suffix in _YAML:
        content = _yaml_from_file(path)
    elif path.suffix == ".json":
        content = json_from_file(path, error=ConfigError, again=_AGAIN, most_bytes=_MOST_BYTES)
        if isinstance(content, dict) and {"schema_version", "options"} <= content.keys():
            options = content["options"]
            if isinstance(options, dict):
                # A run of an earlier version lacks those that came later, and had their defaults:
                # its recipe may have others by now.
                every = _values_of(TrainOptions()) | options
                content = {name: every[name] for name in every if name not in _OF_ONE_RUN}
    else:
        raise ConfigError(f"--config {path}: name it .yaml, .yml or .json, as what is in it")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no names of options: {_AGAIN}")
    given: dict[str, Any] = {}
    for key, value in content.items():
        name = _name_of(path, str(key))
        if name in given:
            raise ConfigError(f"{path}: {name} stands there twice: leave one of them out")
        given[name] = [value] if name in _lists() and not isinstance(value, list) else value
    try:
        checked = TypeAdapter(TrainOptions).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what, value = first["msg"].replace("Input should be", "it should be"), first["input"]
        shown = printable(str(value)[:80])
        raise ConfigError(f"{path}: {first['loc'][0]}={shown}: {what}") from error
    return {name: getattr(checked, name) for name in given}


def text_of_options(options: TrainOptions, *, yaml: bool) -> str:
    """Return all options as a file that `options_in_file` reads, in the groups that help has."""
    values = _values_of(options)
    shown = {name: value for name, value in values.items() if name not in _COMMAND_LINE}
    if not yaml:
        return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
    with needed_for("YAML files", extra="train", package="PyYAML"):
        from yaml import safe_dump  # noqa: PLC0415  # comes with training

    grouped = {name: title for title, names in TrainOptions.GROUPS.items() for name in names}
    parts = []
    for title in ("", *TrainOptions.GROUPS):
        own = {name: value for name, value in shown.items() if grouped.get(name, "") == title}
        text = safe_dump(own, sort_keys=False, allow_unicode=True)
        parts.append(f"# {title}\n{text}" if title else text)
    return "\n".join(parts)


def write_options(options: TrainOptions, path: Path) -> None:
    """Write options to a new file; with `-` for its path, as YAML to standard output.

    Raises:
        ConfigError: Its name does not say what it is to be.
        OutputError: It exists, or cannot be written.
    """
    if str(path) == "-":
        print(text_of_options(options, yaml=True), end="")
        return
    if path.suffix not in {*_YAML, ".json"}:
        raise ConfigError(f"--write-config {path}: name it .yaml, .yml or .json, or - to print it")
    if path.exists():
        raise OutputError(f"{path} exists: name another file, or remove it")
    with replaced_file(path) as temporary:
        text = text_of_options(options, yaml=path.suffix in _YAML)
        temporary.write_text(text, encoding="utf-8")


def _values_of(options: TrainOptions) -> dict[str, Any]:
    """Return options as JSON has them."""
    values: dict[str, Any] = TypeAdapter(TrainOptions).dump_python(options, mode="json")
    return values


def _yaml_from_file(path: Path) -> Any:
    """Read YAML of one meaning: no tags, no aliases, no key twice; all values but null are text."""
    with needed_for("YAML files", extra="train", package="PyYAML", instead="give a .json file"):
        from yaml import YAMLError  # noqa: PLC0415  # comes with training

        from .plain_yaml import content_of  # noqa: PLC0415  # as above
    data = bytes_of_file(path, most_bytes=_MOST_BYTES, error=ConfigError, again=_AGAIN)
    try:
        return content_of(data)
    except (YAMLError, UnicodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError(f"{path}{where}: {what}: {_AGAIN}") from error


def _name_of(path: Path, key: str) -> str:
    """Return the option that a key names, written as on a command line or in Python."""
    names = {one.name for one in fields(TrainOptions)}
    name = key.strip().removeprefix("--").replace("-", "_")
    if name in _COMMAND_LINE:
        raise ConfigError(f"{path}: {name} is for the command line: leave it out of the file")
    if name in names:
        return name
    others = dict(_aliases())
    near = others.get(name) or next(iter(difflib.get_close_matches(name, names, 1, 0.0)))
    raise ConfigError(f"{path}: {printable(key[:80])}: no such option, the nearest is {near}")


def _aliases() -> Iterator[tuple[str, str]]:
    for name, hint in get_type_hints(TrainOptions, include_extras=True).items():
        for one in getattr(hint, "__metadata__", ()):
            for alias in getattr(one, "aliases", None) or ():
                yield alias.removeprefix("--").replace("-", "_"), name


@cache
def _lists() -> Mapping[str, object]:
    """Return the options of any number of values, of which a file may give one alone."""
    hints = get_type_hints(TrainOptions)
    return {
        name: hint
        for name, hint in hints.items()
        if get_origin(hint) is tuple and Ellipsis in get_args(hint)
    }
