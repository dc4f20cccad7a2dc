"""Images in tar shards: indexed once, and read from there again in each epoch."""
