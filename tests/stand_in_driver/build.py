"""Build the stand-in driver, and pycuda against it, on a machine without a CUDA toolkit.

    python build.py library FOLDER    libcuda.so.1 from driver.c, streams.c and generated stubs
    python build.py pycuda FOLDER     install pycuda, built from source and linked to that library

Needs a C and a C++ compiler, Python's headers, and NVIDIA's own header files, which come in two
small wheels: nvidia-cuda-runtime (cuda.h) and nvidia-cuda-profiler-api (cudaProfiler.h).
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = (HERE / "driver.c", HERE / "streams.c")
HEADERS = ("cuda.h", "cudaProfiler.h", "cudaTypedefs.h")
NOT_SUPPORTED = 801
FLAGS = ["-std=gnu11", "-O1", "-g", "-fPIC", "-Wall", "-Wextra", "-Werror"]

FUNCTION = re.compile(r"\b(cu[A-Z]\w*)\s*\(")
VERSIONED = re.compile(r"\bPFN_(cu[A-Z]\w*?)_v(\d+)\b")
ERROR = re.compile(r"^\s*(CUDA_(?:SUCCESS|ERROR_\w+))\s*=\s*(\d+)", re.MULTILINE)


def include_folder() -> Path:
    """Return where pip put NVIDIA's header files in this environment."""
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for header in Path(root).glob("cu*/include/cuda.h"):
            return header.parent
    sys.exit("cuda.h is not in this environment: pip install nvidia-cuda-runtime")


def preprocessed(include: Path, *defines: str) -> str:
    """Return the header files as a program sees them that defines `defines`."""
    source = "".join(f"#include <{name}>\n" for name in HEADERS)
    command = [compiler(), "-E", "-P", *defines, f"-I{include}", "-xc", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout


def compiler() -> str:
    """Return the C compiler's command."""
    return os.environ.get("CC", "cc")


def defined_in(objects: list[Path]) -> set[str]:
    """Return the driver's names that object files define."""
    listing = subprocess.run(
        ["nm", "--defined-only", *objects], capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r" T (cu[A-Z]\w*)$", listing, re.MULTILINE))


def stubs(include: Path, written: set[str]) -> str:
    """Return C source for every name that is not written by hand, and for look-ups by name.

    A name has a history: `cuMemAlloc` of CUDA 2.0 is the function `cuMemAlloc`, and that of 3.2
    `cuMemAlloc_v2`. cudaTypedefs.h tells the versions, cuda.h the functions, and both are in order.
    """
    internal = preprocessed(include, "-D__CUDA_API_VERSION_INTERNAL")
    public = preprocessed(include)
    functions = sorted({*FUNCTION.findall(internal), *FUNCTION.findall(public), *written})
    versions = defaultdict(set)
    for name, version in VERSIONED.findall(internal):
        versions[name].add(int(version))
    history = defaultdict(list)
    for function in functions:
        name, _, suffix = function.partition("_v")
        if suffix.isdigit() or not suffix:
            history[name].append((int(suffix or 1), function))
    lookup = []
    for name, generations in sorted(history.items()):
        known = sorted(versions[name])
        newest = [function for _, function in sorted(generations)]
        # Where the two lists differ in length, the newest correspond.
        known = [0] * (len(newest) - len(known)) + known[-len(newest) :]
        lookup += [
            f'    {{"{name}", {version}, {function}}},'
            for version, function in zip(known, newest, strict=True)
        ]
    codes = dict(ERROR.findall(public))
    words = {name: name.split("_", 2)[-1].replace("_", " ").lower() for name in codes}
    return "\n".join(
        [
            "#include <stddef.h>",
            "#include <string.h>",
            *(f"extern int {name}(void);" for name in sorted(written)),
            *(
                f"int {name}(void) {{ return {NOT_SUPPORTED}; }}"
                for name in functions
                if name not in written
            ),
            "static const struct { const char *name; int version; int (*function)(void); }",
            "lookup[] = {",
            *lookup,
            "};",
            "static const struct { int code; const char *name, *text; } errors[] = {",
            *(f'    {{{code}, "{name}", "{words[name]}"}},' for name, code in codes.items()),
            "};",
            "#define EACH(i, list) for (size_t i = 0; i < sizeof list / sizeof *list; i++)",
            "const char *stub_error_name(int code) {",
            "    EACH(i, errors) if (errors[i].code == code) return errors[i].name;",
            "    return NULL;",
            "}",
            "const char *stub_error_text(int code) {",
            "    EACH(i, errors) if (errors[i].code == code) return errors[i].text;",
            "    return NULL;",
            "}",
            "void *stub_symbol(const char *name, int version) {",
            "    void *found = NULL;",
            "    EACH(i, lookup)",
            "        if (!strcmp(lookup[i].name, name) && lookup[i].version <= version)",
            "            found = (void *)lookup[i].function;",
            "    return found;",
            "}",
            "",
        ]
    )


def build_library(folder: Path) -> None:
    """Compile the stand-in to `libcuda.so.1` in `folder`, and a link to it for linkers."""
    folder.mkdir(parents=True, exist_ok=True)
    include = include_folder()
    objects = []
    for source in SOURCES:
        objects.append(folder / f"{source.stem}.o")
        command = [compiler(), *FLAGS, f"-I{include}", "-c", source, "-o", objects[-1]]
        subprocess.run(command, check=True)
    generated = folder / "stubs.c"
    generated.write_text(stubs(include, defined_in(objects)), encoding="utf-8")
    library = folder / "libcuda.so.1"
    command = [compiler(), "-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}", *objects]
    subprocess.run([*command, generated, "-o", library, "-lpthread"], check=True)
    link = folder / "libcuda.so"
    link.unlink(missing_ok=True)
    link.symlink_to(library.name)


def install_pycuda(folder: Path) -> None:
    """Build and install pycuda from its source; its own search for a toolkit is switched off."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    include = include_folder()
    with tempfile.TemporaryDirectory() as temporary:
        download = ["download", "--quiet", "--no-deps", "--no-binary", "pycuda", "pycuda"]
        subprocess.run([*pip, *download, "--dest", temporary], check=True)
        (archive,) = Path(temporary).glob("pycuda-*.tar.gz")
        with tarfile.open(archive) as content:
            content.extractall(temporary, filter="data")
        source = archive.with_name(archive.name.removesuffix(".tar.gz"))
        settings = {
            "CUDA_ROOT": str(include.parent),
            "CUDA_INC_DIR": [str(include)],
            "CUDADRV_LIB_DIR": [str(folder.resolve())],
            "CUDADRV_LIBNAME": ["cuda"],
            "CUDA_ENABLE_CURAND": False,
            "CXXFLAGS": ["-O0", "-g0", "-w"],  # it is built to be tested with, and at once
        }
        lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
        (source / "siteconf.py").write_text("".join(lines), encoding="utf-8")
        subprocess.run([*pip, "install", "--quiet", str(source)], check=True)


if __name__ == "__main__":
    {"library": build_library, "pycuda": install_pycuda}[sys.argv[1]](Path(sys.argv[2]))
