"""Colours, bars and frames that widgets share."""
