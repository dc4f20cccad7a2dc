"""Tensors from a file of somebody else, which is never unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from ...runtime.core.errors import CheckpointError, reason_of

WRAPPERS = ("vae_model_state_dict", "model_state_dict", "state_dict")
"""Keys under which a file keeps the weights beside what training needed."""
Weights = dict[str, torch.Tensor]


def tensors_from_file(path: Path) -> tuple[Weights, tuple[str, ...]]:
    """Read tensors by their names in the file, which is never unpickled, and what was left out.

    A CheckpointError where it cannot be read so, or holds no tensors.
    """
    again = f"save the weights alone, as a state_dict or in a .safetensors file, and name {path}"
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load(path.read_bytes())
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, and unpickling that can run code of "
            "others: where you trust it, save its state_dict alone with torch.save and import that"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path}: {reason_of(error)}; {again}") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"cannot read {path}: {error}; {again}") from error
    notes: list[str] = []
    if isinstance(found, dict):
        for wrapper in WRAPPERS:
            if isinstance(found.get(wrapper), dict):
                if beside := [name for name in found if "discriminator" in str(name)]:
                    notes.append(f"{', '.join(beside)} is left out")
                found = found[wrapper]
                break
    tensors = (
        {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
        if isinstance(found, dict)
        else {}
    )
    if not tensors or len(tensors) != len(found):
        raise CheckpointError(f"{path} holds no weights by their names: {again}")
    if all(name.startswith("module.") for name in tensors):  # as DataParallel calls them
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors, tuple(notes)
