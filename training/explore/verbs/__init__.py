"""The verbs of `motorvae explore`: each takes its options and gives a `Result`."""
