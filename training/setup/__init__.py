"""What surrounds training: config files, loggers and callbacks of the user's, the Trainer."""
