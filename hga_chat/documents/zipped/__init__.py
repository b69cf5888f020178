"""Formats that are zip archives of XML: Word and EPUB, parsed in a child process."""
