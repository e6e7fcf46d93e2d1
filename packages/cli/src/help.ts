export const help: string = `Usage: tproxy-run [OPTION…] [--] COMMAND [ARGUMENT…]
       tproxy-run [OPTION…] --interface NAME
       tproxy-run --config FILE [OPTION…] [[--] COMMAND [ARGUMENT…]]
       tproxy-run rules [--watch] | rules check FILE | rules explain PROTO SRC[:PORT] DST[:PORT]
       tproxy-run top | status | reload [--reset] | doctor | clean

Sends the TCP connections of one command, or of all programs on this host, through a proxy of your
choice, whether they know of proxies or not.

  tproxy-run --plugin socks -- curl https://example.com
        One command and all that it starts, through the SOCKS proxy in $ALL_PROXY, or at 127.0.0.1:1080.
  tproxy-run --plugin socks=socks5://user:password@192.0.2.1:1080 -- git pull
        A proxy of your choice. Other users can read your command line; they cannot read $ALL_PROXY.
  tproxy-run --plugin http=http://192.0.2.1:3128 -- npm install
        An HTTP proxy; $HTTPS_PROXY and $HTTP_PROXY serve as its default.
  tproxy-run -v -- ./program
        No plugin: everything goes direct, and you see where it goes.
  tproxy-run --plugin ./office.ts --plugin socks -- ./program
        Plugins are asked in order, the first that answers decides. A path names a module of your own.
  tproxy-run --rule 'direct to 10.0.0.0/8' --rule 'drop tcp dport 25' --plugin socks -- ./program
        Rules are asked first, in the kernel. What none matches goes to the plugins.
  sudo tproxy-run --plugin socks --interface eth0
        Every program on this host, on eth0, until ^C.
  sudo tproxy-run --config tproxy.yaml
        The same from a file: plugins, interfaces, rules and the other options. See examples/tproxy.yaml.
  tproxy-run doctor
        What this machine lacks, and how to add it.

What is intercepted
  -i, --interface NAME     only there; repeat it, or separate by commas. auto: where default routes lead,
                           all: where any route leads (the default for a command)
  -c, --config FILE        plugins and rules of the command line come before those of the file;
                           its other options take their place
      --rule TEXT          ACTION [[not] MATCH…] [via PLUGIN] [log]: the first that matches decides
                           ACTION: proxy, direct, drop, reject, redirect:IFACE, redirect-into:IFACE
                           MATCH: tcp, udp, icmp, … or proto N, ip4, ip6, from ADDRESS, to ADDRESS, sport PORT,
                           dport PORT, interface NAME, uid USER, gid GROUP, cgroup PATH, process NAME, mark N,
                           dscp N; each may be a list: dport 80,443,8000-8999
      --rules FILE         one rule a line, # begins a comment; default ACTION: for what none matches
      --mark N, --table N, --priority N
                           of our policy routing, should the defaults belong to somebody else
What becomes of it
  -p, --plugin NAME[=ARGUMENT]
                           @tproxy/plugin-NAME or tproxy-plugin-NAME, installed beside tproxy-run, or a path
      --default VERDICT    direct (the default) or drop: for what no plugin decides
      --carry relay        all bytes through tproxy-run, instead of in the kernel where that can be
      --keep               connections in the kernel outlive tproxy-run, and the next one with --keep takes them over
      --names              upstreams get the host name in a TLS ClientHello or HTTP/1 request, instead of the
                           address that the program chose, and resolve it
      --fastpath to-proxy      where tproxy-run carries the bytes, what the command sends skips the network stack; both: what
                           it receives too. See the README for what that changes for the command
      --connect-timeout T, --idle-timeout T, --drain-timeout T
                           such as 500ms, 30s, 5m; default 30s, 2h, 5s
The command
  -u, --user NAME          run it as another user. Started by sudo, it runs as the user who called sudo
What is shown
  -v, --verbose            every connection        -q, --quiet   only what makes us fail
      --json               one event a line: on stderr with a command, else on stdout
      --metrics ADDRESS    for Prometheus, at http://HOST:PORT/metrics, or unix:PATH; default: nowhere
  -h, --help               this                    -V, --version

The one that runs (--pid N, where several do)
  tproxy-run status        how many connections it has, in the kernel and relayed; --json: for programs
  tproxy-run top           its connections, live: --sort KEY (down), --interval T (1s), --count N; without a
                           terminal, or with --json, one line of JSON each time
  tproxy-run rules         what each rule counted; --watch: every second, --json: for programs
  tproxy-run rules explain tcp 192.0.2.1 203.0.113.10:443 --uid 1000
                           which rule wins and why; also --gid, --cgroup, --process, --interface, --mark, --dscp.
                           With --config, --rules or --rule: by those, without privileges
  tproxy-run rules check FILE
                           whether rules, or a .yaml, are valid; exit code 1 if not
  tproxy-run reload        reads rules of --config and --rules again, as SIGHUP does without a command. Open
                           connections keep their decision; --reset ends those that are now decided differently

Also
  tproxy-run clean         undoes what a killed tproxy-run left behind, which changes no traffic; and resets
                           the connections that --keep left

The exit code is the command's, and its signal if one ended it. Of our own:
  125  tproxy-run failed: wrong options, missing privileges, …   126  the command cannot be executed
  127  the command was not found                                   0  the interface form was stopped
`
