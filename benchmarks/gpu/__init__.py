"""motorvae-doctor gpu: the encoder on every engine of this GPU."""
