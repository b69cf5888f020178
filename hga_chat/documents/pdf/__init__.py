"""PDF files, parsed in a child process."""
