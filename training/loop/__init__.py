"""What Lightning's Trainer runs: steps, the two-stage schedule, progress and plots."""
