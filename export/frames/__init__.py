"""Whole frames: encoders that take a camera's own picture, verified, in a bundle or a file."""
