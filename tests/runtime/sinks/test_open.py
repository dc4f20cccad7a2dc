from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motorvae.runtime.core.errors import ConfigError, MissingDependencyError, OutputError
from motorvae.runtime.core.row import COLUMNS, Row, RunFacts
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sinks.base import address_of
from motorvae.runtime.sinks.open import check_output, check_view, open_sink

DOCS = Path(__file__).parents[3] / "docs"
TEXT = (DOCS / "sinks.md").read_text(encoding="utf-8")
FACTS = RunFacts(
    model=ModelSpec(image_size=32, latent_size=4),
    cameras=("front", "rear"),
    weights_sha256="ab" * 32,
    backend="onnxruntime cpu",
    lossless=True,
)
FILES = ["latents.jsonl", "latents.csv", "latents.npz", "latents.parquet", "latents.mcap"]


def rows_of_a_run() -> list[Row]:
    mu = np.array([0.1, -2.5, 3e-9, 4], np.float32)
    return [
        Row(0, 1_700_000_000_000_000_001, 4.25, 0, "ok", mu, "front", duplicate=False),
        Row(0, 1_700_000_000_000_000_002, None, 2, "lost", camera="rear", reason="unplugged"),
        Row(1, 1_700_000_000_000_000_003, 5.5, 0, "ok", mu * 2, "front"),
        Row(3, 1_700_000_000_000_000_004, None, 0, "end", summary={"rows": 3}),
    ]


@pytest.mark.parametrize("name", FILES)
def test_each_file_takes_a_run_in_a_folder_made_for_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    with open_sink(str(path), FACTS) as sink:
        for row in rows_of_a_run():
            sink.write(row)
            sink.flush()
        assert (sink.name, sink.rows, sink.set_aside_as) == (str(path), 4, None)
    sink.close()
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", FILES)
def test_a_name_that_is_no_utf8_is_an_output_like_any_other(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"caf\udce9-{name}"
    with open_sink(str(path), FACTS) as sink:
        *rows, last = rows_of_a_run()
        for row in rows:
            sink.write(row)
        # As a run's last row does, which says what each output has taken.
        sink.write(replace(last, summary={"sinks": [{"name": sink.name}]}))
    assert sink.name.endswith(f"caf\\udce9-{name}")
    assert path.exists()


def test_a_recording_that_rerun_could_not_write_is_refused_before_the_run(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    with pytest.raises(OutputError, match="is no UTF-8, and Rerun takes no other names"):
        check_view([str(tmp_path / "caf\udce9.rrd")])


@pytest.mark.parametrize("name", FILES)
def test_an_earlier_output_is_kept_under_a_number(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("earlier")
    with open_sink(str(path), FACTS) as sink:
        kept = path.with_name(f"latents.1{path.suffix}")
        assert sink.set_aside_as == kept
        assert kept.read_text() == "earlier"
    assert sorted(tmp_path.iterdir()) == sorted([path, kept])


@pytest.mark.parametrize("name", ["latents.json", "latents", "latents.txt", "", ".jsonl"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    output = str(tmp_path / name) if name else ""
    for function in (check_output, lambda output: open_sink(output, FACTS)):
        with pytest.raises(ConfigError) as caught:
            function(output)
        assert str(caught.value) == (
            f"output={output!r}: name a file ending in .jsonl, .csv, .npz, .parquet or .mcap, "
            "an address zmq://HOST:PORT or udp://HOST:PORT, or - for stdout"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "output",
    [
        "http://user:secret@host/rows.jsonl?key=secret",
        "zmq://user:secret@host:5556",
        "udp://secret@host:5005",
        "zmq://host:5556/?key=secret",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(output: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_output(output)
    assert "secret" not in str(caught.value)
    assert output.partition("://")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("output", "address"),
    [
        ("zmq://:5556", ("127.0.0.1", 5556)),
        ("udp://0.0.0.0:65535", ("0.0.0.0", 65535)),  # noqa: S104  # only parsed
        ("udp://robot-2.local:5005", ("robot-2.local", 5005)),
        ("zmq://[::1]:5556", ("::1", 5556)),
    ],
)
def test_an_address_without_a_host_is_this_machine(output: str, address: tuple[str, int]) -> None:
    assert address_of(output) == address
    check_output(output)


@pytest.mark.parametrize(
    "output",
    ["udp://", "udp://host", "zmq://:65536", "zmq://host:port", "udp://a:b:5", "udp://:5/"],
)
def test_what_is_no_address_is_quoted(output: str) -> None:
    scheme = output[:3]
    with pytest.raises(ConfigError, match=f"output='{output}': write {scheme}://HOST:PORT, or"):
        check_output(output)


@pytest.mark.parametrize(
    ("output", "module"),
    [("a.csv", "text_lines"), ("a.npz", "npz"), ("udp://:5005", "udp")],
)
def test_a_failing_import_of_a_sink_without_an_extra_is_raised_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, module: str
) -> None:
    name = f"motorvae.runtime.sinks.{module}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        check_output(output)
    assert caught.value.name == name
    assert not isinstance(caught.value, MissingDependencyError)


@pytest.mark.parametrize(
    ("output", "package", "extra"),
    [
        ("latents.parquet", "pyarrow", "parquet"),
        ("latents.mcap", "mcap", "mcap"),
        ("zmq://:5556", "pyzmq", "zmq"),
    ],
)
def test_a_missing_package_is_said_before_anything_is_opened(
    tmp_path: Path, python: Callable[..., Any], output: str, package: str, extra: str
) -> None:
    module = {"pyzmq": "zmq"}.get(package, package)
    done = python(
        "import sys\n"
        "sys.modules[sys.argv[1]] = None\n"
        "from motorvae.runtime.sinks.open import check_output\n"
        "from motorvae.runtime.core.errors import MissingDependencyError\n"
        "try: check_output(sys.argv[2])\n"
        "except MissingDependencyError as error: print(error)\n",
        module,
        output,
        cwd=tmp_path,
    )
    kind = "zmq" if extra == "zmq" else Path(output).suffix
    assert done.stdout == (
        f"--output {kind} needs the package {package}, which is not installed: "
        f"pip install 'motorvae[{extra}]', or choose a file ending in .jsonl\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert issubclass(MissingDependencyError, ImportError)


@pytest.mark.parametrize("name", [name for name in FILES if name != "latents.parquet"])
def test_a_folder_is_refused_and_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    for function in (check_output, lambda output: open_sink(output, FACTS)):
        with pytest.raises(OutputError, match="exists and is not a file"):
            function(str(path))
    assert path.is_dir()


@pytest.mark.parametrize("name", FILES)
def test_a_place_below_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    for function in (check_output, lambda output: open_sink(output, FACTS)):
        with pytest.raises(OutputError, match=rf"cannot write .*file/{name}: Not a dir"):
            function(str(tmp_path / "file" / name))


@pytest.mark.parametrize("output", ["-", *(f"deep/{name}" for name in FILES), "zmq://:0"])
def test_checking_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    check_output(output)
    assert list(tmp_path.iterdir()) == []


# The documentation


def snippets() -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if "latents." in block]


@pytest.mark.parametrize(
    "snippet", snippets(), ids=lambda text: re.findall(r"latents\.\w+", text)[0]
)
def test_each_snippet_reads_the_latents_of_the_ok_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snippet: str
) -> None:
    (name,) = set(re.findall(r"latents\.\w+", snippet))
    monkeypatch.chdir(tmp_path)
    with open_sink(name, FACTS) as sink:
        for row in rows_of_a_run():
            sink.write(row)
    names: dict[str, Any] = {}
    exec(snippet, names)  # noqa: S102  # that the documentation runs is the test
    expected = [row.mu for row in rows_of_a_run() if row.mu is not None]
    assert names["mu"].dtype == np.float32
    assert np.array_equal(names["mu"], expected)


def test_every_kind_of_file_but_json_lines_has_a_snippet() -> None:
    found = {name for text in snippets() for name in re.findall(r"latents\.\w+", text)}
    assert found == set(FILES) - {"latents.jsonl"}


def test_the_subscriber_in_the_documentation_is_the_one_that_is_tested() -> None:
    example = (DOCS / "examples" / "zmq_subscriber.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```" in TEXT
    assert example.count("\n") <= 20


def test_every_output_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `([^`]+)`", TEXT, re.MULTILINE)) == {
        "-",
        *FILES,
        "zmq://:5556",
        "udp://:5005",
    }
    assert set(COLUMNS) >= {"unwritten", "duplicate", "is_ood"}  # named in the text
