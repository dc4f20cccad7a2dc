"""Encoders of whole frames held to the float64 reference: their picture, and their latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.bundle.graph_key import GraphKey
from ...runtime.bundle.load import Bundle
from ...runtime.bundle.manifest import GraphReport
from ...runtime.engines.base import Backend
from ...runtime.engines.open import open_engine, open_file
from ...runtime.pixels.convert import LUMA_SCALE_OF_INPUT
from ..verify.limits import LIMITS
from ..verify.metrics import LATENT_METRIC, RMS_METRIC, largest, metric, rms
from ..verify.reference import Reference
from .encoder import PICTURE
from .judging_frames import Pixels, frame_from_image, image_from_pictures, picture_from_frame

MOST_LEVELS = 1.0
"""Mean absolute difference of a frame's picture from the reference's, as of every path of pixels."""
SPREADS = LIMITS["fp16"].max_spread, LIMITS["fp16"].rms_spread
"""Largest and RMS error of `mu` over its spread over the data, against the float32 encoder of the
reference's pictures. Pixels of 8 bits that are rounded in another order are no more exact."""
FRAMES = 32
FREE_SIZES = ((1080, 1920), (720, 1280), (480, 640), (478, 854), (90, 160), (1280, 720))
"""Heights and widths that judge a graph for any size, in turn."""
PICTURE_METRIC, PIXEL_METRIC = "mean difference, worst frame", "max difference"


@dataclass(frozen=True, slots=True)
class Judged:
    """What one encoder of whole frames was held to."""

    picture: GraphReport
    mu: GraphReport

    @property
    def reports(self) -> tuple[GraphReport, GraphReport]:
        """Both."""
        return self.picture, self.mu
