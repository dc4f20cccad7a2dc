"""A whole data set through encoders on several machines, by Ray Data."""
