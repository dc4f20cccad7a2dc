"""README and documentation: sizes, links, names, and lists that must agree with the source."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from motorvae.runtime.bundle.manifest import Manifest
from motorvae.runtime.core.row import ALWAYS, COLUMNS

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("runtime", "training", "export", "benchmarks")
REPOSITORY = "https://github.com/motorvae/motorvae/"
RAW = "https://raw.githubusercontent.com/motorvae/motorvae/main/"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TEXTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.glob("*.md")),
]
LINK = re.compile(r"\]\(([^()\s]+)\)")
PRIVATE = re.compile(
    r"\b(shots?|outlets?|tally|wish(es)?|flavou?rs?|passports?|familiar(ity)?|foreign|contenders?"
    r"|receipts?|yardstick|same bytes|telling nobody)\b",
    re.IGNORECASE,
)
"""Words of a private vocabulary that a stranger would have to learn."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_like(pattern: str, path: Path) -> list[str]:
    """Return what a pattern, in which ^ is the begin of a line, captures in a file."""
    found: list[str] = re.findall(pattern, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found


def prose(path: Path) -> str:
    """Return a page without its fenced code, where a # starts no heading."""
    return re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def first_column(page: str, heading: str) -> list[str]:
    """Return the cells in the first column of the table below a heading, without the header."""
    text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    rows = re.findall(r"^\|(?:[^|\n]*\|)+$", text.partition("\n## ")[0], flags=re.MULTILINE)
    return [row.split("|")[1].strip() for row in rows[2:]]


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8000


def test_the_readme_links_where_a_package_index_shows_it() -> None:
    links = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_to_what_is_there(page: Path) -> None:
    wrong = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if target.startswith(RAW):
            path = ROOT / target.removeprefix(RAW)
        elif target.startswith((REPOSITORY + "blob/main/", REPOSITORY + "tree/main/")):
            path = ROOT / target.removeprefix(REPOSITORY).partition("main/")[2]
        elif "://" in target:
            continue
        else:
            path = page.parent / target if target else page
        found = path.exists() and (not anchor or anchor in anchors(path))
        if not found:
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_no_private_words_are_left(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [match.group() for match in PRIVATE.finditer(text)] == []


def test_paths_in_the_text_are_there() -> None:
    """Every `folder/file.py` or `folder/file.md` between backticks."""
    wrong = []
    for page in TEXTS:
        for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|md|json|png))", prose(page)):
            is_output = path.startswith(("demo/", "runs/", "bundle/"))
            if not is_output and not any((base / path).exists() for base in (ROOT, DOCS)):
                wrong.append(f"{name_of(page)}: {path}")
    assert wrong == []


def test_the_architecture_names_every_sub_package() -> None:
    named = lines_like(r"^\| `([\w/]+)` \|", DOCS / "architecture.md")
    on_disk = [
        name_of(folder)
        for package in PACKAGES
        for folder in (ROOT / package).iterdir()
        if (folder / "__init__.py").is_file()
    ]
    assert sorted(named) == sorted(on_disk)


def test_rows_explains_every_key() -> None:
    text = (DOCS / "rows.md").read_text(encoding="utf-8").partition("\n| key |")[2]
    keys = {*COLUMNS, *ALWAYS, "summary", "schema"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []


def test_bundle_explains_every_key_of_the_manifest() -> None:
    explained = " ".join(first_column("bundle.md", "## The manifest"))
    assert set(re.findall(r"`(\w+)`", explained)) == set(Manifest.model_fields)


def test_install_lists_every_extra() -> None:
    listed = re.findall(r"`([\w-]+)`", " ".join(first_column("install.md", "## Extras")))
    assert sorted(listed) == sorted(PROJECT["optional-dependencies"])


def test_jetson_lists_what_the_runtime_requires() -> None:
    listed = lines_like(r"^\| base \| ([^|]+) \|", DOCS / "jetson.md")
    assert sorted(listed) == sorted(PROJECT["dependencies"])


def test_one_version_everywhere() -> None:
    newest = lines_like(r"^## (\d[\w.]*)", ROOT / "CHANGELOG.md")[0]
    (cited,) = lines_like(r"^version: (\S+)$", ROOT / "CITATION.cff")
    assert (newest, cited) == (PROJECT["version"], PROJECT["version"])
