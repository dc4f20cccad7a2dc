"""What a Jetson says of itself in files: release, power mode, clocks, heat, supply, container."""
