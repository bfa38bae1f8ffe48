"""What fits of all kinds share."""
