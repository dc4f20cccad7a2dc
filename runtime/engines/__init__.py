"""Inference engines: what each can do, which one is selected, and opening it."""
