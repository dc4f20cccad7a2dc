"""motorvae-doctor: what this machine has, and what its cameras deliver."""
