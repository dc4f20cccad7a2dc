"""Sources of frames: cameras, videos, network streams, images, and a synthetic camera."""
