/* One non-blocking connection to the server under test: handshake, frames in, frames out. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "template.h"

#define STEPS_MAX 4

/* How connections of one sort are opened. */
typedef struct {
    /* RAW: messages are whole requests, whose answers are not looked at. ZMTP: the same, for a PULL socket of ZeroMQ. */
    enum { WEBSOCKET, STREAM, POLL, RAW, ZMTP } wire;
    bool lines;                     /* a frame may hold several messages, one a line; {} is a ping */
    const char *path;               /* may hold {room} */
    const char *hello[STEPS_MAX];   /* a text frame to send, and what its answer contains */
    const char *answer[STEPS_MAX];
    int steps;
    unsigned ready_messages;        /* messages that must have come besides, before the connection counts as open */
} sort;

typedef struct {
    int fd;
    unsigned room;
    const sort *sort;
    enum { IDLE, CONNECTING, HEAD, HELLO, RECOVERING, OPEN, CLOSED } state;
    int step;
    unsigned messages;
    size_t mark_from_end;           /* where the last message had its mark: the next one mostly has it there too */
    size_t mark_apart;              /* in a stream: what stood between the last two messages' stamps and marks */
    char *held;                     /* what came of a frame that is not whole yet */
    size_t held_len, held_cap;
    char *out;                      /* what the socket did not take yet */
    size_t out_len, out_cap;
    bool wants_out;
} connection;

/* What the connections report; the times are when the bytes were read. */
typedef struct {
    void (*on_open)(connection *c);
    void (*on_message)(connection *c, uint64_t stamp, uint64_t now);
    void (*on_reply)(connection *c, const char *text, size_t len);   /* a frame without a mark, once open */
    void (*on_closed)(connection *c, const char *why);
} listener;

extern listener events;
extern uint64_t bytes_read, reads;

void connection_open(connection *c, int epoll, uint16_t port, unsigned index);
void connection_on_event(connection *c, int epoll, uint32_t what);
void connection_close(connection *c);

/* Put a text frame behind what waits to be sent; connection_flush sends it. */
void connection_send_template(connection *c, const template *t, uint64_t ref, uint64_t stamp);
void connection_flush(connection *c, int epoll);

#endif
