"""A conversation over documents: prompts, answers, verification, and opening a session."""
