// A small pool of worker threads shared by all CPU kernels.
#pragma once

// Runs task(context, item) for every item in [0, items), on all threads; returns when all are done.
// Calls from several threads at once take turns.
void parallel_for(void (*task)(void *context, int item), void *context, int items);

int hga_set_threads(int threads);

// How many take part in a job, with its caller.
int threads_running(void);
