"""What memory there is, what a session will take, and what it takes."""
