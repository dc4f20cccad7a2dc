"""Two graphs of anybody and a folder of images: the verification gate without a bundle."""
