# What each call on a parent socket of AF_ALG says, one line each. It is run
# directly and under a broker, and the two are compared.
import ctypes
import errno
import os
import select
import socket
import stat
import struct

libc = ctypes.CDLL(None, use_errno=True)
SOL_ALG, SET_KEY, SET_AEAD_AUTHSIZE, SET_KEY_BY_SERIAL = 279, 1, 5, 7
DOMAIN, PROTOCOL = 39, 38


def raw(call, *args):
    """The result of a call of the C library, or the name of its errno."""
    r = getattr(libc, call)(*args)
    return r if r >= 0 else errno.errorcode[ctypes.get_errno()]


def tried(f, *args):
    try:
        r = f(*args)
        return "ok" if r is None else r
    except OSError as e:
        return errno.errorcode[e.errno]


def address(kind, name, room=0):
    return struct.pack("<H14sII", 38, kind.encode(), 0, 0) + name.encode().ljust(room, b"\0")


def parent(flags=0):
    return socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET | flags)


def bound(kind="hash", name="sha256"):
    p = parent()
    p.bind((kind, name))
    return p


def bind(p, kind, name, length):
    return raw("bind", p.fileno(), address(kind, name, 200), length)


def lengths():
    for n in (0, 1, 2, 3, 16, 24, 25, 28, 30, 31, 64, 87, 88, 89, 110, 127, 128, 129, 200):
        with parent() as p:
            print("bind of", n, "bytes:", bind(p, "hash", "sha256", n))
    for n in (63, 64, 86, 87, 103, 104):
        with parent() as p:
            print("bind of a name of", n, "letters:", bind(p, "hash", "x" * n, 24 + n + 1))


def options():
    with bound() as p:
        for name, option in (("SO_DOMAIN", DOMAIN), ("SO_TYPE", socket.SO_TYPE), ("SO_PROTOCOL", PROTOCOL),
                             ("SO_ERROR", socket.SO_ERROR), ("SO_ACCEPTCONN", socket.SO_ACCEPTCONN)):
            print(name, "of the parent:", tried(p.getsockopt, socket.SOL_SOCKET, option))
        print("an option of SOL_ALG, read:", tried(p.getsockopt, SOL_ALG, SET_KEY))
        print("an option of another level:", tried(p.setsockopt, socket.IPPROTO_TCP, 1, 1))
        print("an unknown option of SOL_ALG:", tried(p.setsockopt, SOL_ALG, 77, 1))
        print("a key by serial:", tried(p.setsockopt, SOL_ALG, SET_KEY_BY_SERIAL, 0x7fffffff))
        print("a key for a plain hash:", tried(p.setsockopt, SOL_ALG, SET_KEY, b"key"))
        print("the size of a tag for a hash:", raw("setsockopt", p.fileno(), SOL_ALG, SET_AEAD_AUTHSIZE, None, 16))
    with parent() as p:
        print("a key before bind:", tried(p.setsockopt, SOL_ALG, SET_KEY, b"key"))


def names():
    with bound() as p:
        room, size = ctypes.create_string_buffer(200), ctypes.c_int(200)
        print("getsockname:", raw("getsockname", p.fileno(), room, ctypes.byref(size)))
        print("getpeername:", raw("getpeername", p.fileno(), room, ctypes.byref(size)))
        print("listen:", raw("listen", p.fileno(), 1))
        print("connect:", raw("connect", p.fileno(), address("hash", "sha256", 64), 88))
        print("accept with an address:", raw("accept", p.fileno(), room, ctypes.byref(size)))
        print("accept4 with an address:", raw("accept4", p.fileno(), room, ctypes.byref(size), 0))
        print("accept with unknown flags:", raw("accept4", p.fileno(), None, None, 0x40))
        print("a directory of the descriptor:", stat.S_ISSOCK(os.fstat(p.fileno()).st_mode))


def data():
    with bound() as p:
        quiet = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        poll = select.poll()
        poll.register(p, select.POLLIN | select.POLLOUT)
        print("poll:", [e for _, e in poll.poll(0)])
        print("send:", tried(p.send, b"x", quiet))
        print("receive:", tried(p.recv, 1, socket.MSG_DONTWAIT))
        p.setblocking(False)
        print("write:", tried(os.write, p.fileno(), b"x"))
        print("read, again:", tried(os.read, p.fileno(), 1))


def shut():
    for how in (0, 1, 2):
        with bound() as p:
            print("shutdown", how, "of the parent:", tried(p.shutdown, how))
            p.setblocking(True)
            print("bind after it:", bind(p, "hash", "sha256", 88))
            with p.accept()[0] as op:
                op.sendall(b"abc")
                print("a digest after it:", op.recv(64).hex()[:8])


def states():
    with parent() as p:
        print("accept before bind:", raw("accept", p.fileno(), None, None))
    with bound() as p:
        op = p.accept()[0]
        print("bind while in use:", bind(p, "hash", "sha256", 88))
        op.close()
        print("bind after use:", bind(p, "hash", "sha1", 88))
        copy = p.dup()
        print("bind by a copy:", bind(copy, "hash", "sha256", 88))
        with copy.accept()[0] as op:
            print("SO_DOMAIN of the operation:", op.getsockopt(socket.SOL_SOCKET, DOMAIN))
            print("accept on the operation:", raw("accept", op.fileno(), None, None) != -1)
            print("shutdown of the operation:", tried(op.shutdown, 2))
            op.sendall(b"abc")
            print("a digest:", op.recv(64).hex()[:8])
        copy.close()
    for kind, name in (("hash", "nothing"), ("nothing", "sha256"), ("skcipher", "sha256"), ("hash", "hmac(sha256")):
        with parent() as p:
            print("bind of", kind, name + ":", bind(p, kind, name, 88))


def many():
    import resource
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    kept = []
    try:
        while len(kept) < 1800:
            kept.append(parent())
    except OSError as e:
        kept.append(None)
        print("parents at a time:", len(kept) - 1, errno.errorcode[e.errno])
    else:
        print("parents at a time:", len(kept))
    for p in filter(None, kept):
        p.close()


for part in (lengths, options, names, data, shut, states, many):
    part()
