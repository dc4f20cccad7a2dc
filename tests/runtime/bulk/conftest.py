"""The small bundle's engines, and a data set as any folder of photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from motorvae.runtime.bulk.encoded import Encoded
from motorvae.runtime.bulk.encoder_pool import EncoderPool, PoolRequest
from motorvae.runtime.bulk.inputs import InputRequest, Inputs
from motorvae.runtime.bulk.parts import Job
from motorvae.runtime.bulk.run import encode_in_memory
from motorvae.runtime.bundle.load import Bundle, load_bundle
from motorvae.runtime.engines.open import EngineRequest
from motorvae.runtime.pixels.picture import USUAL_LIMIT
from motorvae.runtime.sources.base import CaptureRequest


@pytest.fixture
def bundle(small_bundle: Path) -> Bundle:
    return load_bundle(small_bundle)


@pytest.fixture
def pool(bundle: Bundle) -> Iterator[EncoderPool]:
    with EncoderPool(bundle, PoolRequest(EngineRequest(), USUAL_LIMIT, workers=2)) as opened:
        yield opened


@pytest.fixture
def inputs_of(bundle: Bundle) -> Callable[..., Inputs]:
    """What texts name, for the small bundle's model."""

    def found(*data: object, **options: object) -> Inputs:
        capture = CaptureRequest(spec=bundle.spec)
        return Inputs([str(one) for one in data], InputRequest(bundle.spec, capture, **options))  # type: ignore[arg-type]

    return found


@pytest.fixture
def encoded_of(
    pool: EncoderPool, bundle: Bundle, inputs_of: Callable[..., Inputs]
) -> Callable[[Sequence[object]], Encoded]:
    """The latents of what texts name."""
    return lambda data: encode_in_memory(inputs_of(*data), pool, 4, bundle)


PART = 3


@pytest.fixture
def job() -> Job:
    return Job(
        weights_sha256="0" * 64,
        model="1" * 64,
        data=("photos",),
        every=1,
        column="path",
        matrix=None,
        track=None,
        max_picture=200.0,
        precision="fp32",
        engines=("ONNX Runtime 1.27.0 CPUExecutionProvider",),
        ood_above=None,
        part_images=PART,
        batch_size=2,
    )
