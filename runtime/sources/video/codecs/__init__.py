"""What a packet of a codec says of itself, read from its headers."""
