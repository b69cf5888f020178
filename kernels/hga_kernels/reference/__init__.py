"""Every kernel in plain torch."""
