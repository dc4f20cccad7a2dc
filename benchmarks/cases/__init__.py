"""The cases of motorvae-bench, a module for each kind."""
