#define _GNU_SOURCE
#include "template.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *text;
    int kind;
} NAMES[] = {{"{room}", ROOM}, {"{token}", TOKEN}, {"{ref}", REF}, {"{data}", DATA}};
#define NAME_COUNT (int)(sizeof NAMES / sizeof *NAMES)

static char **tokens;
static size_t token_count, longest_token;

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
        for (int i = 0; i < NAME_COUNT; i++)
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

void template_read_tokens(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    char *line = NULL;
    size_t room = 0;
    for (ssize_t len; (len = getline(&line, &room, file)) > 0; line = NULL, room = 0) {
        if (line[len - 1] == '\n') line[--len] = 0;
        if ((size_t)len > longest_token) longest_token = (size_t)len;
        tokens = realloc(tokens, ++token_count * sizeof *tokens);
        tokens[token_count - 1] = line;
    }
    free(line);
    fclose(file);
}

static size_t piece_max(const template *t, const piece *p) {
    switch (p->kind) {
    case LITERAL: return p->len;
    case TOKEN: return longest_token;
    case DATA: return t->data_bytes;
    default: return 20;
    }
}

size_t template_max(const template *t) {
    size_t sum = 0;
    for (int i = 0; i < t->count; i++) sum += piece_max(t, &t->pieces[i]);
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
        case TOKEN: if (room < token_count) out = stpcpy(out, tokens[room]); break;
        case REF: out = put_number(out, ref); break;
        case DATA: out = put_data(out, stamp, t->data_bytes); break;
        }
    }
    return (size_t)(out - start);
}

/* Eight digits at once: neighbours are joined to pairs, pairs to fours, and fours to the whole, the first lowest. */
static uint64_t eight_digits(const char *digits) {
    uint64_t v;
    memcpy(&v, digits, sizeof v);
    v = le64toh(v) - 0x3030303030303030u;
    v = (v * 10 + (v >> 8)) & 0x00ff00ff00ff00ffu;
    v = (v * 100 + (v >> 16)) & 0x0000ffff0000ffffu;
    return (v * 10000 + (v >> 32)) & 0xffffffffu;
}

uint64_t stamp_parse(const char *digits) {
    uint64_t stamp = 0;
    int i = 0;
    for (; i + 8 <= STAMP_DIGITS; i += 8) stamp = stamp * 100000000u + eight_digits(digits + i);
    for (; i < STAMP_DIGITS; i++) stamp = stamp * 10 + (uint64_t)(digits[i] - '0');
    return stamp;
}
