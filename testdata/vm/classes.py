"""Asks the kernel for sockets, a socket option and user namespaces, and prints
what it answers: one question a line, each in a process of its own."""

import ctypes
import errno
import os
import platform
import signal
import socket
import sys

NEWNET, NEWUSER = 0x40000000, 0x10000000
CLONE = {"x86_64": 56, "aarch64": 220}[platform.machine()]
CLONE3 = 435
libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def clone():
    if check(libc.syscall(CLONE, NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)) == 0:
        os._exit(0)


def clone3():
    args = (ctypes.c_uint64 * 8)(NEWUSER, 0, 0, 0, signal.SIGCHLD)
    if check(libc.syscall(CLONE3, args, ctypes.sizeof(args))) == 0:
        os._exit(0)


def setns(kind, flags):
    check(libc.setns(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY), flags))


def ulp():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).setsockopt(6, 31, b"tls\0")


def enter_other():
    """Enters the user namespace of a process that has one of its own."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user"):
                check(libc.setns(os.open(f"/proc/{pid}/ns/user", os.O_RDONLY), NEWUSER))
                return
        except (FileNotFoundError, ProcessLookupError):
            pass
    raise OSError(errno.ESRCH, "")


QUESTIONS = {
    "packet-raw": lambda: socket.socket(17, 3),
    "packet-dgram": lambda: socket.socket(17, 2),
    "inet-packet": lambda: socket.socket(2, 10),
    "inet6-raw": lambda: socket.socket(10, 3, 58),
    "key": lambda: socket.socket(15, 3, 2),
    "xfrm": lambda: socket.socket(16, 3, 6),
    "route": lambda: socket.socket(16, 3, 0),
    "unix": lambda: socket.socket(1, 1),
    "alg": lambda: socket.socket(38, 5),
    "ulp": ulp,
    "unshare-user": lambda: check(libc.unshare(NEWUSER)),
    "unshare-net": lambda: check(libc.unshare(NEWNET)),
    "clone-user": clone,
    "clone3-user": clone3,
    "setns-user": enter_other,
    "setns-net": lambda: setns("net", NEWNET),
    "setns-any": lambda: setns("net", 0),
}


def answer(ask):
    try:
        ask()
        return "ok"
    except OSError as e:
        return errno.errorcode[e.errno]


for name in sys.argv[1:] or QUESTIONS:
    sys.stdout.flush()
    if os.fork() == 0:
        print(name, answer(QUESTIONS[name]), flush=True)
        os._exit(0)
    os.wait()
