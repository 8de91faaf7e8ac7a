"""Asks for sockets in domains of SELinux, and for the use of sockets that were
made before the policy in force, by another domain, or under another label. An
argument is a policy to load while there are sockets."""
import errno, os, socket, sys

CONTEXT = "system_u:system_r:%s"


def enter(attribute, domain):
    with open("/proc/self/attr/" + attribute, "w") as f:
        f.write(CONTEXT % domain)


def within(domain, action):
    """Acts in a domain, in a child."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        enter("current", domain)
        action()
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit("a child failed")


def attempt(what, action):
    try:
        action()
        print(what, "ok")
    except OSError as e:
        print(what, errno.errorcode[e.errno])


def make():
    parent = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
    parent.bind(("hash", "sha256"))
    return parent, parent.accept()[0]


def load(policy):
    with open(policy, "rb") as f:
        data = f.read()
    with open("/sys/fs/selinux/load", "wb", buffering=0) as f:
        f.write(data)


def kept(policy):
    parent, operation = make()
    load(policy)
    attempt("kept: bind", lambda: parent.bind(("hash", "sha256")))
    attempt("kept: accept", parent.accept)
    attempt("kept: getsockopt", lambda: parent.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
    attempt("kept: sendmsg", lambda: operation.send(b"x"))
    attempt("kept: recvmsg", lambda: operation.recv(32))
    attempt("kept: write", lambda: os.write(operation.fileno(), b"x"))
    attempt("kept: read", lambda: os.read(operation.fileno(), 32))


def classes():
    for name, family, type, protocol in [
        ("AF_ALG", 38, 5, 0), ("AF_RXRPC", 33, 2, 2), ("AF_KEY", 15, 3, 2), ("XFRM", 16, 3, 6), ("ROUTE", 16, 3, 0),
        ("AF_PACKET", 17, 3, 0), ("SOCK_PACKET", 2, 10, 0), ("AF_VSOCK", 40, 1, 0), ("AF_INET", 2, 1, 0), ("raw", 2, 3, 1),
    ]:
        attempt(name, lambda: socket.socket(family, type, protocol))


def labelled():
    enter("sockcreate", "holder_t")
    attempt("labelled", lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))


def execute(domain):
    """The kernel puts another file in the place of what a domain may not use."""
    parent, _ = make()
    os.set_inheritable(parent.fileno(), True)
    print("inherited by", domain, end=" ", flush=True)
    enter("exec", domain)
    os.execv("/bin/sh", ["sh", "-c", "readlink /proc/self/fd/%d | sed 's/:.*//'" % parent.fileno()])


def send(domain):
    ours, theirs = socket.socketpair()
    parent, _ = make()
    socket.send_fds(ours, [b"x"], [parent.fileno()])
    parent.close()

    def receive():
        if not socket.recv_fds(theirs, 1, 1)[1]:
            raise OSError(errno.EBADF, "no descriptor")

    within(domain, lambda: attempt("passed to " + domain, receive))


if len(sys.argv) > 1:
    within("plain_t", lambda: kept(sys.argv[1]))
within("plain_t", classes)
within("holder_t", classes)
within("plain_t", labelled)
for to in "plain_t", "holder_t":
    within("holder_t", lambda: execute(to))
    within("holder_t", lambda: send(to))
