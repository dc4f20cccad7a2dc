"""Which operators a graph may hold: of the card's network, and of networks from elsewhere."""

from __future__ import annotations

from .elementwise import CARD_CAST, CARD_MUL, ELEMENTWISE, QUANTISATION
from .layers import CARD_LAYERS, LAYERS
from .layout import CARD_LAYOUT, LAYOUT
from .node import Operator

CARD: dict[str, Operator] = {
    **CARD_LAYERS,
    **CARD_LAYOUT,
    **QUANTISATION,
    "Add": ELEMENTWISE["Add"],
    "Cast": CARD_CAST,
    "LeakyRelu": ELEMENTWISE["LeakyRelu"],
    "Mul": CARD_MUL,
    "Sigmoid": ELEMENTWISE["Sigmoid"],
}
"""Those that may be in a graph of the card's network; a test holds them against what exports write.
"""
ANY: dict[str, Operator] = {**ELEMENTWISE, **LAYERS, **LAYOUT}
"""Those that may be in any other; each gives one output, and each can be computed at any batch."""
