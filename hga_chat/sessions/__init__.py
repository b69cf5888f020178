"""Sessions on disk: documents and turns as JSON, K/V in the cache directory."""
