#include "message.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Blanks become ends of words: the words stand behind one another, up to an empty one. */
static bool split(struct message *message, size_t length)
{
	if (!length || length >= MESSAGE_MOST || memchr(message->text, 0, length))
		return false;
	while (length && message->text[length - 1] == '\n')
		length--;
	message->text[length] = message->text[length + 1] = 0;
	message->verb = message->text;
	for (size_t i = 0; i < length; i++)
		if (message->text[i] == ' ')
			message->text[i] = 0;
	return *message->verb;
}

bool message_receive(int socket, struct message *message)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {.iov_base = message->text, .iov_len = MESSAGE_MOST};
	struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_LEN(sizeof(int))};
	ssize_t length;

	message->fd = -1;
	do
		length = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return false;
	struct cmsghdr *part = CMSG_FIRSTHDR(&header);
	if (part && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS)
		memcpy(&message->fd, CMSG_DATA(part), sizeof(int));
	if (!(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && split(message, length))
		return true;
	message_done(message);
	return false;
}

void message_done(struct message *message)
{
	if (message->fd >= 0)
		close(message->fd);
	message->fd = -1;
}

const char *message_word(const struct message *message, const char *name)
{
	size_t length = strlen(name);

	for (const char *word = message->verb; *word; word += strlen(word) + 1)
		if (!strncmp(word, name, length) && word[length] == '=')
			return word + length + 1;
	return NULL;
}

bool message_number(const struct message *message, const char *name, uint64_t *value)
{
	const char *word = message_word(message, name);
	char *end;

	if (!word || !*word || *word == '-')
		return false;
	errno = 0;
	*value = strtoull(word, &end, 0);
	return !errno && !*end;
}

bool message_send(int socket, int fd, const char *format, ...)
{
	char text[4096], control[CMSG_SPACE(sizeof(int))] = {0};
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (length < 0 || length >= (int)sizeof text)
		return false;
	struct iovec data = {.iov_base = text, .iov_len = length};
	struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
	if (fd >= 0) {
		header.msg_control = control;
		header.msg_controllen = sizeof control;
		struct cmsghdr *part = CMSG_FIRSTHDR(&header);
		part->cmsg_level = SOL_SOCKET;
		part->cmsg_type = SCM_RIGHTS;
		part->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(part), &fd, sizeof(int));
	}
	ssize_t sent;
	do
		sent = sendmsg(socket, &header, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent == length;
}

static int unix_socket(const char *path, struct sockaddr_un *address)
{
	address->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof address->sun_path) {
		fprintf(stderr, "%s: a socket's path has less than %zu characters\n", path, sizeof address->sun_path);
		exit(2);
	}
	strcpy(address->sun_path, path);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

int message_listen(const char *path)
{
	struct sockaddr_un address = {0};
	int fd = unix_socket(path, &address);

	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 16)) {
		perror(path);
		exit(2);
	}
	return fd;
}

int message_connect(const char *path)
{
	struct sockaddr_un address = {0};
	int fd = unix_socket(path, &address);

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) {
		perror(path);
		exit(2);
	}
	return fd;
}
