"""The public face, which stands above all packages and may import any of them."""
