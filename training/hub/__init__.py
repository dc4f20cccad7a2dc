"""Hugging Face Hub form of runs and bundles: saved, pushed, pulled, with a model card."""
