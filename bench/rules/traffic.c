// SPDX-License-Identifier: MIT
/*
 * Traffic of a client, timed. Says "ready", then at each line of standard input sends for so long
 * and prints the median of nanoseconds: others run on this machine too.
 *
 *   traffic MS datagrams NETNS          a connected socket for each destination that standard input
 * names first, as lines of ADDRESS PORT and then an empty one
 *   traffic MS unconnected NETNS        the same from one socket
 *   traffic MS connections NETNS PORT   connect, accept, reset
 *   traffic MS stream NETNS PORT    a byte each way on one connection
 *
 * Starts in the network namespace of the origin, listens there, and then enters the client's,
 * which NETNS is a path of: so both ends are in one thread, and nobody waits for a scheduler.
 */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/resource.h>
#include "dial.h"

#define BATCH	     64
#define MAX_FLOWS    8192
#define MAX_SAMPLES  100000
#define DESTINATIONS 254

static struct {
	double ms;
	int listener;
	int port;
	struct mmsghdr messages[MAX_FLOWS];
	union address to[MAX_FLOWS];
	int flows, next;
	int sockets[MAX_FLOWS];
	int program, origin; /* ends of the stream */
} self;

static void must(bool succeeded, const char *what)
{
	if (!succeeded)
		die(what);
}

static int listen_here(void)
{
	union address any = {.v4 = {.sin_family = AF_INET, .sin_port = htons(self.port)}};
	int fd = open_socket(AF_INET, 0, 0);

	must(!bind(fd, &any.any, sizeof(any.v4)) && !listen(fd, 16), "listen");
	return fd;
}

static void enter(const char *netns)
{
	int fd = open(netns, O_RDONLY | O_CLOEXEC);

	must(fd >= 0 && !setns(fd, CLONE_NEWNET), "setns");
	close(fd);
}

static void connect_both(int *program, int *origin)
{
	union address to = {.v4 = {.sin_family = AF_INET, .sin_port = htons(self.port)}};

	to.v4.sin_addr.s_addr = htonl(0xcb007101 + self.next++ % DESTINATIONS);
	*program = open_socket(AF_INET, 0, 0);
	must(!connect(*program, &to.any, sizeof(to.v4)), "connect");
	*origin = accept(self.listener, NULL, NULL);
	must(*origin >= 0, "accept");
}

static void open_stream(void)
{
	int one = 1;

	connect_both(&self.program, &self.origin);
	setsockopt(self.program, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(self.origin, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int open_datagrams(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int one = 1;

	/* So that a datagram that a filter drops is an error. */
	must(fd >= 0 && !setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one)), "socket");
	return fd;
}

static void read_flows(void)
{
	char line[64], address[64];
	int port;

	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%63s %d", address, &port) == 2) {
		must(self.flows < MAX_FLOWS, "flows");
		parse_address(&self.to[self.flows++], address, port);
	}
}

static void connect_flows(void)
{
	struct rlimit files = {.rlim_cur = MAX_FLOWS + 64, .rlim_max = MAX_FLOWS + 64};

	must(!setrlimit(RLIMIT_NOFILE, &files), "RLIMIT_NOFILE");
	for (int i = 0; i < self.flows; i++) {
		self.sockets[i] = open_datagrams();
		must(!connect(self.sockets[i], &self.to[i].any, sizeof(self.to[i].v4)), "connect");
	}
}

static int send_connected(void)
{
	for (int i = 0; i < BATCH; i++) {
		must(send(self.sockets[self.next], "tproxy", 6, 0) == 6, "send");
		self.next = (self.next + 1) % self.flows;
	}
	return BATCH;
}

static void prepare_messages(void)
{
	static struct iovec payload = {.iov_base = "tproxy", .iov_len = 6};

	must(self.flows % BATCH == 0, "flows");
	self.sockets[0] = open_datagrams();
	for (int i = 0; i < self.flows; i++)
		self.messages[i].msg_hdr = (struct msghdr){
		    .msg_name = &self.to[i],
		    .msg_namelen = sizeof(self.to[i].v4),
		    .msg_iov = &payload,
		    .msg_iovlen = 1,
		};
}

static int send_unconnected(void)
{
	must(sendmmsg(self.sockets[0], self.messages + self.next, BATCH, 0) == BATCH, "sendmmsg");
	self.next = (self.next + BATCH) % self.flows;
	return BATCH;
}

static int connect_once(void)
{
	struct linger reset = {.l_onoff = 1};
	int program, origin;

	connect_both(&program, &origin);
	setsockopt(program, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	close(program);
	close(origin);
	return 1;
}

static int exchange(void)
{
	char byte = 0;

	must(write(self.program, &byte, 1) == 1 && read(self.origin, &byte, 1) == 1 &&
		 write(self.origin, &byte, 1) == 1 && read(self.program, &byte, 1) == 1,
	     "exchange");
	return 1;
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;

	return (left > right) - (left < right);
}

static double measure(int (*once)(void))
{
	static double samples[MAX_SAMPLES];
	double start = now_ms(), before = start, after;
	int count = 0;

	do {
		int done = once();

		after = now_ms();
		samples[count++] = (after - before) * 1e6 / done;
		before = after;
	} while (after - start < self.ms && count < MAX_SAMPLES);
	qsort(samples, count, sizeof(*samples), compare);
	return samples[count / 2];
}

int main(int argc, char **argv)
{
	int (*once)(void) = connect_once;
	char line[64];

	if (argc < 4)
		return 2;
	self.ms = atof(argv[1]);
	if (argc == 5) {
		self.port = atoi(argv[4]);
		self.listener = listen_here();
	}
	enter(argv[3]);
	if (!strcmp(argv[2], "datagrams")) {
		read_flows();
		connect_flows();
		once = send_connected;
	} else if (!strcmp(argv[2], "unconnected")) {
		read_flows();
		prepare_messages();
		once = send_unconnected;
	} else if (!strcmp(argv[2], "stream")) {
		open_stream();
		once = exchange;
	}
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		printf("%.1f\n", measure(once));
		fflush(stdout);
	}
	return 0;
}
