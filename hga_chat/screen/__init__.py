"""The terminal application: documents, transcript, and what each answer reads while it streams."""
