"""motorvae import: weights from elsewhere, and images, to a run or a bundle."""
