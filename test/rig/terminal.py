"""Runs a command on a terminal of its own. Lines of JSON on stdin: {"keys": TEXT}, {"size": [ROWS, COLUMNS]}, {"hangUp": true}.
What the terminal shows goes to stdout; after the end of the command, a line that tells how it left the terminal."""
import fcntl, json, os, pty, selectors, struct, subprocess, sys, termios

master, slave = pty.openpty()
def resize(rows, columns):
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))
resize(24, 80)
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave, start_new_session=True,
                         preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
waits = selectors.DefaultSelector()
waits.register(master, selectors.EVENT_READ)
waits.register(0, selectors.EVENT_READ)
held = b''
while child.poll() is None:
    for key, _ in waits.select(0.02):
        if key.fd == master:
            os.write(1, os.read(master, 65536))
            continue
        data = os.read(0, 65536)
        if not data:
            waits.unregister(0)
        *lines, held = (held + data).split(b'\n')
        for line in map(json.loads, lines):
            if 'keys' in line:
                os.write(master, line['keys'].encode())
            elif 'size' in line:
                resize(*line['size'])
            else:
                waits.unregister(master)
                os.close(slave)
                os.close(master)
                print('\n' + json.dumps({'code': child.wait()}))
                sys.exit()
os.set_blocking(master, False)
try:
    os.write(1, os.read(master, 65536))
except BlockingIOError:
    pass
local = termios.tcgetattr(slave)[3]
print('\n' + json.dumps({'code': child.returncode, 'canonical': bool(local & termios.ICANON), 'echo': bool(local & termios.ECHO)}))
