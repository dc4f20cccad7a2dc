"""The operators that a graph may hold: their attributes, and what shape and work each comes to."""
