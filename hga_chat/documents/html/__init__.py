"""HTML pages, parsed in a child process."""
