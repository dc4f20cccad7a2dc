"""Frames in, latents out: all that runs on the device. Needs no torch."""
