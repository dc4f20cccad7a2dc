"""What Lightning's Trainer runs: losses, steps, schedules, recipes, progress and plots."""
