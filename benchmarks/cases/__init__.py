"""The cases of motorvae-bench: the model, a frame to its latent, whole processes, a GPU."""
