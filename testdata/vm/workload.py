"""An ordinary workload: every line says what was tried and what came of it."""

import asyncio
import errno
import os
import socket
import struct
import subprocess
import threading

BLOCK = b"x" * 100_000


def stream(family, address):
    """Sends a block to a server and back."""
    with socket.create_server(address, family=family) as server:

        def echo():
            peer, _ = server.accept()
            with peer:
                peer.sendall(peer.recv(len(BLOCK), socket.MSG_WAITALL))

        thread = threading.Thread(target=echo)
        thread.start()
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.connect(server.getsockname())
            client.sendall(BLOCK)
            assert client.recv(len(BLOCK), socket.MSG_WAITALL) == BLOCK
        thread.join()


def datagram(family, host):
    """Sends a datagram to a server and back."""
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((host, 0))
        client.sendto(b"question", server.getsockname())
        question, address = server.recvfrom(100)
        server.sendto(question + b" answer", address)
        assert client.recv(100) == b"question answer"


def dns():
    """Asks a name server of our own for the address of example.test."""
    header = struct.Struct("!HHHHHH")
    name = b"\x07example\x04test\x00" + struct.pack("!HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.settimeout(10)
        client.send(header.pack(7, 0x0100, 1, 0, 0, 0) + name)
        query, address = server.recvfrom(512)
        answer = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton("192.0.2.1"))
        server.sendto(header.pack(7, 0x8180, 1, 1, 0, 0) + query[header.size :] + answer, address)
        assert socket.inet_ntoa(client.recv(512)[-4:]) == "192.0.2.1"


def unix():
    """Passes a descriptor over a Unix socket that has a path."""
    path = "/tmp/socket"
    with socket.create_server(path, family=socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        peer, _ = server.accept()
        with peer:
            socket.send_fds(client, [b"x"], [client.fileno()])
            _, fds, _, _ = socket.recv_fds(peer, 1, 1)
            os.close(fds[0])


def pair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        a.send(b"x")
        assert b.recv(1) == b"x"


def netlink():
    """Dumps the routes, as ip route does."""
    get_route, request_dump, error, done = 26, 0x301, 2, 3
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as s:
        s.bind((0, 0))
        s.send(struct.pack("=IHHII12x", 28, get_route, request_dump, 1, 0))
        last = 0
        while last != done:
            data = s.recv(65536)
            while data:
                length, last = struct.unpack_from("=IH", data)
                assert last != error
                data = data[(length + 3) & ~3 :]


async def ask_child():
    child = await asyncio.create_subprocess_exec("sh", "-c", "echo a | tr a b", stdout=subprocess.PIPE)
    out, _ = await child.communicate()
    assert out == b"b\n"


def resolve():
    assert socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)


def shell():
    script = "cd /tmp && echo one >a && cp a b && sort a b | uniq -c | grep -q 2 && (sleep 0 & wait) && ls -l /proc/self/fd >list"
    subprocess.run(["sh", "-ec", script], check=True)


def alg():
    socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close()


def alg_pair():
    socket.socketpair(socket.AF_ALG, socket.SOCK_SEQPACKET)


STEPS = {
    "shell": shell,
    "tcp4": lambda: stream(socket.AF_INET, ("127.0.0.1", 0)),
    "tcp6": lambda: stream(socket.AF_INET6, ("::1", 0)),
    "udp4": lambda: datagram(socket.AF_INET, "127.0.0.1"),
    "udp6": lambda: datagram(socket.AF_INET6, "::1"),
    "dns": dns,
    "resolver": resolve,
    "unix": unix,
    "socketpair": pair,
    "netlink": netlink,
    "asyncio": lambda: asyncio.run(ask_child()),
    "alg": alg,
    "alg socketpair": alg_pair,
}

for name, step in STEPS.items():
    try:
        step()
        print(name, "ok")
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e))
