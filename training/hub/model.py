"""HubVAE: a run's model with `from_pretrained`, `save_pretrained` and `push_to_hub`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import safetensors.torch
from huggingface_hub import ModelCard, ModelHubMixin

from ...runtime.core.errors import OutputError
from ..checkpoint import RunConfig, model_from_checkpoint
from ..model import MotorVAE, weights_of
from ..pretrained.folder import SMALL_FILES, check_small_files, copy_small_files, write_weights
from .card import card_of
from .folder import facts_of_run
from .transfer import fetched


class HubVAE(MotorVAE, ModelHubMixin):
    """A trained model, float32 on the CPU in evaluation mode, in the form of Hugging Face Hub.

        model = HubVAE.from_pretrained("OWNER/NAME")  # or a folder, also a run's
        mu, log_var = model.encode(images)
        model.save_pretrained("folder")
        model.push_to_hub("OWNER/NAME")

    Only safetensors and JSON are read, and they are checked as those of any run. What is saved has
    the weights that the model has then; latent statistics and measurements go along where these
    are still those that were loaded. The folder that it was loaded from stays as it is.
    """

    def __init__(self, run: RunConfig, source: Path) -> None:
        super().__init__(run.model)
        self.run_config = run
        self._source, self._digest = source, ""
        self._name = source.resolve().name

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, revision: str | None = None, **how: Any
    ) -> HubVAE:
        """Load a repository of the Hub or a folder; `how` is as of `hub.transfer.fetched`.

        The mixin's own would read config.json before us, whatever that is.

        Raises:
            CheckpointError: As of `model_from_checkpoint`, or there is no such repository.
        """
        model_id = str(pretrained_model_name_or_path)
        return cls._from_pretrained(model_id=model_id, revision=revision, **how)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None = None, **how: Any) -> HubVAE:
        local = Path(model_id).expanduser()
        folder = local if local.is_dir() else fetched(model_id, revision, **how)
        trained, config = model_from_checkpoint(folder)
        model = cls(config, folder)
        if folder is not local:  # in the cache a folder has a commit's name
            model._name = model_id.rpartition("/")[2]
        model.load_state_dict(trained.state_dict())
        model._digest = model._digest_now()
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **how: Any) -> str | None:
        """Save to a folder, as any model of the Hub's; see `docs/hub.md`.

        An OutputError, before anything is written, where that is the one it was loaded from: a run
        has images and options that a model in this form has not.
        """
        folder = Path(save_directory)
        if folder.resolve() == self._source.resolve():
            raise OutputError(f"{folder} is where this model was loaded from: name another folder")
        if self._is_as_loaded:
            check_small_files(self._source, self.spec)  # before any of an earlier model's goes
        found: str | None = super().save_pretrained(folder, **how)
        return found

    def _save_pretrained(self, save_directory: Path) -> None:
        for name in SMALL_FILES:  # those of an earlier model would say nothing of this one
            (save_directory / name).unlink(missing_ok=True)
        if self._is_as_loaded:
            copy_small_files(self._source, save_directory, self.spec)
        write_weights(self.run_config, weights_of(self), save_directory, dtype="float32")

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the card that `motorvae hub save` writes; see `docs/hub.md`."""
        folder = self._source if self._is_as_loaded else Path("none")
        config = self.run_config.model_copy(update={"weights_dtype": "float32"})
        facts = facts_of_run(config, folder, name=self._name)
        return card_of(facts, is_bundle=False)

    @property
    def _is_as_loaded(self) -> bool:
        return self._digest == self._digest_now()

    def _digest_now(self) -> str:
        return hashlib.sha256(safetensors.torch.save(weights_of(self))).hexdigest()
