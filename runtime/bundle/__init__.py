"""The bundle on disk: graph names, manifest, loading with every hash checked."""
