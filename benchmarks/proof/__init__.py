"""`make gpu-proof`: what a GPU shows of motorVAE, step by step, as one JSON and one page."""
