"""Files that are text already: plain text, Markdown, notebooks, tables."""
