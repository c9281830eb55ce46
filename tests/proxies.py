"""A proxy that speaks HTTP: forwards what is plain, opens tunnels, or does neither, as a test wants it to."""

import socket
import threading
from urllib.parse import urlsplit

from backends import Listening, read_head


class Proxy(Listening):
    """`servers` says where a name leads, which nobody else knows; `does` is `serve`, `hang`, `close`, or bytes to answer with."""

    def __init__(self, servers, does="serve", credentials=None, tls=None):
        self.asked = []
        self._servers, self._does, self._credentials = servers, does, credentials
        super().__init__(tls)
        self.port = self.address[1]

    def take(self, connection):
        head, rest = read_head(connection)
        if head is None:
            return
        request, *headers = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in headers)}
        self.asked.append((request, headers))
        if isinstance(self._does, bytes):
            connection.sendall(self._does)
        elif self._does == "hang":
            connection.settimeout(60)
            connection.recv(1)
        elif self._does == "close":
            pass
        elif self._credentials and headers.get("proxy-authorization") != self._credentials:
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        else:
            self._pass(connection, request, headers, rest)

    def _pass(self, connection, request, headers, rest):
        method, target, version = request.split(" ")
        tunnel = method == "CONNECT"
        url = urlsplit(f"//{target}" if tunnel else target)
        with socket.create_connection(self._servers[url.hostname]) as server:
            if tunnel:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n" + rest)
            else:
                kept = [f"{name}: {value}" for name, value in headers.items() if not name.startswith("proxy-")]
                path = f"{url.path}?{url.query}" if url.query else url.path
                server.sendall("\r\n".join([f"{method} {path} {version}", *kept, "", ""]).encode() + rest)
            back = threading.Thread(target=pump, args=(server, connection), daemon=True)
            back.start()
            pump(connection, server)
            back.join()


def pump(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
