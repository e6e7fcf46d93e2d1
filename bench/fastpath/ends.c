// SPDX-License-Identifier: MIT
/*
 * Both ends of what is measured.
 *
 *   ends serve PORT                          reads and discards after a first byte 'u', writes only
 *                                            after 'd', else echoes; through an
 *                                            inverting proxy
 *   ends ping|up|down ADDRESS PORT MS SIZE   messages of SIZE bytes for MS milliseconds; prints how
 *                                            many, and the microseconds of CPU that it used
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

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
	char chunk[65536], kind;
	ssize_t length;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (read(fd, &kind, 1) == 1) {
		/* The proxy inverts what it carries. */
		kind = ~kind;
		if (kind == 'u')
			while (recv(fd, NULL, sizeof(buffer), MSG_TRUNC) > 0)
				;
		else if (kind == 'd')
			while (write(fd, buffer, 65536) > 0)
				;
		else
			while ((length = read(fd, chunk, sizeof(chunk))) > 0)
				if (write(fd, chunk, length) != length)
					break;
	}
	close(fd);
	return NULL;
}

static void serve(int port)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (void *)&own, sizeof(own)) || listen(listener, 64)) {
		perror("listen");
		exit(1);
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		long fd = accept(listener, NULL, NULL);
		pthread_t thread;

		if (fd >= 0 && pthread_create(&thread, NULL, serve_one, (void *)fd))
			close(fd);
	}
}

static ssize_t read_all(int fd, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t length = read(fd, buffer + done, size - done);

		if (length <= 0)
			return -1;
		done += length;
	}
	return done;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	struct rusage used;
	double start, end;
	long done = 0;
	size_t size;
	char kind;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3)
		serve(atoi(argv[2]));
	kind = argv[1][0];
	size = atoi(argv[5]);
	inet_pton(AF_INET, argv[2], &to.sin_addr);
	to.sin_port = htons(atoi(argv[3]));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (void *)&to, sizeof(to)) || write(fd, &kind, 1) != 1) {
		perror("connect");
		return 1;
	}
	/* Let the decision be made. */
	usleep(100000);
	start = now_ms();
	end = start + atoi(argv[4]);
	for (; now_ms() < end; done++) {
		if (kind != 'd' && write(fd, buffer, size) != (ssize_t)size)
			break;
		if (kind != 'u' && read_all(fd, size) < 0)
			break;
	}
	getrusage(RUSAGE_SELF, &used);
	printf("%ld %.3f %ld\n", done, now_ms() - start,
	       (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 + used.ru_utime.tv_usec +
		   used.ru_stime.tv_usec);
	return 0;
}
