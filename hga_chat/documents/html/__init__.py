"""HTML, parsed in a child process."""
