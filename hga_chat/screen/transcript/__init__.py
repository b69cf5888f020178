"""The conversation on the screen: its turns, their text, and its widget."""
