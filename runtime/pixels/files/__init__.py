"""Picture files of every kind, by what their bytes are, to pixels."""
