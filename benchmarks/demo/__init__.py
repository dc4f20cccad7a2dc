"""The demo: train, export, stream, and draw a report."""
