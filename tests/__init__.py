"""The tests of motorVAE."""
