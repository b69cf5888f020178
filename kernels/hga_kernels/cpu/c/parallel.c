#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() ((void)0)
#endif

// Workers spin for about a quarter of a millisecond before they sleep: longer than the pause
// between two kernels of one token, too short for anyone to notice.
enum { MAX_THREADS = 256, SPINS = 20000 };

static pthread_mutex_t caller_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t sleep_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

static int started = 0;

// A job is open while items may be left. A worker counts itself as active before it checks whether
// a job is open. So a caller that has closed its job and sees no active worker is done, and never
// waits for a worker that the system has not woken yet.
static void (*job_task)(void *, int);
static void *job_context;
static int job_shares;
static atomic_int open_job;
static atomic_int active;
static atomic_uint generation;

// Each thread has a share of neighbouring items, so that it reads memory in order, which CPUs do
// fastest. When its own share is done, it takes items of the others'.
static struct {
    _Alignas(64) atomic_int next;
    int end;
} shares[MAX_THREADS];

static void run_items(int thread) {
    for (int i = 0; i < job_shares; i++) {
        int share = (thread + i) % job_shares;
        for (;;) {
            int item = atomic_fetch_add(&shares[share].next, 1);
            if (item >= shares[share].end) break;
            job_task(job_context, item);
        }
    }
}

static void *worker(void *number) {
    int thread = (int)(intptr_t)number;
    unsigned seen = atomic_load(&generation);
    for (;;) {
        for (int spins = 0; atomic_load(&generation) == seen && spins < SPINS; spins++) RELAX();
        if (atomic_load(&generation) == seen) {
            pthread_mutex_lock(&sleep_lock);
            while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &sleep_lock);
            pthread_mutex_unlock(&sleep_lock);
        }
        seen = atomic_load(&generation);
        atomic_fetch_add(&active, 1);
        if (atomic_load(&open_job)) run_items(thread);
        atomic_fetch_sub(&active, 1);
    }
    return NULL;
}

void parallel_for(void (*task)(void *, int), void *context, int items) {
    if (items <= 0) return;
    if (items == 1 || started == 0) {
        for (int item = 0; item < items; item++) task(context, item);
        return;
    }
    pthread_mutex_lock(&caller_lock);
    job_task = task;
    job_context = context;
    job_shares = started + 1;
    for (int i = 0; i < job_shares; i++) {
        atomic_store(&shares[i].next, (int)((int64_t)items * i / job_shares));
        shares[i].end = (int)((int64_t)items * (i + 1) / job_shares);
    }
    atomic_store(&open_job, 1);
    pthread_mutex_lock(&sleep_lock);
    atomic_fetch_add(&generation, 1);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&sleep_lock);
    run_items(0);
    atomic_store(&open_job, 0);
    for (int spins = 0; atomic_load(&active) != 0; spins++)
        if (spins < SPINS) RELAX();
        else sched_yield();
    pthread_mutex_unlock(&caller_lock);
}

int threads_running(void) { return started + 1; }

int hga_set_threads(int threads) {
    pthread_mutex_lock(&caller_lock);
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    while (started < threads - 1) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(intptr_t)(started + 1))) break;
        pthread_detach(thread);
        started++;
    }
    pthread_mutex_unlock(&caller_lock);
    return 0;
}
