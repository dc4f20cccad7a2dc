"""The benchmark of out-of-distribution detection on anybody's images."""
