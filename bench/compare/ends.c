// SPDX-License-Identifier: MIT
/*
 * Both ends of what is measured.
 *
 *   ends serve PORT       the origin at PORT; at 1080 a SOCKS5 and at 3128 an HTTP server which,
 * asked for a connection, are the origin themselves: an upstream that costs nothing but the asking
 *   ends up|down|ping|open ADDRESS PORT MS CONNECTIONS SIZE [socks|http ADDRESS]
 *                         one line of JSON; with an upstream, asks it by itself
 *
 * up, down: bytes that the other end has received, and the time until the last of them.
 * ping: SIZE bytes there and back. open: connect, ask, one byte back, closed by the server. The
 * times of these two are in microseconds. Each connection has bytes of its own: what reaches
 * another one shows.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BLOCK (1 << 18)
/* To compare every byte would cost more than to carry it: one block in so many is, of the others a
 * word in each page. */
#define CHECKED 16
#define PAGE	4096
#define SAMPLES (1 << 20)

struct request {
	char kind;
	char unused[3];
	uint32_t size;
	uint32_t connection;
};

/* Each block of each connection is another part of it, so that what is lost, doubled or moved
 * shows. */
static unsigned char pattern[BLOCK + 65536];

static void fill_pattern(void)
{
	uint32_t state = 1;

	for (size_t at = 0; at < sizeof(pattern); at++) {
		state = state * 1664525 + 1013904223;
		pattern[at] = state >> 24;
	}
}

/* The block of a connection that is the number-th, but for its first byte: whether it is the last.
 */
static const unsigned char *expected(uint32_t connection, unsigned long number)
{
	return pattern + (connection * 27457ul + number * 7919) % 65536;
}

static double now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static bool send_all(int fd, const void *bytes, size_t length)
{
	for (size_t sent = 0; sent < length;) {
		ssize_t done = send(fd, (const char *)bytes + sent, length - sent, 0);

		if (done <= 0)
			return false;
		sent += done;
	}
	return true;
}

#define PATIENCE 5 /* seconds */

/* A loop, for with the fastpath MSG_WAITALL may return less, and a receive that blocks EAGAIN
 * before its time, when room for sends comes free (docs/fastpath.md). */
static bool receive_all(int fd, void *bytes, size_t length)
{
	double until = now_us() + PATIENCE * 1e6;

	for (size_t received = 0; received < length;) {
		ssize_t done = recv(fd, (char *)bytes + received, length - received, 0);

		if (done < 0 && errno == EAGAIN && now_us() < until)
			continue;
		if (done <= 0)
			return false;
		received += done;
	}
	return true;
}

static bool send_block(int fd, const unsigned char *block, char last)
{
	return send_all(fd, &last, 1) && send_all(fd, block + 1, BLOCK - 1);
}

/* Zero and above: whether it was the last. */
static int receive_block(int fd, const unsigned char *block, bool whole, unsigned char *space)
{
	if (!receive_all(fd, space, BLOCK) || space[0] > 1)
		return -1;
	if ((whole || space[0]) && memcmp(space + 1, block + 1, BLOCK - 1))
		return -1;
	for (size_t at = 1; at < BLOCK; at += PAGE)
		if (memcmp(space + at, block + at, sizeof(uint64_t)))
			return -1;
	return space[0];
}

static void prepare(int fd)
{
	struct timeval patience = {.tv_sec = PATIENCE};
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

/* RFC 1928, without authentication; RFC 9110, section 9.3.6. */
static bool grant_socks(int fd)
{
	unsigned char request[10], answer[10] = {5, 0, 0, 1};

	return receive_all(fd, request, 2) && receive_all(fd, request + 2, request[1] & 7) &&
	       send_all(fd, "\5\0", 2) && receive_all(fd, request, 10) && send_all(fd, answer, 10);
}

/* Nothing follows before it is answered, or before we ask. */
static bool skip_head(int fd)
{
	char head[1024];

	for (size_t length = 0; length < sizeof(head);) {
		ssize_t done = recv(fd, head + length, sizeof(head) - length, 0);

		if (done <= 0)
			return false;
		length += done;
		if (length >= 4 && !memcmp(head + length - 4, "\r\n\r\n", 4))
			return true;
	}
	return false;
}

static bool grant_http(int fd)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\n\r\n";

	return skip_head(fd) && send_all(fd, answer, sizeof(answer) - 1);
}

static void serve_up(int fd, uint32_t connection, unsigned char *space)
{
	uint64_t number = 0;
	int last;

	while ((last = receive_block(fd, expected(connection, number), number % CHECKED == 0,
				     space)) == 0)
		number++;
	/* The answer counts what came. */
	if (last > 0 && ++number)
		send_all(fd, &number, sizeof(number));
}

/* From when the client says so, until it says so again. */
static void serve_down(int fd, uint32_t connection)
{
	unsigned long number = 0;
	char word;

	if (!receive_all(fd, &word, 1))
		return;
	while (recv(fd, &word, 1, MSG_DONTWAIT) != 1)
		if (!send_block(fd, expected(connection, number++), 0))
			return;
	send_block(fd, expected(connection, number), 1);
}

struct accepted {
	int fd;
	int port;
};

static void *serve_one(void *argument)
{
	struct accepted *accepted = argument;
	struct request request = {0};
	unsigned char *space = NULL;
	int fd = accepted->fd;

	prepare(fd);
	if ((accepted->port != 1080 || grant_socks(fd)) &&
	    (accepted->port != 3128 || grant_http(fd)) &&
	    receive_all(fd, &request, sizeof(request)) && request.size <= BLOCK) {
		if (request.kind == 'o')
			send_all(fd, &request.connection, 1);
		else
			space = malloc(BLOCK);
		if (request.kind == 'u')
			serve_up(fd, request.connection, space);
		else if (request.kind == 'd')
			serve_down(fd, request.connection);
		else if (request.kind == 'p')
			while (receive_all(fd, space, request.size) &&
			       send_all(fd, space, request.size))
				;
	}
	close(fd);
	free(space);
	free(accepted);
	return NULL;
}

static struct accepted listen_at(int port)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct accepted listener = {socket(AF_INET, SOCK_STREAM, 0), port};
	int one = 1;

	setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener.fd, (void *)&own, sizeof(own)) || listen(listener.fd, 4096)) {
		perror("listen");
		exit(1);
	}
	return listener;
}

static void *serve(void *argument)
{
	struct accepted *listener = argument;
	pthread_attr_t detached;

	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&detached, 1 << 16);
	for (;;) {
		struct accepted *accepted = malloc(sizeof(*accepted));
		pthread_t thread;

		accepted->port = listener->port;
		accepted->fd = accept(listener->fd, NULL, NULL);
		if (accepted->fd < 0 || pthread_create(&thread, &detached, serve_one, accepted)) {
			perror("serve a connection");
			close(accepted->fd);
			free(accepted);
		}
	}
	return NULL;
}

static struct {
	struct sockaddr_in to, by;
	const char *upstream;
	char kind;
	uint32_t size;
	double end;
	pthread_barrier_t together;
} load;

static struct {
	pthread_mutex_t lock;
	uint64_t done;
	double end;
	float *samples;
	size_t sampled;
	uint32_t connections;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void fail_to_verify(const char *what)
{
	fprintf(stderr, "%s is not what was sent, or did not come (last error: %m)\n", what);
	exit(1);
}

static bool ask_socks(int fd)
{
	unsigned char request[10] = {5, 1, 0, 1}, answer[10];

	memcpy(request + 4, &load.to.sin_addr, 4);
	memcpy(request + 8, &load.to.sin_port, 2);
	return send_all(fd, "\5\1\0", 3) && receive_all(fd, answer, 2) &&
	       send_all(fd, request, sizeof(request)) && receive_all(fd, answer, sizeof(answer)) &&
	       !answer[1];
}

static bool ask_http(int fd)
{
	char request[128];
	int port = ntohs(load.to.sin_port);
	const char *host = inet_ntoa(load.to.sin_addr);
	int length =
	    snprintf(request, sizeof(request), "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n",
		     host, port, host, port);

	return send_all(fd, request, length) && skip_head(fd);
}

/* Numbers it, too. */
static int dial(uint32_t *connection)
{
	struct request request = {.kind = load.kind, .size = load.size};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	prepare(fd);
	if (connect(fd, (void *)(load.upstream ? &load.by : &load.to), sizeof(load.to)))
		fail("connect");
	if (load.upstream && !(load.upstream[0] == 's' ? ask_socks : ask_http)(fd))
		fail("ask the upstream");
	*connection = request.connection =
	    __atomic_fetch_add(&all.connections, 1, __ATOMIC_RELAXED);
	if (!send_all(fd, &request, sizeof(request)))
		fail("ask");
	return fd;
}

static void note(double us)
{
	pthread_mutex_lock(&all.lock);
	if (all.sampled < SAMPLES)
		all.samples[all.sampled++] = us;
	all.done++;
	pthread_mutex_unlock(&all.lock);
}

static uint64_t up(int fd, uint32_t connection)
{
	uint64_t number = 0, received;

	for (bool last = false; !last;) {
		last = now_us() >= load.end;
		if (!send_block(fd, expected(connection, number++), last))
			fail("send");
	}
	if (!receive_all(fd, &received, sizeof(received)) || received != number)
		fail_to_verify("what went up");
	return number * BLOCK;
}

static uint64_t down(int fd, uint32_t connection)
{
	unsigned char *space = malloc(BLOCK);
	uint64_t number = 0;
	bool stopped = false;
	int last = 0;

	if (!send_all(fd, "g", 1))
		fail("go");
	while (!last) {
		last =
		    receive_block(fd, expected(connection, number), number % CHECKED == 0, space);
		number++;
		if (last < 0)
			fail_to_verify("what came down");
		if (!stopped && now_us() >= load.end && (stopped = true) && !send_all(fd, "s", 1))
			fail("stop");
	}
	free(space);
	return number * BLOCK;
}

static void ping(int fd, uint32_t connection)
{
	unsigned char *answer = malloc(load.size);
	unsigned long number = 0;

	for (double start = now_us(); start < load.end;) {
		const unsigned char *message = expected(connection, number++);
		double after;

		if (!send_all(fd, message, load.size) || !receive_all(fd, answer, load.size) ||
		    memcmp(answer, message, load.size))
			fail_to_verify("an answer");
		after = now_us();
		note(after - start);
		start = after;
	}
	free(answer);
}

static void open_one(void)
{
	double start = now_us(), first;
	uint32_t connection;
	int fd = dial(&connection);
	unsigned char answer;

	if (!receive_all(fd, &answer, 1) || answer != (connection & 0xff))
		fail_to_verify("the first byte");
	first = now_us() - start;
	if (recv(fd, &answer, 1, 0))
		fail("end");
	close(fd);
	note(first);
}

static void *run_one(void *unused)
{
	uint32_t connection;
	uint64_t bytes = 0;
	int fd = load.kind == 'o' ? -1 : dial(&connection);

	(void)unused;
	pthread_barrier_wait(&load.together);
	/* The decision is made, and main says when it ends. */
	pthread_barrier_wait(&load.together);
	if (load.kind == 'u')
		bytes = up(fd, connection);
	else if (load.kind == 'd')
		bytes = down(fd, connection);
	else if (load.kind == 'p')
		ping(fd, connection);
	else
		while (now_us() < load.end)
			open_one();
	pthread_mutex_lock(&all.lock);
	all.done += bytes;
	if (now_us() > all.end)
		all.end = now_us();
	pthread_mutex_unlock(&all.lock);
	if (fd >= 0)
		close(fd);
	return NULL;
}

static int ascending(const void *a, const void *b)
{
	float difference = *(const float *)a - *(const float *)b;

	return (difference > 0) - (difference < 0);
}

static double percentile(double part)
{
	return all.sampled ? all.samples[(size_t)(part * (all.sampled - 1))] : 0;
}

int main(int argc, char **argv)
{
	pthread_t threads[256];
	pthread_attr_t small;
	double start;
	int count;

	signal(SIGPIPE, SIG_IGN);
	fill_pattern();
	if (argc == 3) {
		struct accepted listeners[] = {listen_at(1080), listen_at(3128),
					       listen_at(atoi(argv[2]))};

		for (int at = 0; at < 3; at++)
			pthread_create(&threads[at], NULL, serve, &listeners[at]);
		puts("ready");
		fflush(stdout);
		pause();
		return 0;
	}
	if (argc < 7 || (count = atoi(argv[5])) > 256) {
		fprintf(stderr, "usage: ends up|down|ping|open ADDRESS PORT MS CONNECTIONS SIZE "
				"[socks|http ADDRESS]\n");
		return 2;
	}
	load.kind = argv[1][0];
	load.size = atoi(argv[6]);
	load.to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
	inet_pton(AF_INET, argv[2], &load.to.sin_addr);
	if (argc > 8) {
		load.upstream = argv[7];
		load.by = load.to;
		load.by.sin_port = htons(argv[7][0] == 's' ? 1080 : 3128);
		inet_pton(AF_INET, argv[8], &load.by.sin_addr);
	}
	all.samples = malloc(SAMPLES * sizeof(*all.samples));
	pthread_barrier_init(&load.together, NULL, count + 1);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 17);
	for (int at = 0; at < count; at++)
		if (pthread_create(&threads[at], &small, run_one, NULL))
			fail("thread");
	pthread_barrier_wait(&load.together);
	/* All are connected; let a proxy hand them to the kernel, if it does. */
	if (load.kind != 'o')
		usleep(50000);
	start = now_us();
	load.end = start + atoi(argv[4]) * 1e3;
	pthread_barrier_wait(&load.together);
	for (int at = 0; at < count; at++)
		pthread_join(threads[at], NULL);
	qsort(all.samples, all.sampled, sizeof(*all.samples), ascending);
	printf("{\"done\":%lu,\"seconds\":%.6f,\"p50\":%.2f,\"p99\":%.2f}\n",
	       (unsigned long)all.done, (all.end - start) / 1e6, percentile(0.5), percentile(0.99));
	return 0;
}
