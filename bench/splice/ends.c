// SPDX-License-Identifier: MIT
/*
 * Both ends of what is measured.
 *
 *   ends serve PORT
 *       echoes 64-byte messages; after a first byte 'u' reads only, after 'd' writes only
 *   ends up|down|ping|open ADDRESS PORT MS [SOCKS-ADDRESS]
 *       prints what it reached in MS milliseconds, per second: bytes, exchanges or connections;
 * with a SOCKS5 server at port 1080 of that address, speaks to it by itself
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64

static char buffer[1 << 18];

static double now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static void *serve_one(void *argument)
{
	int fd = (long)argument, one = 1;
	char message[MESSAGE], kind;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (read(fd, &kind, 1) == 1) {
		if (kind == 'u')
			while (recv(fd, NULL, sizeof(buffer), MSG_TRUNC) > 0)
				;
		else if (kind == 'd')
			while (write(fd, buffer, sizeof(buffer)) > 0)
				;
		else if (kind == 'p')
			while (recv(fd, message, MESSAGE, MSG_WAITALL) == MESSAGE)
				if (write(fd, message, MESSAGE) != MESSAGE)
					break;
		if (kind == 'o' && write(fd, &kind, 1) != 1)
			perror("answer");
	}
	close(fd);
	return NULL;
}

static void serve(int port)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	pthread_attr_t detached;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (void *)&own, sizeof(own)) || listen(listener, 4096)) {
		perror("listen");
		exit(1);
	}
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&detached, 1 << 16);
	puts("ready");
	fflush(stdout);
	for (;;) {
		long fd = accept(listener, NULL, NULL);
		pthread_t thread;

		if (fd >= 0 && pthread_create(&thread, &detached, serve_one, (void *)fd))
			close(fd);
	}
}

/* RFC 1928, without authentication. */
static int ask_socks(int fd, const struct sockaddr_in *to)
{
	unsigned char greeting[] = {5, 1, 0}, request[10] = {5, 1, 0, 1}, answer[10];

	memcpy(request + 4, &to->sin_addr, 4);
	memcpy(request + 8, &to->sin_port, 2);
	return write(fd, greeting, sizeof(greeting)) != sizeof(greeting) ||
	       recv(fd, answer, 2, MSG_WAITALL) != 2 ||
	       write(fd, request, sizeof(request)) != sizeof(request) ||
	       recv(fd, answer, sizeof(answer), MSG_WAITALL) != sizeof(answer) || answer[1];
}

static int dial(const struct sockaddr_in *to, const char *socks, char kind)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in proxy = {.sin_family = AF_INET, .sin_port = htons(1080)};

	if (socks)
		inet_pton(AF_INET, socks, &proxy.sin_addr);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, socks ? (void *)&proxy : (void *)to, sizeof(*to)) ||
	    (socks && ask_socks(fd, to)) || write(fd, &kind, 1) != 1) {
		perror("connect");
		exit(1);
	}
	return fd;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	const char *socks = argc > 5 ? argv[5] : NULL;
	char kind = argc > 1 ? argv[1][0] : 0, message[MESSAGE] = {0};
	double start, end;
	long done = 0;
	int fd = -1;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3)
		serve(atoi(argv[2]));
	inet_pton(AF_INET, argv[2], &to.sin_addr);
	to.sin_port = htons(atoi(argv[3]));
	if (kind != 'o') {
		fd = dial(&to, socks, kind);
		/* Let the decision be made. */
		usleep(100000);
	}
	start = now_ms();
	end = start + atoi(argv[4]);
	while (now_ms() < end) {
		ssize_t length = 1;

		if (kind == 'u')
			length = write(fd, buffer, sizeof(buffer));
		else if (kind == 'd')
			length = recv(fd, NULL, sizeof(buffer), MSG_TRUNC);
		else if (kind == 'p') {
			if (write(fd, message, MESSAGE) != MESSAGE ||
			    recv(fd, message, MESSAGE, MSG_WAITALL) != MESSAGE)
				length = 0;
		} else {
			fd = dial(&to, socks, kind);
			length = recv(fd, message, 1, MSG_WAITALL);
			/* Who closes first has the port in TIME_WAIT, of which a client has only so
			 * many. */
			if (recv(fd, message, 1, 0))
				length = 0;
			close(fd);
		}
		if (length <= 0) {
			perror("exchange");
			return 1;
		}
		done += length;
	}
	printf("%.1f\n", done / (now_ms() - start) * 1000);
	return 0;
}
