"""Child processes with limits on time, memory and size, in which parsers run."""
