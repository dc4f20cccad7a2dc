"""Keys, and what they vouch for: engines that this machine built, and bundles that were signed."""
