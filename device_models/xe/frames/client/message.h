/* Surface messages (docs/virtual-machine-frames.md): a verb and words `name=value` in a packet, with at most one descriptor. */
#ifndef MESSAGE_H
#define MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

enum { MESSAGE_MOST = 64 << 10 };

struct message {
	int fd; /* -1: none; whoever takes it sets it to -1, message_done closes it */
	char *verb;
	char text[MESSAGE_MOST + 1];
};

/* Waits for a packet; false when the connection has ended or what came is no message. */
bool message_receive(int socket, struct message *message);
void message_done(struct message *message);
/* The value of a word, or NULL. */
const char *message_word(const struct message *message, const char *name);
/* The same as a number; false where there is no such word, or it is no number. */
bool message_number(const struct message *message, const char *name, uint64_t *value);

/* Sends text made as by printf; `fd` -1: without a descriptor.  False when the connection has ended. */
__attribute__((format(printf, 3, 4))) bool message_send(int socket, int fd, const char *format, ...);

/* The compositor's end, and a source's: the program ends where it fails. */
int message_listen(const char *path);
int message_connect(const char *path);

#endif
