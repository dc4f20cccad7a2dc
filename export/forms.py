"""Which forms of a graph a bundle holds, what their files are called and say of themselves."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.bundle.manifest import GraphName, Precision, Runner, Variant, title_of_graph

GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder")
RUNNERS: tuple[Runner, ...] = ("onnx", "openvino", "tensorrt")


@dataclass(frozen=True, slots=True)
class Form:
    """One form of one graph; see `runtime.bundle.load` for what its parts mean."""

    graph: GraphName
    precision: Precision
    variant: Variant = "full"
    made_for: Runner | None = None

    @property
    def file(self) -> str:
        """Its file's name: what goes without saying is left out, as in `encoder.onnx`."""
        # bf16 is an arithmetic of the engine, which reads the float32 file.
        own_file = self.precision not in {"fp32", "bf16"}
        parts = [
            self.graph,
            self.variant if self.variant != "full" else None,
            self.precision if own_file else None,
            self.made_for if own_file else None,
            "onnx",
        ]
        return ".".join(part for part in parts if part)

    @property
    def title(self) -> str:
        """What it is, in words."""
        return title_of_graph(self.graph, self.precision, self.variant, self.made_for)


FP32 = (
    Form("encoder", "fp32"),
    Form("encoder", "fp32", "mu"),
    Form("decoder", "fp32"),
    Form("decoder", "fp32", "phases"),
)
FP16 = (
    Form("encoder", "fp16"),
    Form("encoder", "fp16", "luma"),
    Form("encoder", "fp16", "mu"),
    Form("decoder", "fp16"),
)
BF16 = (
    Form("encoder", "bf16", made_for="openvino"),
    Form("encoder", "bf16", "mu", "openvino"),
    Form("decoder", "bf16", "phases", "openvino"),
)
