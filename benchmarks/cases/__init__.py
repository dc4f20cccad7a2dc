"""The cases of motorvae-bench: of the model, of a frame to its latent, of whole processes."""
