"""Out-of-distribution detection: whether the model knows an image."""
