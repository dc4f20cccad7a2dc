"""Verification: graphs and engines held against a reference, and the limits."""
