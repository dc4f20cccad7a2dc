"""The model, its loss and schedule, and the data it learns from."""
