"""Weights to begin with, or to export as they are: shipped models, runs, Hugging Face folders."""
