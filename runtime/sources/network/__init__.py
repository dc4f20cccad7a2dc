"""What a network camera sends, read with a limit on every wait, size and address."""
