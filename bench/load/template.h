/* Texts with {room}, {token}, {ref} and {data} in them, filled in for each message sent. */
#ifndef TEMPLATE_H
#define TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

/* What stands before the time stamp in every payload; nothing else that a server sends may hold it. */
#define MARK "~T"
#define MARK_LEN 2
#define STAMP_DIGITS 19

typedef struct {
    enum { LITERAL, ROOM, TOKEN, REF, DATA } kind;
    const char *text;
    size_t len;
} piece;

typedef struct {
    piece pieces[16];
    int count;
    size_t data_bytes;
} template;

/* Cut `text`, which has to stay where it is, into its pieces. */
void template_parse(template *t, const char *text, size_t data_bytes);

/* Read the lines of a file: {token} is the one whose number is the room's, from 0. */
void template_read_tokens(const char *path);

/* The most bytes that one filled-in text can have. */
size_t template_max(const template *t);

/* Write the text to `out`; return its length. {data} is MARK, `stamp` in 19 digits, and x up to data_bytes. */
size_t template_fill(const template *t, char *out, unsigned room, uint64_t ref, uint64_t stamp);

/* Read the 19 digits that template_fill wrote. */
uint64_t stamp_parse(const char *digits);

#endif
