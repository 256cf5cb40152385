#define _GNU_SOURCE
#include "template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    int kind;
} NAMES[] = {{"{room}", ROOM}, {"{ref}", REF}, {"{data}", DATA}};

static void add(template *t, int kind, const char *text, size_t len) {
    if (kind == LITERAL && len == 0) return;
    if (t->count == 16) {
        fprintf(stderr, "load: a template has more than 16 pieces\n");
        exit(2);
    }
    t->pieces[t->count++] = (piece){kind, text, len};
}

void template_parse(template *t, const char *text, size_t data_bytes) {
    const char *literal = text;
    t->count = 0;
    t->data_bytes = data_bytes < MARK_LEN + STAMP_DIGITS ? MARK_LEN + STAMP_DIGITS : data_bytes;
    while (*text) {
        int found = -1;
        for (int i = 0; i < 3; i++)
            if (strncmp(text, NAMES[i].text, strlen(NAMES[i].text)) == 0) found = i;
        if (found < 0) {
            text++;
            continue;
        }
        add(t, LITERAL, literal, (size_t)(text - literal));
        add(t, NAMES[found].kind, NULL, 0);
        text += strlen(NAMES[found].text);
        literal = text;
    }
    add(t, LITERAL, literal, (size_t)(text - literal));
}

size_t template_max(const template *t) {
    size_t sum = 0;
    for (int i = 0; i < t->count; i++)
        sum += t->pieces[i].kind == LITERAL ? t->pieces[i].len : t->pieces[i].kind == DATA ? t->data_bytes : 20;
    return sum;
}

static char *put_number(char *out, uint64_t number) {
    char digits[20];
    int n = 0;
    do digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n) *out++ = digits[--n];
    return out;
}

static char *put_data(char *out, uint64_t stamp, size_t bytes) {
    memcpy(out, MARK, MARK_LEN);
    for (int i = STAMP_DIGITS - 1; i >= 0; i--) {
        out[MARK_LEN + i] = (char)('0' + stamp % 10);
        stamp /= 10;
    }
    memset(out + MARK_LEN + STAMP_DIGITS, 'x', bytes - MARK_LEN - STAMP_DIGITS);
    return out + bytes;
}

size_t template_fill(const template *t, char *out, unsigned room, uint64_t ref, uint64_t stamp) {
    char *start = out;
    for (int i = 0; i < t->count; i++) {
        const piece *p = &t->pieces[i];
        switch (p->kind) {
        case LITERAL:
            memcpy(out, p->text, p->len);
            out += p->len;
            break;
        case ROOM: out = put_number(out, room); break;
        case REF: out = put_number(out, ref); break;
        case DATA: out = put_data(out, stamp, t->data_bytes); break;
        }
    }
    return (size_t)(out - start);
}

uint64_t stamp_parse(const char *digits) {
    uint64_t stamp = 0;
    for (int i = 0; i < STAMP_DIGITS; i++) stamp = stamp * 10 + (uint64_t)(digits[i] - '0');
    return stamp;
}
