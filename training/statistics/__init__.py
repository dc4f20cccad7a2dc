"""What known images and their latents look like, estimated from a training run."""
