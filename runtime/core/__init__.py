"""What all packages share: errors, frames, rows, the model's sizes, atomic files."""
