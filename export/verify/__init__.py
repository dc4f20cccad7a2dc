"""Verification: graphs and engines compared with a reference, and the limits."""
