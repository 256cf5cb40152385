#define _GNU_SOURCE
#include "stats.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void histogram_clear(histogram *h) { memset(h, 0, sizeof *h); }

void histogram_add(histogram *h, uint64_t value) {
    unsigned index;
    if (value < 64) {
        index = (unsigned)value;
    } else {
        unsigned shift = 57u - (unsigned)__builtin_clzll(value);
        index = shift * 64 + (unsigned)(value >> shift);
    }
    if (index >= HISTOGRAM_BUCKETS) index = HISTOGRAM_BUCKETS - 1;
    h->counts[index]++;
    h->total++;
    if (value > h->largest) h->largest = value;
}

uint64_t histogram_quantile(const histogram *h, double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)h->total);
    uint64_t seen = 0;
    for (unsigned index = 0; index < HISTOGRAM_BUCKETS; index++) {
        seen += h->counts[index];
        if (seen > wanted) {
            unsigned shift = index < 128 ? 0 : index / 64 - 1;
            uint64_t upper = ((uint64_t)(index - shift * 64) + 1) << shift;
            return upper < h->largest ? upper : h->largest;
        }
    }
    return h->largest;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) != 0) return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

uint64_t own_cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

uint64_t cpu_ns_of(const pid_t *pids, int count) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        clockid_t clock;
        if (clock_getcpuclockid(pids[i], &clock) == 0) sum += clock_ns(clock);
    }
    return sum;
}

uint64_t queued_ns_of(const pid_t *pids, int count) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        char path[64];
        unsigned long long queued = 0;
        snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pids[i]);
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        if (fscanf(file, "%*u %llu", &queued) == 1) sum += queued;
        fclose(file);
    }
    return sum;
}

uint64_t core_busy_ns_of(pid_t pid) {
    cpu_set_t cores;
    char line[256], wanted[16];
    uint64_t busy = 0;
    if (sched_getaffinity(pid, sizeof cores, &cores) != 0 || CPU_COUNT(&cores) != 1) return 0;
    int core = 0;
    while (!CPU_ISSET(core, &cores)) core++;
    int len = snprintf(wanted, sizeof wanted, "cpu%d ", core);
    FILE *file = fopen("/proc/stat", "r");
    if (file == NULL) return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
        if (strncmp(line, wanted, (size_t)len) != 0) continue;
        if (sscanf(line + len, "%llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait, &irq,
                   &softirq, &steal) == 8)
            busy = (user + nice + system + irq + softirq + steal) * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
        break;
    }
    fclose(file);
    return busy;
}
