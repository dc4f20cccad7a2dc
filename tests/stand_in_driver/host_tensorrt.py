"""A module with the part of TensorRT's Python API that runs an engine, on the stand-in driver.

It stands for NVIDIA's closed library, which needs a GPU. Its one engine hands on parts of its
input by copies that the driver really makes, in the order of the stream; whether they were recorded
into a graph is the driver's business, as it is with kernels. No arithmetic is covered.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
from types import SimpleNamespace
from typing import Any

ITEMS = {"float32": 4, "uint8": 1, "float16": 2}


class Log:
    ERROR = 1
    WARNING = 2

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses, self.rows = engine, {}, 0
        self.executions = 0

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.facts["profile"]
        fits = low <= shape[0] <= high and list(shape[1:]) == self.engine.facts["tensors"][name]
        if fits:
            self.rows = shape[0]
        return fits

    def execute_async_v3(self, stream: int) -> bool:
        self.executions += 1
        facts = self.engine.facts
        if facts.get("fails"):
            self.engine.logger.log(1, "no kernel (In enqueue at /_src/runtime/x.cpp:1)")
            return False
        source, *outputs = facts["tensors"]
        row_bytes = self.engine.bytes_of(source)
        driver = ctypes.CDLL("libcuda.so.1")
        if facts.get("allocates"):  # as a library may that cannot be captured
            address = ctypes.c_uint64()
            if driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(64)):
                return False
            driver.cuMemFree_v2(address)
        # The same work several times over takes the longer; a shifted read is another answer.
        shift_bytes = 4 * facts.get("shift", 0)
        for _ in range(facts.get("times", 1)):
            for position, name in enumerate(outputs):
                size = self.engine.bytes_of(name)
                for row in range(self.rows):
                    to = self.addresses[name] + row * size
                    start = self.addresses[source] + row * row_bytes + position * size
                    code = driver.cuMemcpyDtoDAsync_v2(
                        ctypes.c_uint64(to),
                        ctypes.c_uint64(start + shift_bytes),
                        ctypes.c_size_t(size),
                        ctypes.c_void_p(stream),
                    )
                    if code:
                        return False
        return True


class Engine:
    def __init__(self, facts: dict[str, Any], logger: Log) -> None:
        self.facts, self.logger = facts, logger
        self.contexts: list[Context] = []
        self.configs: list[Any] = []

    @property
    def num_io_tensors(self) -> int:
        return len(self.facts["tensors"])

    def get_tensor_name(self, index: int) -> str:
        return list(self.facts["tensors"])[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        is_first = name == next(iter(self.facts["tensors"]))
        return TensorIOMode.INPUT if is_first else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.facts.get("dtypes", {}).get(name, "float32"))

    def bytes_of(self, name: str) -> int:
        return ITEMS[self.get_tensor_dtype(name)] * math.prod(self.facts["tensors"][name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.facts["tensors"][name])

    def get_tensor_profile_shape(self, name: str, _profile: int) -> list[tuple[int, ...]]:
        return [(count, *self.facts["tensors"][name]) for count in self.facts["profile"]]

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace(cuda_graph_strategy="disabled", cache=None)
        config.create_runtime_cache = RuntimeCache
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        self.configs.append(config)
        return config

    def create_execution_context(self, _config: Any = None) -> Context | None:
        if self.facts.get("no_context"):
            return None
        self.contexts.append(Context(self))
        return self.contexts[-1]


class RuntimeCache:
    def __init__(self) -> None:
        self.content = b"nothing yet"

    def deserialize(self, content: bytes) -> bool:
        self.content = content
        return True

    def serialize(self) -> bytes | None:
        return self.content and self.content + b"+"


class Runtime:
    num_DLA_cores = 0  # noqa: N815  # as TensorRT spells it

    def __init__(self, logger: Log) -> None:
        self.logger = logger
        self._core = -1

    @property
    def DLA_core(self) -> int:  # noqa: N802  # as above
        return self._core

    @DLA_core.setter
    def DLA_core(self, core: int) -> None:  # noqa: N802  # as above
        """Without a DLA nothing happens, as with NVIDIA's own (TensorRT-RTX 1.7: it stays -1)."""
        self._core = core if core < self.num_DLA_cores else -1

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        handed.append(plan)  # from here on it could do what it likes
        cores.append(self.DLA_core)
        try:
            engine = Engine(json.loads(plan), self.logger)
        except ValueError:
            self.logger.log(1, "Serialization assertion failed (In load at /_src/x.cpp:7)")
            return None
        engines.append(engine)
        return engine


handed: list[bytes] = []
"""Every engine that was handed to the library, whatever it made of it."""
engines: list[Engine] = []
cores: list[int] = []
"""The DLA core that was named before each."""
module = SimpleNamespace(
    ILogger=Log,
    Runtime=Runtime,
    TensorIOMode=TensorIOMode,
    CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
    float32="float32",
    uint8="uint8",
)
