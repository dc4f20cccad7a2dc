"""Data sets as mapped arrays of model-sized images, and batches from them."""
