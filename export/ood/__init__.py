"""What out-of-distribution detection can tell for one model, tried on generated images."""
