"""Peers that do wrong. Each runs as a process of its own: ``python -m tests.faults.attacks NAME OFFSET``; what it
prints is its result as JSON. The witnesses of a test must not share an interpreter with them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

UPGRADE = (
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
MASK = b"\x00\x00\x00\x00"


def frame(payload: bytes, first: int = 0x81) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 65536:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + MASK + payload


def connect(port: int, more: str = "", source: tuple[str, int] | None = None) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=source)
    peer.sendall(UPGRADE.format(more=more).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += peer.recv(4096)
    return peer


def request(method: str, params: object) -> bytes:
    return frame(json.dumps({"method": method, "params": params, "id": str(uuid.uuid4())}).encode())


def edge_rpc(edge_id: str, method: str, params: object) -> bytes:
    payload = {"method": method, "params": params, "id": str(uuid.uuid4())}
    return request("edgeRpc", {"edgeId": edge_id, "payload": payload})


def close_code(peer: socket.socket, seconds: float = 20.0) -> int | None:
    """Of the Close frame that comes; None when the connection ends without one."""
    peer.settimeout(seconds)
    data = b""
    try:
        while len(data) < 4 or data[0] != 0x88:
            more = peer.recv(65536)
            if not more:
                return None
            data += more
            at = data.find(b"\x88")
            data = data[at:] if at >= 0 else b""
    except ConnectionError:
        return None
    return int.from_bytes(data[2:4], "big")


def edge1(offset: int) -> socket.socket:
    return connect(8081 + offset, "apikey: key-1\r\n")


def tab(offset: int) -> socket.socket:
    """Logged in."""
    peer = connect(8082 + offset)
    peer.sendall(request("authenticateWithPassword", {"username": "admin", "password": "secret"}))
    time.sleep(1)
    return peer


def slow_loris(offset: int) -> int:
    """How many of 180 handshakes that trickle in were ended."""
    peers = [socket.create_connection(("127.0.0.1", port + offset)) for port in (8081, 8082, 8083) * 60]
    text = UPGRADE.format(more="X-A: b\r\n" * 50).encode()
    ended = set()
    for second in range(14):
        for peer in peers:
            try:
                peer.send(text[second : second + 1])
            except OSError:
                ended.add(peer)
        time.sleep(1)
    return len(ended)


def stopped_reader(offset: int) -> None:
    """A tab that watches and does not read, of an edge with long values."""
    watcher = tab(offset)
    watcher.sendall(request("subscribeEdges", {"edges": ["edge1"]}))
    watcher.sendall(edge_rpc("edge1", "subscribeChannels", {"count": 0, "channels": ["a/B"]}))
    with closing(edge1(offset)) as edge:
        for number in range(1500):
            row = {str(time.time_ns() // 1_000_000): {"a/B": f"{number}" + "x" * 60_000}}
            edge.sendall(frame(json.dumps({"method": "timestampedData", "params": row}).encode()))
            time.sleep(0.004)


def fragments(offset: int) -> list[int | None]:
    """Messages of a million fragments, from one connection after the other; the codes they are closed with."""
    codes = []
    for _ in range(20):
        with closing(edge1(offset)) as edge:
            edge.sendall(frame(b"{", 0x01))
            piece = frame(b" ", 0x00)
            try:
                for _ in range(1000):
                    edge.sendall(piece * 1000)
            except OSError:
                pass
            codes.append(close_code(edge))
    return codes


def huge_frame(offset: int) -> int | None:
    with closing(edge1(offset)) as edge:
        try:
            edge.sendall(frame(b" " * 100_000_000))
        except OSError:
            pass
        return close_code(edge)


def requests(offset: int) -> int:
    """10,000 requests to an edge that does not answer and goes then: how many replies came, that of the login too."""
    edge, user = edge1(offset), tab(offset)
    user.settimeout(20)
    for _ in range(10_000):
        user.sendall(edge_rpc("edge1", "anything", {}))
    edge.close()
    replies = 0
    text = b""
    while replies < 10_001 and (more := user.recv(1 << 20)):
        text += more
        replies += text.count(b'"jsonrpc"')
        text = text[-8:]
    return replies


def reconnecting_edge(offset: int) -> None:
    for _ in range(80):
        with closing(edge1(offset)) as edge:
            edge.sendall(frame(b'{"method":"edgeConfig","params":{"components":{},"factories":{}}}'))
            time.sleep(0.1)


def descriptors(offset: int) -> None:
    """As many connections as the server can have, for three seconds."""
    peers = []
    for _ in range(200):
        try:
            peers.append(socket.create_connection(("127.0.0.1", 8082 + offset), timeout=2))
        except OSError:
            break
    time.sleep(3)


def texts(peer: socket.socket, seconds: float) -> Iterator[dict[str, Any]]:
    """Messages that come until the connection or the time ends."""
    data, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        peer.settimeout(left)
        try:
            more = peer.recv(65536)
        except OSError:
            return
        if not more:
            return
        data += more
        while len(data) >= 2:
            length, begin = data[1], 2
            if length == 126:
                length, begin = int.from_bytes(data[2:4], "big"), 4
            if len(data) < begin + length:
                break
            text, first, data = data[begin : begin + length], data[0], data[begin + length :]
            if first == 0x88:
                return
            if first == 0x81:
                yield json.loads(text)


def twins(offset: int) -> dict[str, Any]:
    """Two edges with one key. The second answers requests; then each comes back whenever it is thrown out."""
    older, newer = edge1(offset), edge1(offset)
    told = {"code": close_code(older), "asked": 0}
    for message in texts(newer, 3):
        if "id" in message and "method" in message:
            told["asked"] += 1
            inner = {"jsonrpc": "2.0", "id": message["params"]["payload"]["id"], "result": {"who": "newer"}}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"payload": inner}}
            newer.sendall(frame(json.dumps(answer).encode()))
    end = time.monotonic() + 3
    told["turns"] = 0
    while time.monotonic() < end:
        newest = edge1(offset)
        close_code(newer, 2)
        newer.close()
        newer = newest
        told["turns"] += 1
    time.sleep(0.5)
    return told


def vanishing(offset: int) -> None:
    """An edge whose address is taken away: it never ends its connection, what is sent to it goes nowhere."""
    edge = connect(8081 + offset, "apikey: key-1\r\n", ("10.9.9.1", 0))
    edge.sendall(frame(b'{"method":"timestampedData","params":{}}'))
    time.sleep(1)
    subprocess.run(["ip", "address", "delete", "10.9.9.1/32", "dev", "lo"], check=True)
    time.sleep(15)


def hoarders(offset: int) -> int:
    """Edges that send more than a server with little memory can keep; how often a connection had ended."""
    edges = [connect(8081 + offset, f"apikey: key-{number}\r\n") for number in range(1, 20)]
    ended = 0
    for number in range(60):
        for edge in edges:
            row = {f"c{number}/{n}": f"{n}" + "x" * 900 for n in range(4000)}
            row_text = {"method": "timestampedData", "params": {str(time.time_ns() // 1_000_000): row}}
            try:
                edge.settimeout(2)
                edge.sendall(frame(json.dumps(row_text).encode()))
            except OSError:
                ended += 1
        if ended > 40:
            break
    return ended


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](int(sys.argv[2]))))
