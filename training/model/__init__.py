"""The VAE, its loss, and which of its latent units carry information."""
