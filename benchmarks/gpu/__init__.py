"""motorvae-doctor gpu: every way to run the encoder on this GPU."""
