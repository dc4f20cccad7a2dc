"""Whole data sets through the encoder: what is in them, decoding, batches, results in parts."""
