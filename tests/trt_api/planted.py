"""Code with mistakes for the check to find. Nobody runs it.

A comment says where a line is wrong: `no name` for what is taken from the module, `no fit` for
what is asked of an object, `unknown` for names that no release has, and `untyped` for a question
to an object of which nothing is said. Every line without such a comment is right everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorrt


class Opened:
    trt: Any
    is_rtx: bool
    context: tensorrt.IExecutionContext = None
    guessed: Any = None


def network_of(trt: Any, logger: tensorrt.ILogger, *, implicit: bool) -> Any:
    builder = trt.Builder(logger)
    if implicit:
        flag = trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH  # no name: 11.4 rtx-1.7
        return builder.create_network(1 << int(flag))
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def configured(opened: Opened, builder: tensorrt.Builder) -> tensorrt.IBuilderConfig:
    trt = opened.trt
    config = builder.create_builder_config()
    if builder.platform_has_fast_fp16:  # no fit: 11.4 rtx
        config.set_flag(trt.BuilderFlag.FP16)  # no name: 11.4 rtx-1.7
    if hasattr(trt.BuilderFlag, "FP16"):
        config.set_flag(trt.BuilderFlag.FP16)
    if hasattr(builder, "platform_has_fast_fp16"):
        print(builder.platform_has_fast_fp16)
    if opened.is_rtx:
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        config.set_flag(trt.BuilderFlag.INT8)  # no name: rtx-1.7
        return config
    config.set_flag(trt.BuilderFlag.INT8)  # no name: 11.4
    config.set_compute_capability(1, 0)  # no fit: 10.3 10.16 11.4
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.profiling_verbosity = "detailed"  # no fit: 10.3 10.16 11.4
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, pool_size=1 << 30)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size=1)  # no fit: 10.3 10.16 11.4
    return config


def cached(config: tensorrt.IBuilderConfig, kept: bytes) -> None:
    cache = config.create_timing_cache(kept)
    if cache is None:
        cache = config.create_timing_cache()  # no fit: 10.3 10.16 11.4 rtx
    config.set_timing_cache(cache, ignore_mismatch=False)
    config.set_timing_cache(cache, overwrite=True)  # no fit: 10.3 10.16 11.4 rtx


def built(
    trt: Any, builder: tensorrt.Builder, network: tensorrt.INetworkDefinition, config: Any
) -> bytes:
    builder.build_cuda_engine(network)  # no fit: 10.3 10.16 11.4 rtx
    config.set_flag(trt.BuilderFlag.TF32)  # untyped
    return bytes(builder.build_serialized_network(network, config))


def streamed(trt: Any) -> tuple[Any, ...]:
    class Writer(trt.IStreamWriter):  # no name: 10.3
        def write(self, data: object, size: int) -> int:  # no name: 10.3
            return size if data else 0

    class Monitor(trt.IProgressMonitor):
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            print(phase_name, parent_phase, num_steps)

        def phase_end(self, phase_name: str) -> None:  # no name: 10.3 10.16 11.4 rtx
            print(phase_name)

        def step_complete(self, phase_name: str) -> bool:  # no fit: 10.3 10.16 11.4 rtx
            return bool(phase_name)

    if hasattr(trt, "IStreamWritter"):  # unknown
        print(trt.IStreamWritter)
    if not hasattr(trt, "IStreamWriter"):
        return (Monitor,)
    return Writer, Monitor, trt.IStreamWriter


def executed(opened: Opened, engine: tensorrt.ICudaEngine, stream: int) -> None:
    opened.context = engine.create_execution_context()
    opened.context.set_input_shape("image", (1, 1, 256, 256))
    opened.context.execute_async_v3(stream)
    opened.context.execute_async_v2([], stream)  # no fit: 10.3 10.16 11.4 rtx
    opened.guessed.execute_async_v3(stream)  # untyped
    for size in engine.get_tensor_shape("image"):
        print(size + 1)
    if hasattr(engine, "create_runtime_config"):
        print(engine.create_runtime_config())
    if hasattr(engine, "create_runtime_cnofig"):  # unknown
        print("never")
    config: tensorrt.IRuntimeConfig = engine.create_runtime_config()  # no fit: 10.3
    print(config.get_execution_context_allocation_strategy())
    inspector: tensorrt.EngineInspektor = engine.create_engine_inspector()  # unknown
    print(inspector)
