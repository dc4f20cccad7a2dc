"""Autoencoders of diffusers, from a folder as its own `save_pretrained` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers

from ...runtime.core.atomic_files import sha256_of
from ...runtime.core.documents import json_from_file
from ...runtime.core.errors import CheckpointError, reason_of
from .torch_module import UserModule

KINDS = ("AutoencoderKL", "AutoencoderTiny")
_CONFIG = "config.json"
_INSIDE = "vae"  # of the folder of a pipeline


def module_from_folder(path: Path) -> UserModule:
    """Load an AutoencoderKL or AutoencoderTiny from its folder or that of a pipeline.

    Nothing is fetched, and nothing unpickled. A CheckpointError for any other folder.
    """
    folder = path if (path / _CONFIG).is_file() else path / _INSIDE
    again = "name a folder that its save_pretrained wrote"
    config = json_from_file(folder / _CONFIG, error=CheckpointError, again=again)
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind not in KINDS:
        raise CheckpointError(
            f"{folder / _CONFIG} is of {str(kind)[:80] if kind else 'no class'}: only "
            f"{' and '.join(KINDS)} are known, import others with --module"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(
            f"{folder} has no .safetensors file: nothing else is read, as opening a pickle can run "
            "code of others; save it with safe_serialization=True"
        )
    loader: Any = getattr(diffusers, kind)
    diffusers.utils.logging.set_verbosity_error()  # remarks on its own files
    try:
        module = loader.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # its exceptions have no root of their own
        raise CheckpointError(f"cannot read {folder}: {reason_of(error)}; {again}") from error
    facts = module.config
    side = facts.get("sample_size")
    return UserModule(
        module,
        "diffusers",
        kind,
        {file.name: sha256_of(file) for file in (folder / _CONFIG, *weights)},
        image_size=(side, side) if isinstance(side, int) else None,
        facts={"value_range": (-1.0, 1.0)},
        scaling={
            "scaling_factor": _number(facts.get("scaling_factor")),
            "shift_factor": _number(facts.get("shift_factor")),
        },
    )


def _number(given: object) -> float | None:
    return float(given) if isinstance(given, (int, float)) else None
