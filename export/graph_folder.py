"""GraphFolder: graphs of one model as files that are in no bundle yet, with notes inside."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from ..runtime.bundle.graph_check import check_graph
from ..runtime.bundle.graph_key import GraphKey, Precision
from ..runtime.bundle.manifest import FileEntry, GraphEntry
from ..runtime.core.errors import VerificationError
from ..runtime.core.packages import own_version
from ..runtime.core.spec import ModelSpec
from ..runtime.engines.open import GraphFile
from .transforms.fp16 import check_precision


def graph_keys(spec: ModelSpec, precision: Precision) -> tuple[GraphKey, ...]:
    """Return the graphs of a model in a precision other than INT8, encoders first.

    An encoder that gives `mu` alone is another form only where there is a `log_var` to leave out;
    else the one that takes 8 bits is as lean. `phases` is of the card's network: in float32 one for
    every engine and one for ONNX Runtime.
    """
    lean = GraphKey("encoder", precision, "mu" if spec.has_log_var else "luma")
    phases = GraphKey("decoder", precision, "phases")
    keys = [GraphKey("encoder", precision), lean]
    if precision == "fp16" and spec.has_log_var:
        keys.insert(1, GraphKey("encoder", precision, "luma"))
    if spec.has_decoder:
        is_card = spec.channels is not None
        if not (precision == "bf16" and is_card):
            keys.append(GraphKey("decoder", precision))
        if precision != "fp16" and is_card:
            keys.append(phases)
        # With fewer layers it would be the same graph.
        if precision == "fp32" and len(spec.channels or ()) >= 3:
            keys.append(replace(phases, target="onnx"))
    if precision == "bf16":
        return tuple(replace(key, target="openvino") for key in keys)
    return tuple(keys)


class GraphFolder:
    """Graph files of one model, by their names in a bundle."""

    def __init__(self, folder: Path, spec: ModelSpec, weights_sha256: str) -> None:
        self.folder, self.spec, self.weights_sha256 = folder, spec, weights_sha256

    def file(self, key: GraphKey) -> GraphFile:
        """Return a graph's file, for whoever opens it."""
        return GraphFile(self.folder / key.onnx_file, self.spec)

    def load(self, key: GraphKey) -> ir.Model:
        """Return a fresh copy of a graph."""
        return ir.load(self.file(key).path)

    def save(
        self,
        key: GraphKey,
        model: ir.Model,
        excluded: Sequence[str] = (),
        kept: Collection[str] = (),
    ) -> GraphFile:
        """Write a graph and what it is, but nothing of when or where it was made: bytes repeat.

        A VerificationError is raised where it is not of its precision; of an INT8 graph the layers
        `excluded` stay in float32, of an FP16 graph the nodes `kept`.
        """
        model.producer_name, model.producer_version = "motorvae", own_version()
        model.doc_string = f"{key.title} of a motorVAE"
        facts = {name: value for name, value in key.fields.items() if value is not None}
        facts |= {"model": self.spec.model_dump_json(), "weights_sha256": self.weights_sha256}
        model.metadata_props.update({f"motorvae.{name}": text for name, text in facts.items()})
        check_precision(model, key.precision, excluded, kept)
        file = self.file(key)
        proto = ir.to_proto(model)
        for tensor in proto.graph.initializer:
            # onnxruntime's quantiser says "in this file" of some, which is the default.
            tensor.ClearField("data_location")
        onnx.save(proto, file.path)
        onnx.checker.check_model(file.path, full_check=True)
        try:  # as whoever opens the bundle will
            check_graph(file.path.read_bytes(), self.entry(key, model), self.spec)
        except ValueError as error:
            raise VerificationError(
                f"the exported {key.title} would not be opened: {error}; this version of torch or "
                "onnxscript exports differently: install the versions in constraints.txt"
            ) from error
        return file

    @contextlib.contextmanager
    def candidate(self, model: ir.Model) -> Iterator[GraphFile]:
        """Lend a file of a graph that may not be kept."""
        path = self.folder / "candidate.onnx"
        ir.save(model, path)
        yield GraphFile(path, self.spec)
        path.unlink()

    def entry(self, key: GraphKey, model: ir.Model, **facts: Any) -> GraphEntry:
        """Return a graph's entry for the manifest, with further facts."""
        return GraphEntry(
            **facts,
            **FileEntry.of(self.file(key).path).model_dump(),
            **key.fields,
            opset=model.opset_imports[""],
            inputs=key.inputs(self.spec),
            outputs=key.outputs(self.spec),
        )
