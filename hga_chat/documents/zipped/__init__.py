"""ZIP archives of XML: Word and EPUB, parsed in a child process."""
