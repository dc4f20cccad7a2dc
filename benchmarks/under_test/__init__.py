"""What is measured: models, engines, processes, scenes."""
