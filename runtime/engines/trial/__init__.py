"""A graph of a bundle that is not ours is opened in a process of its own first."""
