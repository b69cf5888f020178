"""Make the 64K adapter of the embedded model: data, tasks, training, checks."""
