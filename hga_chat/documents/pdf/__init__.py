"""PDF, parsed in a child process."""
