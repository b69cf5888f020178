"""Sessions on disk: documents and turns as JSON here, K/V where caches are kept."""
