/** What the help and the manual page say alike. */
export const summary = 'run a command, or a whole host, through a transparent proxy'

export const about =
  'Sends the TCP connections of one command, or of all programs on this host, through a proxy of your choice, whether they know of proxies or not.'

export const synopsis: readonly string[] = [
  'tproxy-run [OPTION…] [--] COMMAND [ARGUMENT…]',
  'tproxy-run [OPTION…] --interface NAME',
  'tproxy-run --config FILE [OPTION…] [[--] COMMAND [ARGUMENT…]]',
]

/** What to write, and what becomes of it. */
export const examples: Readonly<Record<string, string>> = {
  'sudo --preserve-env=ALL_PROXY tproxy-run --plugin socks -- curl https://example.com':
    'One command and all that it starts, through the SOCKS proxy in $ALL_PROXY, or at 127.0.0.1:1080. The command runs as you; tproxy-run itself needs root, and sudo removes $ALL_PROXY unless it is told to keep it.',
  'sudo tproxy-run --plugin socks=socks5://user:password@192.0.2.1:1080 -- git pull':
    'A proxy of your choice. Other users can read your command line; they cannot read $ALL_PROXY.',
  'sudo tproxy-run --plugin http=http://192.0.2.1:3128 -- npm install':
    'An HTTP proxy; $HTTPS_PROXY and $HTTP_PROXY serve as its default (--preserve-env=HTTPS_PROXY).',
  'sudo tproxy-run -v -- ./program': 'No plugin: everything goes direct, and you see where it goes.',
  'sudo tproxy-run --plugin ./office.ts --plugin socks=192.0.2.1:1080 -- ./program':
    'Plugins are asked in order, the first that answers decides. A path names a module of your own.',
  "sudo tproxy-run --rule 'direct to 10.0.0.0/8' --rule 'drop tcp dport 25' -p socks=192.0.2.1 -- ./program":
    'Rules are asked first, in the kernel. What none matches goes to the plugins.',
  'sudo tproxy-run --plugin socks=192.0.2.1:1080 --interface eth0':
    'Every program on this host, on eth0, until ^C.',
  'sudo tproxy-run --config tproxy.yaml':
    'The same from a file: plugins, interfaces, rules and the other options. See examples/tproxy.yaml.',
  'tproxy-run doctor': 'What this machine lacks, and how to add it.',
}

/** The exit code is the command’s, and its signal if one ended it. These are our own. */
export const exitCodes: Readonly<Record<string, string>> = {
  0: 'the interface form was stopped',
  125: 'tproxy-run failed: wrong options, missing privileges, …',
  126: 'the command cannot be executed',
  127: 'the command was not found',
}

export const exitCodeIs = 'The exit code is the command’s, and its signal if one ended it. Of our own:'

export const environment: Readonly<Record<string, string>> = {
  ALL_PROXY:
    'the proxy of --plugin socks without an argument, unless it is an HTTP proxy; all_proxy likewise. sudo removes it and the like, unless told to keep it: sudo --preserve-env=ALL_PROXY',
  'HTTPS_PROXY, HTTP_PROXY':
    'the proxy of --plugin http without an argument, or ALL_PROXY when that is an HTTP proxy; in lower case likewise',
  NO_PROXY: 'is not heeded, for it lists names, and connections have addresses: rules say what goes direct',
  NO_COLOR: 'no colours',
  'NOTIFY_SOCKET, WATCHDOG_USEC': 'where a service manager wants to hear how it is doing; see sd_notify(3)',
}

export const files: Readonly<Record<string, string>> = {
  '/etc/tproxy/tproxy.yaml': 'the configuration of the service, see tproxy.yaml(5)',
  '/run/tproxy/NETNS/PID.sock': 'where one that runs is asked, one JSON object a line',
  '/run/tproxy/NETNS/*.json': 'what runs, and what to undo after a crash',
  '/var/cache/tproxy':
    'what Node has compiled, so that the next start is faster; ~/.cache/tproxy where it is not root. It can be removed at any time',
}
