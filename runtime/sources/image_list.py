"""Which pictures a folder or a pattern names, in their order, and what was not taken and why."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import SourceError, sentence_list
from ..pixels.files.image_kinds import COMMON_SUFFIXES, IMAGE_SUFFIXES, kind_of_file

_LITTER = {
    *(".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".nomedia", ".directory"),
    *("@eadir", "__macosx", ".appledouble", ".thumbnails", ".trashes"),
}
_LITTER_WORDS = "known litter (._*, Thumbs.db and the like)"
_HIDDEN_WORDS = "hidden"
LEFT_OUT = frozenset((_LITTER_WORDS, _HIDDEN_WORDS))
"""What files and folders are passed over as because of their names."""
_LINK_WORDS = "link to a folder that is taken anyway or lies above"
_MOST_SUFFIXES = 4


@dataclass(frozen=True, slots=True)
class ImageList:
    """Pictures in natural order below a root, and one line on what was not taken, or none."""

    root: Path
    paths: tuple[Path, ...]
    remark: str = ""  # such as "3 not taken: 2 hidden, 1 other file (.txt)"


Identity = tuple[int, int]


@dataclass(slots=True)
class _Queue:
    """Folders to enter: real ones first, so that no link takes their place; each of them once.

    No link is followed to what lies `above`. Where the `root` cannot be read, nothing can.
    """

    above: set[Identity]
    visited: set[Identity] = field(default_factory=set)
    root: Path | None = None
    real: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)

    def add(self, folder: Path, *, is_link: bool) -> None:
        """Add a folder, to be entered next of its kind."""
        (self.links if is_link else self.real).append(folder)


@dataclass(slots=True)
class _Search:
    """A walk through folders, each once however many links lead to it."""

    found: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    example: str = ""
    unreadable: list[str] = field(default_factory=list)
    visited: set[Identity] = field(default_factory=set)
    links: set[Path] = field(default_factory=set)  # that are not followed

    def walk(self, folders: Iterable[Path], root: Path) -> None:
        """Take what is below folders; no link is followed to the root or above it."""
        above = {_identity(one) for one in (root, *root.resolve().parents) if one.exists()}
        queue = _Queue(above, self.visited, root)
        for folder in folders:
            queue.add(folder, is_link=folder.is_symlink() and folder != root)
        for _, entries in self._entered(queue):
            for entry in entries:
                path = Path(entry.path)
                if self._is_left_out(entry.name):
                    continue
                if _is_folder(entry):
                    queue.add(path, is_link=entry.is_symlink())
                else:
                    self.take(path)

    def _entered(self, queue: _Queue) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
        """Yield each folder of a queue with its entries, by name from the last to the first."""
        while queue.real or queue.links:
            is_link = not queue.real
            folder = (queue.real or queue.links).pop()
            try:
                identity = _identity(folder)
                if identity in queue.visited or (is_link and identity in queue.above):
                    self.links.add(folder)
                    continue
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
            except OSError as error:
                if folder == queue.root:
                    raise SourceError(f"cannot read folder {folder}: {error.strerror}") from error
                self.unreadable.append(folder.name)
                continue
            queue.visited.add(identity)
            yield folder, entries

    def matches(self, pattern: Path) -> list[Path]:
        """Find what a pattern names, `**` in folders that `walk` would enter, each once.

        Python's own `**` goes through a link that leads upwards 40 times, and through two of them
        in all orders.
        """
        parts = pattern.parts
        if "**" not in parts:
            return list(map(Path, glob.glob(str(pattern))))  # noqa: PTH207  # of files, too
        at = parts.index("**")
        tops = [path for path in self.matches(Path(*parts[:at])) if path.is_dir()]
        if not (rest := parts[at + 1 :]):
            inside = (self.matches(Path(glob.escape(str(top)), "*")) for top in tops)
            return tops + [path for paths in inside for path in paths]
        folders = (folder for top in tops for folder in self._folders_below(top))
        return [
            path
            for folder in folders
            for path in self.matches(Path(glob.escape(str(folder)), *rest))
        ]

    def _folders_below(self, top: Path) -> list[Path]:
        queue, found = _Queue({_identity(one) for one in top.resolve().parents}), list[Path]()
        queue.add(top, is_link=False)
        for folder, entries in self._entered(queue):
            found.append(folder)
            for entry in entries:
                if not entry.name.startswith(".") and _is_folder(entry):
                    queue.add(Path(entry.path), is_link=entry.is_symlink())
        return found

    def in_order(self, root: Path) -> Iterator[Path]:
        """Yield what is below a folder as it is found: by natural order in each folder.

        What links lead to comes last. No more is kept than the entries of the folders that are
        open, however many pictures there are.
        """
        above = {_identity(one) for one in (root, *root.resolve().parents) if one.exists()}
        links = [root]
        while links:
            is_link = links[-1] != root
            queue = _Queue(above if is_link else set(), self.visited, root)
            queue.add(links.pop(), is_link=is_link)
            stack = [self._sorted(queue)]
            while stack:
                if (entry := next(stack[-1], None)) is None:
                    stack.pop()
                    continue
                path = Path(entry.path)
                if self._is_left_out(entry.name):
                    continue
                if not _is_folder(entry):
                    if self.is_taken(path):
                        yield path
                elif entry.is_symlink():
                    links.insert(0, path)
                else:
                    queue = _Queue(set(), self.visited, root)
                    queue.add(path, is_link=False)
                    stack.append(self._sorted(queue))

    def _sorted(self, queue: _Queue) -> Iterator[os.DirEntry[str]]:
        """Yield the entries of the one folder in a queue, in natural order."""
        for _, entries in self._entered(queue):
            yield from sorted(entries, key=lambda entry: natural_key(entry.name))

    def _is_left_out(self, name: str) -> bool:
        """Count what is passed over because of its name."""
        if not (words := why_left_out(name)):
            return False
        self.left_out[words] += 1
        return True

    def take(self, path: Path) -> None:
        """Take a file that is named or shaped like a picture, or count it."""
        if self.is_taken(path):
            self.found.append(path)

    def is_taken(self, path: Path) -> bool:
        """Whether a file is named or shaped like a picture; what is not is counted."""
        try:
            is_link, is_file = path.is_symlink(), path.is_file()
        except OSError:
            is_link = is_file = False
        if not is_file:
            self.left_out["link to nothing" if is_link else "neither file nor folder"] += 1
        elif path.suffix.lower() in IMAGE_SUFFIXES or self._looks_like_one(path):
            return True
        else:
            self.others[path.suffix.lower() or "no suffix"] += 1
            self.example = self.example or path.name
        return False

    def remark(self) -> str:
        """Count what was not taken, with the reasons, in one line."""
        left_out = self.left_out + Counter({_LINK_WORDS: len(self.links)})
        parts = [f"{count} {what}" for what, count in left_out.items()]
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} unreadable ({self.unreadable[0]})")
        if self.others:
            common = [suffix for suffix, _ in self.others.most_common(_MOST_SUFFIXES)]
            more = ", ..." if len(self.others) > _MOST_SUFFIXES else ""
            parts.append(f"{self.others.total()} no picture ({', '.join(common)}{more})")
        count = left_out.total() + len(self.unreadable) + self.others.total()
        return f"{count} not taken: {', '.join(parts)}" if count else ""

    @staticmethod
    def _looks_like_one(path: Path) -> bool:
        try:
            return kind_of_file(path) is not None
        except OSError:
            return False


def images_in(folder: Path) -> ImageList:
    """List every picture below a folder; SourceError where there is none or it cannot be read.

    Links are followed, each folder is taken once, and hidden ones are left out.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder: name an existing folder of images")
    search = _Search()
    search.walk([folder], folder)
    if not search.found:
        counted = f" ({search.remark()})" if search.remark() else ""
        raise SourceError(
            f"no image in {folder}{counted}: put files there such as "
            f"{sentence_list(COMMON_SUFFIXES)}"
        )
    return ImageList(folder, tuple(in_natural_order(search.found, folder)), search.remark())


def images_matching(pattern: Path, name: str) -> ImageList | Path:
    """List what a pattern names, as if it were in a folder; the path where it is one thing only.

    SourceError where nothing matches, or none of it is a picture; `name` is what to call it.
    """
    search = _Search()
    matched = sorted(set(search.matches(pattern)))
    if not matched:
        raise SourceError(f"nothing matches {name}: check the pattern, and put it in quotes")
    if len(matched) == 1:
        return matched[0]
    root = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    folders = {path for path in matched if path.is_dir()}
    files, named = list[Path](), list[Path]()
    for path in matched:
        if not folders.isdisjoint(path.parents):  # it comes with the folder
            continue
        if any(map(_is_litter, path.relative_to(root).parts)):
            search.left_out[_LITTER_WORDS] += 1
        else:
            (named if path in folders else files).append(path)
    for path in files:
        search.take(path)
    search.walk(named, root)
    if not search.found:
        raise SourceError(
            f"{name} matches {len(matched)} files that are not all images, such as "
            f"{search.example or matched[0].name}: narrow the pattern, or give each video its own "
            "--camera"
        )
    return ImageList(root, tuple(in_natural_order(search.found, root)), search.remark())


def in_natural_order(paths: Iterable[Path], root: Path) -> list[Path]:
    """Sort files below a folder so that frame2 comes before frame10."""
    return sorted(paths, key=lambda path: natural_key(path.relative_to(root).as_posix()))


class LazyImageList:
    """Pictures below a folder, one after another, without a list of them.

    The order is the natural one in each folder, and the same each time as long as nothing
    changes. `remark` says in the end what was not taken, as that of an `ImageList`.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"{folder} is not a folder: name an existing folder of images")
        self._folder, self._search = folder, _Search()

    def __iter__(self) -> Iterator[Path]:
        self._search = _Search()
        return self._search.in_order(self._folder)

    @property
    def remark(self) -> str:
        """Count what was not taken by the last iteration so far, in one line; or nothing."""
        return self._search.remark()


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return what names are sorted by so that frame2 comes before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), part) if part.isdecimal() else (-1, part.lower()) for part in parts]


def why_left_out(name: str) -> str:
    """Return what a file or folder of this name is passed over as, of `LEFT_OUT`; or ""."""
    if _is_litter(name):
        return _LITTER_WORDS
    return _HIDDEN_WORDS if name.startswith(".") else ""


def _is_litter(name: str) -> bool:
    return name.startswith("._") or name.lower() in _LITTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino
