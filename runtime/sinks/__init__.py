"""Outputs of latent rows: files, standard output, ZeroMQ, UDP, and Rerun."""
