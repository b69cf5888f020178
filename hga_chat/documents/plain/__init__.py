"""Formats that are text: plain text, source code, Markdown, tables."""
