"""`motorvae explore`: what a model has learned, as pictures and numbers, of a run or a bundle."""
