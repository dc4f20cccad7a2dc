"""Reading a command line into options, which are a frozen dataclass."""
