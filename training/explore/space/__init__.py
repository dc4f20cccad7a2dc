"""The latent space as a map: neighbours, projections, a page to look around in."""
