#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stats.h"

/* The key and the answer of RFC 6455, section 1.3. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* RFC 6455, section 5.2. */
enum { OP_CONTINUATION = 0, OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

#define READ_MAX (1 << 20)
/* Connections are spread over this many source addresses, so that ports never run out. */
#define SOURCES 8

uint64_t bytes_read, reads;
static char buffer[READ_MAX];

static void grow(char **area, size_t *cap, size_t need) {
    if (need <= *cap) return;
    *cap = need * 2;
    *area = realloc(*area, *cap);
    if (*area == NULL) {
        fprintf(stderr, "load: out of memory\n");
        exit(2);
    }
}

static void fail(connection *c, const char *why) {
    if (c->state == CLOSED) return;
    connection_close(c);
    events.on_closed(c, why);
}

void connection_close(connection *c) {
    if (c->fd >= 0) close(c->fd);
    free(c->held);
    free(c->out);
    c->held = c->out = NULL;
    c->held_len = c->held_cap = c->out_len = c->out_cap = 0;
    c->fd = -1;
    c->state = CLOSED;
}

void connection_open(connection *c, int epoll, uint16_t port, unsigned index) {
    int one = 1;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 0x100 + index % SOURCES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        fprintf(stderr, "load: no socket: %s; raise the limit on open files (ulimit -n)\n", strerror(errno));
        exit(2);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    c->state = CONNECTING;
    bool refused = bind(c->fd, (struct sockaddr *)&from, sizeof from) != 0 ||
                   (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    c->wants_out = true;
    if (refused)
        fail(c, strerror(errno));
    else
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
}

static void put(connection *c, const void *bytes, size_t len) {
    grow(&c->out, &c->out_cap, c->out_len + len);
    memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len;
}

/* Write a frame's header; the mask is zero, which the server cannot know, so that it costs only the server. */
static size_t put_header(char *at, int opcode, size_t len) {
    size_t size = 2;
    at[0] = (char)(0x80 | opcode);
    if (len < 126) {
        at[1] = (char)(0x80 | len);
    } else {
        at[1] = (char)(0x80 | 126);
        at[2] = (char)(len >> 8);
        at[3] = (char)len;
        size = 4;
    }
    memset(at + size, 0, 4);
    return size + 4;
}

/* What a PUSH socket says first: greeting and READY (ZMTP 3.0, RFC 23/ZMTP, sections "greeting" and "null"). */
static void put_zmtp_greeting(connection *c) {
    static const char GREETING[64] = {(char)0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    static const char READY[] = "\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH";
    put(c, GREETING, sizeof GREETING);
    put(c, READY, sizeof READY - 1);
}

/* Put a message of one frame; long ones have their length in eight bytes. */
static void put_zmtp_frame(connection *c, const char *text, size_t len) {
    char header[9] = {len < 256 ? 0 : 2};
    size_t size = len < 256 ? 2 : 9;
    for (size_t i = size - 1, left = len; i > 0; i--, left >>= 8) header[i] = (char)left;
    put(c, header, size);
    put(c, text, len);
}

static void put_frame(connection *c, int opcode, const char *text, size_t len) {
    char header[14];
    put(c, header, put_header(header, opcode, len));
    put(c, text, len);
}

void connection_send_template(connection *c, const template *t, uint64_t ref, uint64_t stamp) {
    char text[70000];
    if (template_max(t) > 65535) {
        fprintf(stderr, "load: messages of more than 65,535 bytes are not supported\n");
        exit(2);
    }
    size_t len = template_fill(t, text, c->room, ref, stamp);
    if (c->sort->wire == RAW)
        put(c, text, len);
    else if (c->sort->wire == ZMTP)
        put_zmtp_frame(c, text, len);
    else
        put_frame(c, OP_TEXT, text, len);
}

void connection_flush(connection *c, int epoll) {
    bool full = false;
    if (c->state == CLOSED) return;
    if (c->out_len) {
        ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            fail(c, strerror(errno));
            return;
        }
        if (n > 0) {
            memmove(c->out, c->out + n, c->out_len - (size_t)n);
            c->out_len -= (size_t)n;
        }
        full = c->out_len > 0;
    }
    if (full != c->wants_out) {
        struct epoll_event event = {.events = full ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
        c->wants_out = full;
    }
}

static void put_template(connection *c, const char *text, bool is_frame) {
    template t;
    char filled[8192];
    template_parse(&t, text, 0);
    if (template_max(&t) > sizeof filled) {
        fprintf(stderr, "load: this is too long: %.60s...\n", text);
        exit(2);
    }
    size_t len = template_fill(&t, filled, c->room, 0, 0);
    if (is_frame)
        put_frame(c, OP_TEXT, filled, len);
    else
        put(c, filled, len);
}

static void put_request(connection *c) {
    static const char UPGRADE[] = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY
                                  "\r\nSec-WebSocket-Version: 13\r\n\r\n";
    put(c, "GET ", 4);
    put_template(c, c->sort->path, false);
    put_template(c, " HTTP/1.1\r\nHost: localhost\r\n", false);
    if (c->sort->wire == WEBSOCKET)
        put(c, UPGRADE, sizeof UPGRADE - 1);
    else
        put_template(c, c->sort->wire == STREAM ? "Accept: text/event-stream\r\n\r\n" : "Accept: */*\r\n\r\n", false);
}

static void advance(connection *c) {
    if (c->step < c->sort->steps) {
        c->state = HELLO;
        if (*c->sort->hello[c->step]) put_template(c, c->sort->hello[c->step], true);
        return;
    }
    if (c->messages < c->sort->ready_messages) {
        c->state = RECOVERING;
        return;
    }
    c->state = OPEN;
    events.on_open(c);
}

static void take_message(connection *c, const char *mark, uint64_t now) {
    c->messages++;
    if (c->state == RECOVERING && c->messages >= c->sort->ready_messages) {
        c->state = OPEN;
        events.on_open(c);
    } else if (c->state == OPEN) {
        events.on_message(c, stamp_parse(mark + MARK_LEN), now);
    }
}

static void take_text(connection *c, const char *text, size_t len, uint64_t now) {
    const char *mark = NULL;
    if (c->mark_from_end && c->mark_from_end <= len && memcmp(text + len - c->mark_from_end, MARK, MARK_LEN) == 0)
        mark = text + len - c->mark_from_end;
    else if (len > MARK_LEN + STAMP_DIGITS)
        mark = memmem(text, len - STAMP_DIGITS, MARK, MARK_LEN);
    if (mark != NULL) {
        c->mark_from_end = (size_t)(text + len - mark);
        take_message(c, mark, now);
    } else if (len == 1 && text[0] == '2') {
        put_frame(c, OP_TEXT, "3", 1); /* Engine.IO's ping and pong */
    } else if (c->state == HELLO) {
        const char *wanted = c->sort->answer[c->step];
        if (*wanted == 0 || memmem(text, len, wanted, strlen(wanted)) != NULL) {
            c->step++;
            advance(c);
        }
    } else {
        events.on_reply(c, text, len);
    }
}

/* Take each line of a frame as a message of its own; an empty command is a ping, and asks for an empty one. */
static void take_lines(connection *c, const char *text, size_t len, uint64_t now) {
    while (len && c->state != CLOSED) {
        const char *end = memchr(text, '\n', len);
        size_t size = end ? (size_t)(end - text) : len;
        if (size == 2 && memcmp(text, "{}", 2) == 0)
            put_frame(c, OP_TEXT, "{}", 2);
        else if (size)
            take_text(c, text, size, now);
        if (!end) break;
        text += size + 1;
        len -= size + 1;
    }
}

/* Take all whole frames; return how many bytes they had. */
static size_t take_frames(connection *c, const char *bytes, size_t len, uint64_t now) {
    size_t used = 0;
    while (len - used >= 2 && c->state != CLOSED) {
        const unsigned char *p = (const unsigned char *)bytes + used;
        size_t header = 2, size = p[1] & 0x7f;
        if (size == 126) header = 4;
        if (size == 127) header = 10;
        if (len - used < header) break;
        if (header > 2) {
            size = 0;
            for (size_t i = 2; i < header; i++) size = size << 8 | p[i];
        }
        if (size > READ_MAX / 2) {
            fail(c, "a frame of more than half a MiB");
            break;
        }
        if (len - used < header + size) break;
        const char *payload = bytes + used + header;
        used += header + size;
        switch (p[0] & 0x0f) {
        case OP_CONTINUATION:
        case OP_TEXT:
        case OP_BINARY:
            if (c->sort->lines)
                take_lines(c, payload, size, now);
            else
                take_text(c, payload, size, now);
            break;
        case OP_PING: put_frame(c, OP_PONG, payload, size); break;
        case OP_CLOSE: fail(c, "the server closed the WebSocket"); break;
        }
    }
    return used;
}

/* Find the next mark: most often as far behind the one before as that was behind its own. */
static const char *find_mark(const connection *c, const char *bytes, size_t len) {
    if (c->mark_apart && c->mark_apart + MARK_LEN <= len && memcmp(bytes + c->mark_apart, MARK, MARK_LEN) == 0)
        return bytes + c->mark_apart;
    return memmem(bytes, len, MARK, MARK_LEN);
}

/* Take what is marked in a body, whatever its format and chunks are; return how much need not be seen again. */
static size_t take_body(connection *c, const char *bytes, size_t len, uint64_t now) {
    size_t used = 0;
    while (len - used >= MARK_LEN) {
        const char *mark = find_mark(c, bytes + used, len - used);
        if (mark == NULL) return len - (MARK_LEN - 1);
        if (used) c->mark_apart = (size_t)(mark - (bytes + used));
        used = (size_t)(mark - bytes);
        if (len - used < MARK_LEN + STAMP_DIGITS) break;
        take_message(c, mark, now);
        used += MARK_LEN + STAMP_DIGITS;
    }
    return used;
}

static size_t take_head(connection *c, const char *bytes, size_t len) {
    char *end = memmem(bytes, len, "\r\n\r\n", 4);
    bool is_websocket = c->sort->wire == WEBSOCKET;
    if (end == NULL) return 0;
    if (memcmp(bytes, is_websocket ? "HTTP/1.1 101" : "HTTP/1.1 200", 12) != 0) {
        char why[200];
        snprintf(why, sizeof why, "the server answered %.*s", (int)(len < 150 ? len : 150), bytes);
        fail(c, why);
        return 0;
    }
    if (is_websocket && memmem(bytes, len, ACCEPT, strlen(ACCEPT)) == NULL) {
        fail(c, "the Sec-WebSocket-Accept is wrong");
        return 0;
    }
    advance(c);
    return (size_t)(end + 4 - bytes);
}

static void on_readable(connection *c) {
    size_t len = c->held_len, used = 0;
    if (len) memcpy(buffer, c->held, len);
    ssize_t n = recv(c->fd, buffer + len, READ_MAX - len, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        fail(c, n < 0 ? strerror(errno) : "the server closed the connection");
        return;
    }
    uint64_t now = now_ns();
    if (c->sort->wire == RAW || c->sort->wire == ZMTP) return;
    reads++;
    bytes_read += (uint64_t)n;
    len += (size_t)n;
    if (c->state == HEAD) used = take_head(c, buffer, len);
    if (c->state != HEAD && c->state != CLOSED) {
        if (c->sort->wire == WEBSOCKET)
            used += take_frames(c, buffer + used, len - used, now);
        else
            used += take_body(c, buffer + used, len - used, now);
    }
    if (c->state == CLOSED) return;
    c->held_len = len - used;
    if (c->held_len) {
        grow(&c->held, &c->held_cap, c->held_len);
        memcpy(c->held, buffer + used, c->held_len);
    }
}

void connection_on_event(connection *c, int epoll, uint32_t what) {
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            fail(c, strerror(error));
            return;
        }
        if (!(what & EPOLLOUT)) return;
        if (c->sort->wire == RAW || c->sort->wire == ZMTP) {
            if (c->sort->wire == ZMTP) put_zmtp_greeting(c);
            c->state = OPEN;
            connection_flush(c, epoll);
            events.on_open(c);
            return;
        }
        put_request(c);
        c->state = HEAD;
        if (c->sort->wire == POLL) {
            /* The answer comes only with a message: the request alone makes it a waiting poll. */
            c->state = OPEN;
            connection_flush(c, epoll);
            events.on_open(c);
            return;
        }
    } else if (what & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        on_readable(c);
    }
    if (c->state != CLOSED && (c->out_len || c->wants_out)) connection_flush(c, epoll);
}
