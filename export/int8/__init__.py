"""INT8 graphs: calibration images, the search for ranges, and what is kept."""
