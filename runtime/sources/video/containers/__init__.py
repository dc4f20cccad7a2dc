"""What the containers of video say beside their packets."""
