"""The real TensorRT-RTX builder, which needs no GPU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from motorvae.export.tensorrt.build import (
    DEFAULT_WORKSPACE_BYTES,
    MIB,
    BuiltEngine,
    EngineBuildRequest,
    build_progress,
    engine_from_onnx,
    free_memory_bytes,
    workspace_bytes_for,
)
from motorvae.export.tensorrt.precision_report import counts_from_network
from motorvae.runtime.bundle.graph_key import Part, Precision, Variant
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.core.lifecycle import interrupts_deferred
from motorvae.runtime.engines.gpu_info import Gpu, NoGpu
from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage, import_tensorrt

from ..engine_graphs import write_form
from ..other_networks import SpatialDecoder, graph_of

GIB = 1 << 30


@pytest.fixture(scope="module")
def rtx() -> TensorRTPackage:
    return import_tensorrt("tensorrt-rtx")


def gpu(capability: str, *, integrated: bool = False, memory_bytes: int = 8 * GIB) -> Gpu:
    return Gpu("a GPU", capability, "13.0", "580.65", memory_bytes, integrated)


def build(
    path: Path,
    package: TensorRTPackage,
    *,
    precision: Precision = "fp16",
    profile: BatchProfile | None = None,
    on: Gpu | NoGpu | None = None,
    workspace_mib: int = 64,
    kept: Sequence[str] = (),
) -> BuiltEngine:
    machine = on or NoGpu("no GPU here")
    request = EngineBuildRequest(
        package, machine, precision, profile or BatchProfile(), workspace_mib
    )
    return engine_from_onnx(
        path.read_bytes(),
        request,
        name=path.name,
        title=path.stem,
        console=Console(quiet=True),
        kept=kept,
    )


@pytest.mark.parametrize("graph", ["encoder", "decoder"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_both_graphs_build_in_both_precisions(
    small_bundle: Path, rtx: TensorRTPackage, graph: Part, precision: Precision
) -> None:
    name = f"{graph}.onnx" if precision == "fp32" else f"{graph}.{precision}.onnx"
    built = build(small_bundle / name, rtx, precision=precision)
    assert min(built.precision_report.shares(precision)) > 0.99
    assert (
        built.precision_report.weights_from == built.precision_report.outputs_from == "engine file"
    )
    assert built.compute_capabilities == rtx.portable_capabilities()
    assert built.seconds > 0
    # float32 is float32: no kernel may round its inputs to TF32.
    assert b"tf32=0" in built.plan
    assert b"tf32=1" not in built.plan


def test_what_stays_in_float32_is_float32_in_the_engine(
    rtx: TensorRTPackage, tmp_path: Path
) -> None:
    import numpy as np
    import onnx_ir as ir
    import torch

    from motorvae.export.transforms.fp16 import fp16_from_fp32

    torch.manual_seed(0)
    kept = ("node_conv2d_3", "node_upsample_nearest2d_1", "node_conv2d_4")
    model = graph_of(SpatialDecoder(), (128,), "reconstruction")
    fp16_from_fp32(model, kept)
    path = tmp_path / "decoder.fp16.onnx"
    ir.save(model, path)
    built = build(path, rtx, kept=kept).precision_report
    assert built.kept_float32 == kept
    assert built.multiplications_from == "engine file"
    assert built.multiplications["fp32"] == built.asked["fp32"]
    weights = [model.graph.initializers[f"up{number}.weight"] for number in (1, 2)]
    assert built.weights["fp32"] >= sum(int(np.prod(value.shape.numpy())) for value in weights)
    with pytest.raises(EngineError, match="the label needs 95% of both"):
        build(path, rtx)


def test_float32_graph_passed_off_as_fp16_is_caught(
    small_bundle: Path, rtx: TensorRTPackage
) -> None:
    with pytest.raises(EngineError, match=r"encoder\.onnx is not fp16: 0\.00% of weights"):
        build(small_bundle / "encoder.onnx", rtx, precision="fp16")


def test_fp16_graph_passed_off_as_float32_is_caught(
    small_bundle: Path, rtx: TensorRTPackage
) -> None:
    with pytest.raises(EngineError, match=r"encoder\.fp16\.onnx is not fp32"):
        build(small_bundle / "encoder.fp16.onnx", rtx, precision="fp32")


def test_graph_whose_second_half_was_left_in_float32_is_caught(
    small_bundle: Path, rtx: TensorRTPackage, tmp_path: Path
) -> None:
    """One float32 layer between casts is not enough: TensorRT-RTX turns it back into FP16."""
    import numpy as np
    import onnx_ir as ir

    model = ir.load(small_bundle / "encoder.fp16.onnx")
    nodes = list(model.graph)
    start = next(i for i, node in enumerate(nodes) if node.name == "node_Conv_40")
    boundary = nodes[start].inputs[0]
    assert boundary is not None
    for node in nodes[start:]:
        for value in node.inputs:
            if value is not None and value.dtype == ir.DataType.FLOAT16 and value.const_value:
                full = value.const_value.numpy().astype(np.float32)
                value.const_value = ir.tensor(full, name=value.name)
                value.dtype = ir.DataType.FLOAT
        for output in node.outputs:
            output.dtype = ir.DataType.FLOAT
    cast = ir.node("Cast", [boundary], attributes={"to": int(ir.DataType.FLOAT)})
    model.graph.insert_before(nodes[start], cast)
    nodes[start].replace_input_with(0, cast.outputs[0])
    ir.save(model, tmp_path / "mixed.onnx")
    with pytest.raises(EngineError, match=r"mixed\.onnx is not fp16: \d\d\.\d\d% of weights"):
        build(tmp_path / "mixed.onnx", rtx)


def test_network_and_engine_file_agree_on_the_weights(
    small_bundle: Path, rtx: TensorRTPackage
) -> None:
    from motorvae.runtime.engines.tensorrt.package import EngineLog

    trt, log = rtx.trt, EngineLog(rtx.trt)
    network = trt.Builder(log.logger).create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    )
    parser = trt.OnnxParser(network, log.logger)
    assert parser.parse_from_file(str(small_bundle / "decoder.fp16.onnx"))
    counts = counts_from_network(trt, network, frozenset({"z", "reconstruction"}))
    built = build(small_bundle / "decoder.fp16.onnx", rtx)
    assert set(counts.weights) == set(counts.outputs) == set(counts.multiplications) == {"fp16"}
    assert counts.weights["fp16"] == pytest.approx(built.precision_report.weights["fp16"], rel=0.2)


def test_multiplications_are_those_of_the_model(small_bundle: Path, rtx: TensorRTPackage) -> None:
    """By the model's own sizes: sides 16 to 1, five convolutions, two heads."""
    channels = (1, 4, 8, 8, 16, 16)
    expected = sum(
        one * other * 9 * side * side
        for one, other, side in zip(channels, channels[1:], (16, 8, 4, 2, 1), strict=False)
    )
    expected += 2 * 16 * 8
    precision_report = build(small_bundle / "encoder.onnx", rtx, precision="fp32").precision_report
    assert precision_report.asked == precision_report.multiplications == {"fp32": expected}
    assert precision_report.multiplications_from == "engine file"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("variant", ["luma", "mu"])
def test_encoders_that_take_bytes_keep_their_label(
    small_bundle: Path, rtx: TensorRTPackage, tmp_path: Path, precision: Precision, variant: Variant
) -> None:
    """The float32 image behind the input of an FP16 engine is no layer's output any more."""
    path = write_form(small_bundle, tmp_path, "encoder", precision, variant)
    built = build(path, rtx, precision=precision)
    assert min(built.precision_report.shares(precision)) > 0.99
    assert built.precision_report.outputs_from == "engine file"
    assert (b"log_var" in built.plan) == (variant == "luma")
    assert b"type=uint8" in built.plan


@pytest.mark.parametrize(
    ("graph", "variant"), [("encoder", "luma"), ("encoder", "mu"), ("decoder", "phases")]
)
def test_int8_graphs_are_multiplied_as_int8(
    small_bundle: Path, rtx: TensorRTPackage, tmp_path: Path, graph: Part, variant: Variant
) -> None:
    path = write_form(small_bundle, tmp_path, graph, "int8", variant)
    precision_report = build(path, rtx, precision="int8").precision_report
    assert set(precision_report.asked) == set(precision_report.multiplications) == {"int8"}
    assert precision_report.multiplications_from == "engine file"


def test_int8_weights_that_are_multiplied_as_float32_earn_no_label(
    small_bundle: Path, rtx: TensorRTPackage, tmp_path: Path
) -> None:
    """TensorRT-RTX has no INT8 transposed convolution; what it keeps of the weights is INT8."""
    path = write_form(small_bundle, tmp_path, "decoder", "int8")
    with pytest.raises(EngineError, match=r"is not int8: 15\.58% of multiplications .* 95%; more"):
        build(path, rtx, precision="int8")


@pytest.mark.parametrize(("float_layers", "earned"), [(1, True), (3, False)])
def test_int8_graph_may_keep_layers_in_float32_but_not_most_of_its_work(
    small_bundle: Path, rtx: TensorRTPackage, tmp_path: Path, float_layers: int, earned: bool
) -> None:
    path = write_form(small_bundle, tmp_path, "encoder", "int8", "luma", float_layers=float_layers)
    if earned:
        precision_report = build(path, rtx, precision="int8").precision_report
        assert set(precision_report.multiplications) == {"fp32", "int8"}
        assert 0.5 < precision_report.share_of_multiplications("int8") < 0.95
    else:
        with pytest.raises(EngineError, match=r"of multiplications .* are int8, and .* needs 50%"):
            build(path, rtx, precision="int8")


def test_float_graph_passed_off_as_int8_is_caught(small_bundle: Path, rtx: TensorRTPackage) -> None:
    with pytest.raises(EngineError, match=r"encoder\.onnx is not int8: 0\.00% of multiplications"):
        build(small_bundle / "encoder.onnx", rtx, precision="int8")


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a"])
def test_file_that_is_no_graph_is_one_clear_line(
    tmp_path: Path, rtx: TensorRTPackage, content: bytes
) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"cannot parse encoder\.onnx: .*; export it again"):
        build(path, rtx)


def test_operator_that_it_does_not_know_is_named(tmp_path: Path, rtx: TensorRTPackage) -> None:
    import onnx
    from onnx import TensorProto, helper

    kinds = (TensorProto.FLOAT, ["batch", 4])
    node = helper.make_node("NoSuchOperator", ["image"], ["mu"], domain="motorvae.test")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("image", *kinds)],
        [helper.make_tensor_value_info("mu", *kinds)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("motorvae.test", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "x.onnx")
    with pytest.raises(EngineError, match="NoSuchOperator"):
        build(tmp_path / "x.onnx", rtx)


def test_profile_reaches_the_engine(small_bundle: Path, rtx: TensorRTPackage) -> None:
    """The engine plans its device memory for the largest batch."""

    def planned_bytes(most: int) -> set[int]:
        profile = BatchProfile(min=1, opt=1, max=most)
        plan = build(small_bundle / "encoder.fp16.onnx", rtx, profile=profile).plan
        return {int(size) for size in re.findall(rb"name=devmem_topdown_\d+ size=(\d+)", plan)}

    # Scratch space is the same for all, and larger than what so small a model needs.
    scratch = planned_bytes(2) & planned_bytes(1024)
    assert max(planned_bytes(1024) - scratch) == 2 * max(planned_bytes(512) - scratch)


def test_too_little_workspace_says_what_to_change(small_bundle: Path, rtx: TensorRTPackage) -> None:
    with pytest.raises(EngineError, match=r"; raise --workspace-mib \(now 1\)"):
        build(small_bundle / "encoder.fp16.onnx", rtx, workspace_mib=1)


def test_targets_follow_the_gpu(rtx: TensorRTPackage) -> None:
    from motorvae.export.tensorrt.build import _set_targets
    from motorvae.runtime.engines.tensorrt.package import EngineLog

    log = EngineLog(rtx.trt)
    builder = rtx.trt.Builder(log.logger)
    assert rtx.portable_capabilities()[:3] == ("8.0", "8.6", "8.9")
    for capability, expected in (("8.9", rtx.portable_capabilities()), ("7.5", ("7.5",))):
        config = builder.create_builder_config()
        assert _set_targets(rtx, config, gpu(capability)) == expected
        narrowed = config.num_compute_capabilities
        assert narrowed == (0 if capability == "8.9" else 1)


def test_progress_is_reported_and_a_request_to_stop_is_heard(
    small_bundle: Path, rtx: TensorRTPackage
) -> None:
    from motorvae.runtime.engines.tensorrt.package import EngineLog

    trt = rtx.trt
    log = EngineLog(trt)

    class Polled(list[int]):
        """Counts how often the builder asks whether to go on: once a step."""

        steps = 0

        def __bool__(self) -> bool:
            self.steps += 1
            return len(self) > 0

    def built(cancelled: Polled) -> tuple[object, int]:
        builder = trt.Builder(log.logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log.logger)
        assert parser.parse_from_file(str(small_bundle / "encoder.fp16.onnx"))
        config = builder.create_builder_config()
        tensor = network.get_input(0)
        profile = builder.create_optimization_profile()
        profile.set_shape(tensor.name, *[(1, *tuple(tensor.shape)[1:])] * 3)
        config.add_optimization_profile(profile)
        with build_progress(trt, Console(quiet=True), "x", cancelled) as monitor:
            config.progress_monitor = monitor
            return builder.build_serialized_network(network, config), cancelled.steps

    engine, steps = built(Polled())
    assert engine is not None
    assert steps > 10
    stopped = Polled()
    stopped.append(signal.SIGINT)
    engine, fewer = built(stopped)
    assert engine is None
    assert 1 <= fewer < steps


def test_ctrl_c_is_deferred_while_native_code_runs_and_an_exception_after_it() -> None:
    earlier = signal.getsignal(signal.SIGINT)
    reached = False

    def native() -> None:
        nonlocal reached
        with interrupts_deferred() as received:
            os.kill(os.getpid(), signal.SIGINT)
            reached = [*received] == [signal.SIGINT]

    with pytest.raises(KeyboardInterrupt):
        native()
    assert reached
    assert signal.getsignal(signal.SIGINT) is earlier


CANCEL = """
import os, signal, sys
number = getattr(signal, sys.argv[2])
from motorvae.export.tensorrt import build
from motorvae.export.cli import main
add_task = build.Progress.add_task
def interrupted(self, *args, **rest):
    os.kill(os.getpid(), number)
    return add_task(self, *args, **rest)
build.Progress.add_task = interrupted
sys.exit(main(["--bundle", sys.argv[1], "--fp16", "--engine", "tensorrt-rtx"]))
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_ctrl_c_in_a_real_build_leaves_no_file(bundle_copy: Path, number: str) -> None:
    before = sorted(path.name for path in bundle_copy.parent.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", CANCEL, str(bundle_copy), number],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1] == "motorvae-export: interrupted"
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in bundle_copy.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("machine", "requested_mib", "free", "expected"),
    [
        (NoGpu("none"), None, GIB, DEFAULT_WORKSPACE_BYTES),
        (NoGpu("none"), 10, GIB, 10 * MIB),
        (gpu("8.9"), None, GIB, DEFAULT_WORKSPACE_BYTES),
        (gpu("8.9", memory_bytes=GIB), None, 64 * GIB, GIB // 2),
        (gpu("8.7", integrated=True), None, 2 * GIB, GIB // 2),
        (gpu("8.7", integrated=True), 4096, 2 * GIB, GIB // 2),
        (gpu("8.7", integrated=True), 100, 2 * GIB, 100 * MIB),
    ],
)
def test_workspace_respects_shared_memory(
    machine: Gpu | NoGpu, requested_mib: int | None, free: int, expected: int
) -> None:
    found = workspace_bytes_for(machine, requested_mib=requested_mib, free_bytes=free)
    assert found == expected


def test_free_memory_is_less_than_all_of_it() -> None:
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory_bytes() < everything


def test_a_build_in_a_container_has_what_the_containers_limit_leaves(tmp_path: Path) -> None:
    for name, text in {
        "proc/meminfo": "MemTotal: 7800000 kB\nMemAvailable: 4096000 kB\n",
        "sys/fs/cgroup/memory.max": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{GIB}\n",
        "sys/fs/cgroup/memory.stat": "inactive_file 0\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="ascii")
    assert free_memory_bytes(tmp_path) == GIB
