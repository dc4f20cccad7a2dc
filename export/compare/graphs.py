"""UserGraph: anybody's graph on an engine, given pictures or latents, whatever layout it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...runtime.bundle.graph_key import Precision
from ...runtime.bundle.load import load_bundle
from ...runtime.bundle.manifest import MANIFEST, WEIGHTS, FileEntry
from ...runtime.bundle.weights import made_whole
from ...runtime.core.errors import (
    BackendError,
    ConfigError,
    EngineError,
    MissingDependencyError,
    ProviderError,
)
from ...runtime.core.lifecycle import Closing
from ...runtime.core.spec import ModelSpec
from ...runtime.engines.base import Arrays, Backend, Tensors
from ...runtime.engines.gpu_info import NoGpu, find_gpu
from ...runtime.engines.open import ONNX_RUNTIME, EngineRequest, open_file, open_plan
from ...runtime.engines.tensorrt.package import TensorRTName
from ...runtime.pixels.convert import batch_of, input_from_pixels
from .graph_facts import GraphFacts, facts_of
from .options import VerifyOptions
from .result import JudgedGraph

Layout = Literal["channels first", "channels last", "latents"]
Sizes = tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class InputForm:
    """What a graph takes: its layout, and the sizes of one image or latent, None where free."""

    layout: Layout
    channels: int | None
    height: int | None
    width: int | None
    batch: int | None  # the number of images that it is fixed to


class UserGraph(Closing):
    """One graph on one engine, which it closes.

    `run` takes pictures or latents, N at a time, splits them where the graph is fixed to a batch,
    and returns each output as it is, (N, ...) float32. What has no axis of images is left out.
    """

    input_dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, path: Path, backend: Backend, facts: GraphFacts) -> None:
        self.path, self.facts, self._backend = path, facts, backend
        self.spec: ModelSpec | None = None  # of pictures; None where it takes latents
        (self._input,) = backend.tensors[0].items()
        self.name = backend.name
        # OpenVINO may know a tensor by another of its names; the order is the file's.
        names = facts.outputs or backend.outputs
        if len(names) != len(backend.outputs):
            raise BackendError(
                f"{path} has the outputs {', '.join(names)}, and {backend.name} gives "
                f"{', '.join(backend.outputs)}: export it with outputs that differ"
            )
        self._name_of = dict(zip(backend.outputs, names, strict=True))

    @property
    def dtype(self) -> str:
        """Of its input, as the engine calls it."""
        return str(self._input[1][0])

    @property
    def shape(self) -> Sizes:
        """Of its input; a free axis is a name or None."""
        return self._input[1][1]

    @property
    def outputs(self) -> Tensors:
        """Name of each output to its dtype and shape."""
        return {self._name_of[name]: facts for name, facts in self._backend.tensors[1].items()}

    def form(self, *, decodes: bool) -> InputForm:
        """Return what it takes; `decodes` says that a 4-D input is no image.

        A BackendError where that is neither pictures nor latents.
        """
        if self.dtype not in {"float32", "float16", "uint8"}:
            raise BackendError(
                f"{self.path} takes {self.dtype}: export it with an input of float32, float16 or "
                "uint8"
            )
        if len(self.shape) < 2:
            raise BackendError(f"{self.path} takes {self.shape}, without an axis of images")
        sizes = [size if isinstance(size, int) and size > 0 else None for size in self.shape]
        if len(sizes) == 4 and not decodes:
            batch, one, two, three = sizes
            if one in {1, 3} or (one is None and three not in {1, 3}):
                return InputForm("channels first", one, two, three, batch)
            if three in {1, 3}:
                return InputForm("channels last", three, one, two, batch)
        return InputForm("latents", None, None, None, sizes[0])

    def prepared(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return N pictures or latents as the graph takes them."""
        form = self.form(decodes=self.spec is None)
        dtype = np.dtype(self.dtype)
        if self.spec is None:
            return np.require(rows, dtype, "C")
        planes: npt.NDArray[Any] = batch_of(rows)
        if dtype != np.uint8:
            planes = input_from_pixels(rows)
            if self.spec.scales:
                gains, offsets = (
                    np.asarray(part, np.float32)[:, None, None] for part in self.spec.scaling
                )
                planes = planes * gains + offsets
        if form.layout == "channels last":
            planes = planes.transpose(0, 2, 3, 1)
        return np.require(planes, dtype, "C")

    def run(self, rows: npt.NDArray[Any]) -> Arrays:
        """Run it on N pictures or latents; a BackendError says what to do where it fails."""
        count, fixed = len(rows), self.form(decodes=self.spec is None).batch
        step = fixed or count
        parts = []
        for start in range(0, count, step):
            part = rows[start : start + step]
            lacking = step - len(part)
            data = self.prepared(np.concatenate([part, np.repeat(part[-1:], lacking, axis=0)]))
            try:
                found = self._backend.run(data)
            except BackendError as error:
                raise BackendError(
                    error.clause(),
                    context=f"{self.path} failed on a batch of {step}",
                    fix="export it with a free batch axis, or try --batch-sizes 1"
                    if step > 1
                    else "see that it runs in that engine",
                ) from error
            parts.append(
                {
                    self._name_of[name]: values[: len(part)]
                    for name, values in found.items()
                    if values.ndim > 1 and len(values) == step
                }
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def described(self) -> JudgedGraph:
        """Return its facts for the result."""
        return JudgedGraph.model_validate(
            {
                "path": str(self.path),
                "files": self.facts.files,
                "engine": self.name,
                "input_name": self._input[0],
                "input_dtype": self.dtype,
                "input_shape": self.shape,
                "notes": self._backend.notes,
            }
        )

    def close(self) -> None:
        """Close the engine."""
        self._backend.close()


def opened_reference(path: Path, *, threads: int | None) -> UserGraph:
    """Open a graph in ONNX Runtime on the CPU; a BackendError where that refuses it."""
    facts = facts_of(path)
    request = EngineRequest(backend="onnx", threads=threads) if threads else ONNX_RUNTIME
    return _opened(path, facts, request)


def opened_candidate(options: VerifyOptions) -> tuple[UserGraph, Precision]:
    """Open the candidate on the engine that is asked for; return whose limits hold as well."""
    path = options.candidate
    if path.suffix == ".engine":
        assert options.precision is not None  # noqa: S101  # `VerifyOptions.check` has seen to it
        if isinstance(gpu := find_gpu(), NoGpu):
            raise EngineError(
                f"{path}: {gpu.reason}: verify it on the machine with the GPU, or name the .onnx "
                "file that it was built from"
            )
        try:
            entry = FileEntry.of(path)
        except OSError as error:
            raise BackendError(
                f"cannot read {path}: {error.strerror or error}; name a TensorRT engine"
            ) from error
        facts = GraphFacts((entry,), options.precision, ())
        is_rtx = options.candidate_engine == "tensorrt-rtx"
        name: TensorRTName = "tensorrt-rtx" if is_rtx else "tensorrt"
        backend = open_plan(path, name, facts.precision)
        return UserGraph(path, backend, facts), facts.precision
    facts = facts_of(path)
    precision = options.precision or facts.precision
    in_openvino = options.candidate_engine == "openvino"
    request = EngineRequest(
        backend="openvino" if in_openvino else "onnx",
        provider=options.candidate_provider,
        threads=options.threads,
    )
    return _opened(path, facts, request, precision if in_openvino else None), precision


def _content(path: Path) -> bytes | None:
    """Return a graph of a bundle, whole; None of one that an engine reads as it is.

    Beside the manifest and weights of its bundle it is compared with these, so that altered weights
    are not taken for it. Another program's folder may hold a file of either name.
    """
    if all((path.parent / name).is_file() for name in (MANIFEST, WEIGHTS)):
        bundle = load_bundle(path.parent, hash_all=False)
        for entry in bundle.manifest.graphs:
            if entry.file == path.name:
                return bundle.content(entry)
    return made_whole(path)


def _opened(
    path: Path, facts: GraphFacts, request: EngineRequest, computed: Precision | None = None
) -> UserGraph:
    """Open an ONNX file; OpenVINO must compute it in the precision that is given."""
    try:
        content = _content(path)
        backend = open_file(
            path, request, content, external_data=content is None, computed=computed
        )
    except (ProviderError, MissingDependencyError) as error:
        step = str(error.fix).replace("--provider", "--candidate-provider")
        step = step.replace("--backend", "--candidate-engine")
        raise type(error)(error.clause(), context=f"cannot open {path}", fix=step) from error
    except BackendError as error:
        raise BackendError(
            error.clause(),
            context=f"cannot open {path}",
            fix="see that the graph is whole, and for an operator that is not known, its opset",
        ) from error
    return UserGraph(path, backend, facts)


def check_alike(reference: UserGraph, candidate: UserGraph, *, decodes: bool) -> InputForm:
    """Return what both graphs take; a ConfigError where they take images of other sizes."""
    one, other = (graph.form(decodes=decodes) for graph in (reference, candidate))
    if "latents" in {one.layout, other.layout}:
        alike = one.layout == other.layout and _agree(reference.shape[1:], candidate.shape[1:])
    else:
        alike = _agree(*((f.channels, f.height, f.width) for f in (one, other)))
    if not alike:
        raise ConfigError(
            f"{candidate.path} takes {candidate.shape}, and {reference.path} {reference.shape}: "
            "name two graphs that take the same images"
        )
    return replace(
        one,
        channels=one.channels or other.channels,
        height=one.height or other.height,
        width=one.width or other.width,
    )


def _agree(one: Sizes, other: Sizes) -> bool:
    """Whether two shapes are as long, and equal where neither is free."""
    return len(one) == len(other) and all(
        a == b for a, b in zip(one, other, strict=True) if isinstance(a, int) and isinstance(b, int)
    )
