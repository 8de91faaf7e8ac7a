# The calls of LTP's af_alg01 to af_alg08, in their order, with harmless data:
# names that must not exist, requests of no length, keys of the wrong form, two
# processes at one socket. It is run directly and under a broker, and has to say
# the same.
import errno
import os
import socket
import struct
import threading

SOL_ALG, SET_KEY, SET_AEAD_AUTHSIZE = 279, 1, 5


def tried(f, *args, **named):
    try:
        r = f(*args, **named)
        return "ok" if r is None else r
    except OSError as e:
        return errno.errorcode[e.errno]


def parent():
    return socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)


def bound(kind, name, say):
    p = parent()
    r = tried(p.bind, (kind, name))
    print(say, kind, name, r)
    if r == "ok":
        return p
    p.close()


def like01():
    for digest in ("md5", "sha1", "sha256", "sha512", "sha3-256", "crc32c", "ghash"):
        for name in ("hmac(%s)", "hmac(hmac(%s))", "hmac(hmac(hmac(%s)))"):
            if p := bound("hash", name % digest, "01"):
                print("01 key", tried(p.setsockopt, SOL_ALG, SET_KEY, b"\0" * 4096))
                p.close()


def like02():
    for name, key, iv in (("salsa20", 16, 8), ("chacha20", 32, 16), ("ctr(aes)", 16, 16), ("cbc(aes)", 16, 16), ("xts(aes)", 32, 16)):
        if p := bound("skcipher", name, "02"):
            print("02 key", tried(p.setsockopt, SOL_ALG, SET_KEY, b"k" * key))
            with p.accept()[0] as op:
                print("02 nothing", tried(op.sendmsg_afalg, [b""], op=socket.ALG_OP_ENCRYPT, iv=b"i" * iv))
                op.setblocking(False)
                print("02 read", tried(op.recv, 16))
            p.close()


def like03():
    for inner in ("cbc(aes),sha256", "ctr(aes),poly1305", "chacha20,sha256", "chacha20,poly1305"):
        if p := bound("aead", "rfc7539(%s)" % inner, "03"):
            p.close()


def hashing(op, rounds):
    for _ in range(rounds):
        op.send(b"x" * 16, socket.MSG_MORE)
        op.send(b"y" * 5)
        op.recv(64)


def like04():
    for name in ("vmac64(aes)", "vmac(aes)", "cmac(aes)", "sha256"):
        p = bound("hash", name, "04")
        if not p:
            continue
        if "(" in name:
            print("04 key", tried(p.setsockopt, SOL_ALG, SET_KEY, b"k" * 16))
        op = p.accept()[0]
        child = os.fork()
        if child == 0:
            tried(hashing, op, 200)
            os._exit(0)
        tried(hashing, op, 200)
        os.waitpid(child, 0)
        op.setblocking(False)
        got = tried(op.recv, 64) if tried(op.send, b"x" * 32) == 32 else "nothing"
        print("04 a digest of", got if isinstance(got, str) else len(got))
        op.close()
        p.close()


def like05():
    for name in ("cbc(aes)", "ecb(aes)", "cbc(aes-generic)", "cbc(des3_ede)"):
        if p := bound("skcipher", name, "05"):
            key = b"0123456789abcdefghijklmn" if "des" in name else b"k" * 16
            print("05 key", tried(p.setsockopt, SOL_ALG, SET_KEY, key))
            with p.accept()[0] as op:
                iv = {} if name.startswith("ecb") else {"iv": b"i" * (8 if "des" in name else 16)}
                for size in (0, 1, 16, 4096):
                    r = tried(op.sendmsg_afalg, [b"x" * size], op=socket.ALG_OP_DECRYPT, **iv)
                    op.setblocking(False)
                    got = tried(op.recv, 4096)
                    print("05", size, r, got if isinstance(got, str) else len(got))
            p.close()


def like06():
    p = bound("aead", "authenc(hmac(sha256),cbc(aes))", "06")
    if not p:
        return
    good = struct.pack("=HHI", 8, 1, socket.htonl(16)) + b"a" * 32 + b"e" * 16
    for size in (0, 1, 3, 4, 7, 8, 9, 12, 40, 55, len(good)):
        print("06 a key of", size, tried(p.setsockopt, SOL_ALG, SET_KEY, good[:size]))
    for length in (0, 4, 5, 9, 100):
        print("06 a header of", length, tried(p.setsockopt, SOL_ALG, SET_KEY, struct.pack("=HHI", length, 1, 0) + b"a" * 48))
    p.close()


def like07():
    for _ in range(100):
        p = parent()
        fd = p.detach()
        other = threading.Thread(target=tried, args=(os.fchown, fd, 0, 0))
        other.start()
        tried(os.close, fd)
        other.join()
    p = parent()
    print("07", tried(os.fchown, p.fileno(), 0, 0), tried(os.fchmod, p.fileno(), 0o600))
    p.close()


def like08():
    p = bound("aead", "authencesn(hmac(sha256),cbc(aes))", "08")
    if not p:
        return
    key = struct.pack("=HHI", 8, 1, socket.htonl(16)) + b"a" * 32 + b"e" * 16
    print("08 key", tried(p.setsockopt, SOL_ALG, SET_KEY, key))
    print("08 tag", tried(p.setsockopt, SOL_ALG, SET_AEAD_AUTHSIZE, None, 16))
    with p.accept()[0] as op:
        for size in (8, 24, 40):
            r = tried(op.sendmsg_afalg, [b"x" * size], op=socket.ALG_OP_ENCRYPT, iv=b"i" * 16, assoclen=8)
            op.setblocking(False)
            got = tried(op.recv, 4096)
            print("08", size, r, got if isinstance(got, str) else len(got))
    p.close()


for part in (like01, like02, like03, like04, like05, like06, like07, like08):
    part()
