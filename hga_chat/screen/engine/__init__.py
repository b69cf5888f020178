"""The thread that owns the engine, and what it reports to the screen."""
