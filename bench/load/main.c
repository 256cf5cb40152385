/*
 * load: holds many connections to a server, publishes at a steady rate, and counts what arrives and when.
 *
 * Settings are NAME=VALUE arguments; then it opens all connections, says so, and takes commands on standard input:
 *
 *     fan rate=R warm=S secs=S drain=S    publish R messages a second, the first `warm` seconds uncounted
 *     ack window=N warm=S secs=S          publish over one connection with N unanswered messages at any time
 *     quit
 *
 * Each answer is one line of JSON. A message carries the time for which its publishing was planned, so that a load
 * generator or server that falls behind shows as latency. Everything is one thread: its CPU share tells whether it was
 * the bottleneck.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "connection.h"
#include "stats.h"

#define EVENTS 64
#define PIDS_MAX 8
/* A publisher whose server takes nothing stops here. */
#define PUBLISHER_MAX_BYTES (8u << 20)
#define WINDOW_MAX 65536u

static struct {
    unsigned port, pub_port, count, rooms, parallel, data_bytes;
    bool members_publish;
    sort subscriber, publisher;
    template message;
    pid_t pids[PIDS_MAX];
    int pid_count;
} settings = {.count = 1, .rooms = 1, .parallel = 256, .data_bytes = 126};

static int epoll, timer;
static connection *subscribers, publisher;
static unsigned opened, closed, opening;
static uint64_t gaps, errors, replies, published;
static char first_trouble[256];

/* What is being measured. Messages planned from `from` up to `to` count. */
static struct {
    uint64_t from, to, delivered;
    bool of_replies;
    histogram latency;
} window;

typedef struct {
    uint64_t wall, server, own, queued, own_queued, busy, bytes, reads;
} reading;

static reading read_clocks(void) {
    pid_t self = getpid();
    return (reading){now_ns(), cpu_ns_of(settings.pids, settings.pid_count), own_cpu_ns(),
                     queued_ns_of(settings.pids, settings.pid_count), queued_ns_of(&self, 1),
                     settings.pid_count ? core_busy_ns_of(settings.pids[0]) : 0, bytes_read, reads};
}

static void note_trouble(const char *text, size_t len) {
    if (*first_trouble) return;
    size_t n = 0;
    for (size_t i = 0; i < len && n < sizeof first_trouble - 1; i++)
        if (text[i] >= ' ' && text[i] != '"' && text[i] != '\\') first_trouble[n++] = text[i];
}

static void on_open(connection *c) {
    (void)c;
    opened++;
    opening--;
}

static uint64_t sent_at[WINDOW_MAX];

static void count_reply(void) {
    if (window.of_replies) histogram_add(&window.latency, now_ns() - sent_at[replies % WINDOW_MAX]);
    replies++;
}

static void on_message(connection *c, uint64_t stamp, uint64_t now) {
    if (c == &publisher) {
        count_reply(); /* an echo */
        return;
    }
    if (stamp < window.from || stamp >= window.to) return;
    window.delivered++;
    histogram_add(&window.latency, now > stamp ? now - stamp : 0);
}

static void on_reply(connection *c, const char *text, size_t len) {
    (void)c;
    if (memmem(text, len, "\"type\":\"gap\"", 12)) {
        gaps++;
        note_trouble(text, len);
    } else if (memmem(text, len, "\"type\":\"error\"", 14)) {
        errors++;
        note_trouble(text, len);
    } else if (memmem(text, len, "\"heartbeat\"", 11) == NULL) {
        count_reply();
    }
}

static void on_closed(connection *c, const char *why) {
    (void)c;
    closed++;
    if (opening) opening--;
    note_trouble(why, strlen(why));
}

listener events = {on_open, on_message, on_reply, on_closed};

/* Handle what is ready; wait up to timeout_ms for it. Return false once standard input has something. */
static bool turn(int timeout_ms) {
    struct epoll_event ready[EVENTS];
    bool command = false;
    int n = epoll_wait(epoll, ready, EVENTS, timeout_ms);
    for (int i = 0; i < n; i++) {
        if (ready[i].data.ptr == NULL)
            command = true;
        else if (ready[i].data.ptr != &timer)
            connection_on_event(ready[i].data.ptr, epoll, ready[i].events);
    }
    return !command;
}

static void set_timer(uint64_t at) {
    struct itimerspec when = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Time that other programs held the server's core: what it waited for it, but for the waiting of its processes and
   threads for each other, which leaves the core no more busy than they are. */
static uint64_t held_by_others(reading a, reading b) {
    uint64_t queued = b.queued - a.queued, busy = b.busy - a.busy, server = b.server - a.server;
    if (b.busy == 0) return queued;
    return busy <= server ? 0 : busy - server < queued ? busy - server : queued;
}

static void print_reading(reading a, reading b) {
    double wall = (double)(b.wall - a.wall);
    printf("\"wall_s\":%.4f,\"server_cpu_s\":%.6f,\"own_cpu_s\":%.6f,\"server_cpu_share\":%.4f,\"own_cpu_share\":%.4f,"
           "\"server_queued_share\":%.4f,\"own_queued_share\":%.4f,\"bytes_read\":%llu,\"reads\":%llu,"
           "\"gaps\":%llu,\"errors\":%llu,\"closed\":%u,\"trouble\":\"%s\"}\n",
           wall / 1e9, (double)(b.server - a.server) / 1e9, (double)(b.own - a.own) / 1e9,
           (double)(b.server - a.server) / wall, (double)(b.own - a.own) / wall, (double)held_by_others(a, b) / wall,
           (double)(b.own_queued - a.own_queued) / wall, (unsigned long long)(b.bytes - a.bytes),
           (unsigned long long)(b.reads - a.reads), (unsigned long long)gaps, (unsigned long long)errors, closed,
           first_trouble);
    fflush(stdout);
    gaps = errors = 0;
    first_trouble[0] = 0;
}

static void print_latency(void) {
    const histogram *h = &window.latency;
    printf("\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,",
           (double)histogram_quantile(h, 0.5) / 1e3, (double)histogram_quantile(h, 0.9) / 1e3,
           (double)histogram_quantile(h, 0.99) / 1e3, (double)histogram_quantile(h, 0.999) / 1e3,
           (double)h->largest / 1e3);
}

static connection *next_publisher(void) {
    return settings.members_publish ? &subscribers[published % settings.count] : &publisher;
}

static void run_fan(double rate, double warm, double secs, double drain) {
    uint64_t interval = (uint64_t)(1e9 / rate), start = now_ns() + 10000000u;
    uint64_t planned = (uint64_t)((warm + secs) * rate + 0.5), uncounted = (uint64_t)(warm * rate + 0.5), sent = 0;
    uint64_t expected = (planned - uncounted) * (settings.count / settings.rooms), give_up = UINT64_MAX, armed = 0;
    reading before = read_clocks();
    histogram_clear(&window.latency);
    window.from = start + uncounted * interval;
    window.to = start + planned * interval;
    window.delivered = 0;
    while (window.delivered < expected) {
        uint64_t now = now_ns(), due = start + sent * interval;
        connection *last = NULL;
        if (now > give_up) break;
        while (sent < planned && due <= now) {
            connection *c = next_publisher();
            if (c->state != OPEN || c->out_len > PUBLISHER_MAX_BYTES) break;
            if (sent == uncounted) before = read_clocks();
            connection_send_template(c, &settings.message, published++, due);
            if (settings.members_publish) connection_flush(c, epoll);
            last = c;
            due = start + ++sent * interval;
        }
        if (last != NULL && !settings.members_publish) connection_flush(last, epoll);
        if (give_up == UINT64_MAX && (sent == planned || now > window.to))
            give_up = window.to + (uint64_t)(drain * 1e9);
        if (sent < planned && due > now && due != armed) set_timer(armed = due);
        turn(sent == planned || due <= now ? 20 : 1000);
    }
    reading after = read_clocks();
    printf("{\"rate\":%.1f,\"planned\":%llu,\"sent\":%llu,\"expected\":%llu,\"delivered\":%llu,", rate,
           (unsigned long long)planned, (unsigned long long)sent, (unsigned long long)expected,
           (unsigned long long)window.delivered);
    print_latency();
    print_reading(before, after);
}

static void run_ack(unsigned in_flight, double warm, double secs) {
    uint64_t sent = replies, counted = 0, now = now_ns();
    uint64_t from = now + (uint64_t)(warm * 1e9), to = from + (uint64_t)(secs * 1e9);
    reading before = read_clocks(), after;
    histogram_clear(&window.latency);
    if (in_flight > WINDOW_MAX) in_flight = WINDOW_MAX;
    while ((now = now_ns()) < to && publisher.state == OPEN) {
        if (!window.of_replies && now >= from) {
            before = read_clocks();
            counted = replies;
            window.of_replies = true;
        }
        /* Replies come in order: the nth belongs to the nth message of this connection. */
        for (; sent - replies < in_flight; sent++) {
            sent_at[sent % WINDOW_MAX] = now;
            connection_send_template(&publisher, &settings.message, published++, now);
        }
        connection_flush(&publisher, epoll);
        turn(100);
    }
    after = read_clocks();
    counted = replies - counted;
    window.of_replies = false;
    /* What is still under way must not be taken for the next run's. */
    for (uint64_t limit = now_ns() + 2000000000u; replies < sent && now_ns() < limit;) turn(20);
    printf("{\"acks\":%llu,\"window\":%u,\"unanswered\":%llu,", (unsigned long long)counted, in_flight,
           (unsigned long long)(sent - replies));
    print_latency();
    print_reading(before, after);
}

static void connect_all(void) {
    unsigned begun = 0, wanted = settings.count;
    bool has_publisher = settings.publisher.path != NULL;
    reading before;
    if (has_publisher) {
        publisher = (connection){.fd = -1, .sort = &settings.publisher};
        opening = 1;
        connection_open(&publisher, epoll, (uint16_t)(settings.pub_port ? settings.pub_port : settings.port), 0);
        while (opening) turn(100);
        opened = 0;
    }
    before = read_clocks();
    while (!closed && opened < wanted) {
        while (!closed && begun < wanted && opening < settings.parallel) {
            connection *c = &subscribers[begun];
            *c = (connection){.fd = -1, .room = begun % settings.rooms, .sort = &settings.subscriber};
            opening++;
            connection_open(c, epoll, (uint16_t)settings.port, begun++);
        }
        turn(1000);
        if (now_ns() - before.wall > 120000000000u) break;
    }
    printf("{\"opened\":%u,\"wanted\":%u,", opened, wanted);
    print_reading(before, read_clocks());
}

static double number(const char *line, const char *name, double otherwise) {
    char wanted[32];
    snprintf(wanted, sizeof wanted, " %s=", name);
    const char *found = strstr(line, wanted);
    return found ? atof(found + strlen(wanted)) : otherwise;
}

/* Take one command; return false at the end. */
static bool take_command(void) {
    char line[512];
    if (fgets(line, sizeof line, stdin) == NULL || strncmp(line, "quit", 4) == 0) return false;
    if (strncmp(line, "fan", 3) == 0)
        run_fan(number(line, "rate", 50), number(line, "warm", 1), number(line, "secs", 5), number(line, "drain", 5));
    else if (strncmp(line, "ack", 3) == 0)
        run_ack((unsigned)number(line, "window", 256), number(line, "warm", 1), number(line, "secs", 3));
    else {
        fprintf(stderr, "load: unknown command: %s", line);
        return false;
    }
    return true;
}

static void set_steps(sort *s, const char *name, char *value) {
    bool is_hello = strstr(name, "hello") != NULL;
    int step = name[strlen(name) - 1] - '1';
    if (step < 0 || step >= STEPS_MAX) {
        fprintf(stderr, "load: %s: steps are numbered 1 to %d\n", name, STEPS_MAX);
        exit(2);
    }
    for (; s->steps <= step; s->steps++) s->hello[s->steps] = s->answer[s->steps] = "";
    if (is_hello)
        s->hello[step] = value;
    else
        s->answer[step] = value;
}

static void take_setting(char *name, char *value, char **message) {
    sort *s = strncmp(name, "pub_", 4) == 0 ? &settings.publisher : &settings.subscriber;
    if (strcmp(name, "port") == 0) settings.port = (unsigned)atoi(value);
    /* With a plus, so many above the server's port, which therefore comes first. */
    else if (strcmp(name, "pub_port") == 0) settings.pub_port = (unsigned)atoi(value) + (*value == '+' ? settings.port : 0);
    else if (strcmp(name, "count") == 0) settings.count = (unsigned)atoi(value);
    else if (strcmp(name, "rooms") == 0) settings.rooms = (unsigned)atoi(value);
    else if (strcmp(name, "parallel") == 0) settings.parallel = (unsigned)atoi(value);
    else if (strcmp(name, "data_bytes") == 0) settings.data_bytes = (unsigned)atoi(value);
    else if (strcmp(name, "members_publish") == 0) settings.members_publish = atoi(value) != 0;
    else if (strcmp(name, "sub_ready_messages") == 0) s->ready_messages = (unsigned)atoi(value);
    else if (strcmp(name, "tokens") == 0) template_read_tokens(value);
    else if (strcmp(name, "message") == 0) *message = value;
    else if (strcmp(name, "pid") == 0 && settings.pid_count < PIDS_MAX) settings.pids[settings.pid_count++] = atoi(value);
    else if (strcmp(name + 4, "path") == 0) s->path = value;
    else if (strcmp(name + 4, "wire") == 0) s->wire = *value == 's' ? STREAM : *value == 'p' ? POLL : *value == 'r' ? RAW : *value == 'z' ? ZMTP : WEBSOCKET;
    else if (strcmp(name + 4, "lines") == 0) s->lines = atoi(value) != 0;
    else if (strncmp(name + 4, "hello", 5) == 0 || strncmp(name + 4, "answer", 6) == 0) set_steps(s, name, value);
    else {
        fprintf(stderr, "load: unknown setting %s\n", name);
        exit(2);
    }
}

int main(int argc, char **argv) {
    char *message = "{data}";
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL || equals - argv[i] < 3) {
            fprintf(stderr, "load: %s is not NAME=VALUE\n", argv[i]);
            return 2;
        }
        *equals = 0;
        take_setting(argv[i], equals + 1, &message);
    }
    template_parse(&settings.message, message, settings.data_bytes);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event on_timer = {.events = EPOLLIN | EPOLLET, .data.ptr = &timer};
    struct epoll_event on_command = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &on_timer);
    setvbuf(stdin, NULL, _IONBF, 0);
    subscribers = calloc(settings.count ? settings.count : 1, sizeof *subscribers);
    connect_all();
    epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &on_command);
    for (;;) {
        while (turn(-1)) continue;
        epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
        if (!take_command()) break;
        epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &on_command);
    }
    return 0;
}
