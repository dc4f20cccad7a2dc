"""Graphs from elsewhere, brought into the one form that all graphs of a bundle have."""
