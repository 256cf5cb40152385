/*
 * The floor: a WebSocket server that writes each message with one send() per subscriber, and does nothing else.
 *
 *     send_loop PORT
 *
 * Who opens /sub gets every message that anybody else sends. No fragments, no compression, no queue: a subscriber whose
 * socket is full ends the program, since its figures would mean nothing.
 */
#define _GNU_SOURCE
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

#define FDS_MAX 65536
#define INPUT_MAX 65536

/* The answer to the key in RFC 6455, section 1.3, the only one that bench/load sends. */
static const char SWITCHED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static enum { NONE, REQUEST, SUBSCRIBER, PUBLISHER } roles[FDS_MAX];
static int subscribers[FDS_MAX], subscriber_count;
static unsigned char input[INPUT_MAX], message[INPUT_MAX];
static size_t input_len;

static void drop(int fd) {
    for (int i = 0; i < subscriber_count; i++)
        if (subscribers[i] == fd) subscribers[i] = subscribers[--subscriber_count];
    roles[fd] = NONE;
    close(fd);
}

static void broadcast(const unsigned char *payload, size_t len) {
    size_t header = 2;
    message[0] = 0x81;
    message[1] = (unsigned char)len;
    if (len > 125) {
        message[1] = 126;
        message[2] = (unsigned char)(len >> 8);
        message[3] = (unsigned char)len;
        header = 4;
    }
    memcpy(message + header, payload, len);
    for (int i = 0; i < subscriber_count; i++) {
        if (send(subscribers[i], message, header + len, MSG_NOSIGNAL) != (ssize_t)(header + len)) {
            fprintf(stderr, "send_loop: a socket is full or gone: %s\n", strerror(errno));
            exit(1);
        }
    }
}

/* Broadcast every whole masked frame; there is one publisher, so there is one buffer. */
static void take_frames(void) {
    size_t used = 0;
    while (input_len - used >= 6) {
        unsigned char *p = input + used;
        size_t header = 6, len = p[1] & 0x7f;
        if (len == 126) {
            header = 8;
            len = (size_t)p[2] << 8 | p[3];
        }
        if (input_len - used < header + len) break;
        for (size_t i = 0; i < len; i++) p[header + i] ^= p[header - 4 + i % 4];
        if ((p[0] & 0x0f) == 1) broadcast(p + header, len);
        used += header + len;
    }
    memmove(input, input + used, input_len - used);
    input_len -= used;
}

static void on_readable(int fd) {
    if (roles[fd] == PUBLISHER) {
        ssize_t n = recv(fd, input + input_len, INPUT_MAX - input_len, 0);
        if (n <= 0) {
            drop(fd);
            return;
        }
        input_len += (size_t)n;
        take_frames();
        return;
    }
    char text[4096];
    ssize_t n = recv(fd, text, sizeof text, 0);
    if (n <= 0) {
        drop(fd);
    } else if (roles[fd] == REQUEST) {
        roles[fd] = memmem(text, (size_t)n, "GET /sub ", 9) ? SUBSCRIBER : PUBLISHER;
        if (roles[fd] == SUBSCRIBER) subscribers[subscriber_count++] = fd;
        if (send(fd, SWITCHED, sizeof SWITCHED - 1, MSG_NOSIGNAL) < 0) drop(fd);
    }
}

int main(int argc, char **argv) {
    int one = 1, epoll = epoll_create1(EPOLL_CLOEXEC), listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0))};
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, ready[256];
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4096) != 0) {
        perror("send_loop: cannot listen");
        return 1;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(epoll, ready, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd != listener) {
                on_readable(fd);
                continue;
            }
            fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0) continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            roles[fd] = REQUEST;
            event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
