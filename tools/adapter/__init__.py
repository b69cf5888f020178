"""How the 64K adapter of the embedded model is made: data, tasks, training, measures."""
