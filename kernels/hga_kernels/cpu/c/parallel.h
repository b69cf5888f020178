// A small pool of worker threads shared by all CPU kernels.
#pragma once

#pragma GCC visibility push(hidden)

// Runs task(context, item) for every item in [0, items) on all threads; returns when all are done.
// Calls from several threads wait for each other.
void parallel_for(void (*task)(void *context, int item), void *context, int items);

// How many threads run a job, its caller among them.
int threads_running(void);

#pragma GCC visibility pop

// Starts threads until as many run a job, the caller among them.
int hga_set_threads(int threads);
