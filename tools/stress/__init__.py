"""Try to break the program: damaged input, killed processes, long use."""
