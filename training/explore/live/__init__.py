"""What a stream sees in the latent space, in the Rerun view."""
