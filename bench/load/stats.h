/* Clocks, CPU accounting and a latency histogram. All times are in nanoseconds. */
#ifndef STATS_H
#define STATS_H

#include <stdint.h>
#include <sys/types.h>

/* 64 buckets per power of two: a quantile is at most 1.6 % above the true value. */
#define HISTOGRAM_BUCKETS (60 * 64)

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t largest;
} histogram;

void histogram_clear(histogram *h);
void histogram_add(histogram *h, uint64_t value);
uint64_t histogram_quantile(const histogram *h, double quantile);

uint64_t now_ns(void);

/* CPU time of this process, user and system. */
uint64_t own_cpu_ns(void);

/* CPU time of all threads of the given processes: exact, unlike the 10 ms ticks of /proc/PID/stat. */
uint64_t cpu_ns_of(const pid_t *pids, int count);

/* Time that the first threads of the given processes were ready to run and had no core. */
uint64_t queued_ns_of(const pid_t *pids, int count);

/* Time that the core to which a process is bound was busy, with anything; 0 where it is not bound to a single one. */
uint64_t core_busy_ns_of(pid_t pid);

#endif
