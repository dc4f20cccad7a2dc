"""How well latents hold known factors of images."""
