// SPDX-License-Identifier: MIT
/*
 * The least that a transparent proxy in userspace can be: takes what TPROXY steers to it, connects
 * to where it was going, and moves bytes by splice(2), which copies none into the process. A thread
 * for each direction.
 *
 *   relay PORT
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct direction {
	int from, to;
};

static void *carry(void *argument)
{
	struct direction *direction = argument;
	ssize_t held;
	int pipes[2];

	if (!pipe(pipes)) {
		fcntl(pipes[1], F_SETPIPE_SZ, 1 << 20);
		while ((held = splice(direction->from, NULL, pipes[1], NULL, 1 << 20,
				      SPLICE_F_MOVE)) > 0)
			for (ssize_t done; held > 0; held -= done)
				if ((done = splice(pipes[0], NULL, direction->to, NULL, held,
						   SPLICE_F_MOVE)) <= 0)
					goto broken;
	broken:
		close(pipes[0]);
		close(pipes[1]);
	}
	shutdown(direction->to, SHUT_WR);
	shutdown(direction->from, SHUT_RD);
	return NULL;
}

static void *serve_one(void *argument)
{
	int one = 1, program = (long)argument, origin = socket(AF_INET, SOCK_STREAM, 0);
	struct direction up = {program, origin}, down = {origin, program};
	struct sockaddr_in to;
	socklen_t length = sizeof(to);
	pthread_attr_t small;
	pthread_t thread;

	setsockopt(program, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(origin, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 1 << 16);
	if (!getsockname(program, (void *)&to, &length) &&
	    !connect(origin, (void *)&to, sizeof(to)) &&
	    !pthread_create(&thread, &small, carry, &up)) {
		carry(&down);
		pthread_join(thread, NULL);
	}
	close(origin);
	close(program);
	return NULL;
}

int main(int argc, char **argv)
{
	int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
	pthread_attr_t detached;
	pthread_t thread;

	signal(SIGPIPE, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (setsockopt(listener, SOL_IP, IP_TRANSPARENT, &one, sizeof(one)) ||
	    bind(listener, (void *)&own, sizeof(own)) || listen(listener, 4096)) {
		perror("listen");
		return 1;
	}
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&detached, 1 << 16);
	for (;;) {
		long program = accept(listener, NULL, NULL);

		if (program >= 0 && pthread_create(&thread, &detached, serve_one, (void *)program))
			close(program);
	}
}
