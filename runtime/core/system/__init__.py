"""What is asked of the operating system: locks, temporary folders, renames, child processes."""
