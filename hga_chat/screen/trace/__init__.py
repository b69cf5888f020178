"""What answers attended to, block by block."""
