"""The synthetic camera: procedural vehicles, with faults on demand."""
