/*
 * The bare minimum that a server and a client on a Unix socket cost: what the benchmark compares with.
 *
 *   pingpong server PATH
 *       For every connection: read four 32-bit numbers (request size, reply size, requests a reply, 0), then answer.
 *   pingpong client FD REPLY_SIZE DEPTH BURST SYNC_SIZE SECONDS < request [+ sync request]
 *       Send requests on the connected socket FD and wait for replies, DEPTH at a time; prints how many a second.
 *       With BURST > 0: send BURST requests that get no reply, then the sync request, and wait for its reply.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static char buffer[4 << 20];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void send_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0)
            die("send");
        data += sent;
        size -= (size_t)sent;
    }
}

static int receive_all(int fd, size_t size)
{
    while (size) {
        ssize_t got = recv(fd, buffer, size < sizeof(buffer) ? size : sizeof(buffer), 0);
        if (got < 0)
            die("recv");
        if (got == 0)
            return 0;
        size -= (size_t)got;
    }
    return 1;
}

static void serve(int fd)
{
    uint32_t setup[4];
    static char reply[4 << 20];
    size_t have = 0;
    uint32_t seen = 0;

    if (recv(fd, setup, sizeof(setup), MSG_WAITALL) != sizeof(setup) || setup[1] > sizeof(reply))
        return;
    for (;;) {
        ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
        if (got <= 0)
            return;
        have += (size_t)got;
        while (have >= setup[0]) {
            have -= setup[0];
            if (++seen == setup[2]) {
                seen = 0;
                send_all(fd, reply, setup[1]);
            }
        }
    }
}

static void server(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 4))
        die("listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            die("accept");
        serve(fd);
        close(fd);
    }
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int client(char **arguments)
{
    static char request[4 << 20];
    int fd = atoi(arguments[0]);
    size_t reply = strtoul(arguments[1], NULL, 0), depth = strtoul(arguments[2], NULL, 0);
    size_t burst = strtoul(arguments[3], NULL, 0), sync = strtoul(arguments[4], NULL, 0);
    double seconds = atof(arguments[5]), start, end;
    size_t size = fread(request, 1, sizeof(request), stdin) - sync;
    uint64_t done = 0;

    start = now();
    end = start + seconds;
    if (burst) {
        do {
            for (size_t i = 0; i < burst; i++)
                send_all(fd, request, size);
            send_all(fd, request + size, sync);
            receive_all(fd, reply);
            done += burst;
        } while (now() < end);
    } else {
        for (size_t i = 1; i < depth; i++)
            send_all(fd, request, size);
        do {
            for (int i = 0; i < 16; i++) {
                send_all(fd, request, size);
                receive_all(fd, reply);
            }
            done += 16;
        } while (now() < end);
        for (size_t i = 1; i < depth; i++)
            receive_all(fd, reply);
    }
    printf("%.1f\n", (double)done / (now() - start));
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 3 && !strcmp(arguments[1], "server"))
        server(arguments[2]);
    if (count == 8 && !strcmp(arguments[1], "client"))
        return client(arguments + 2);
    fprintf(stderr, "usage: pingpong server PATH | client FD REPLY DEPTH BURST SYNC SECONDS\n");
    return 2;
}
