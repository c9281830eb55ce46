"""A proxy that speaks HTTP: forwards what is plain, opens tunnels, or does neither, as a test wants it to."""

import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """`servers` says where a name leads, which nobody else knows; `does` is `serve`, `hang`, `close`, or bytes to answer with.
    `tls` is what it is spoken to by, if it is."""

    def __init__(self, servers, does="serve", credentials=None, tls=None):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked = []
        self._servers, self._does, self._credentials, self._tls = servers, does, credentials, tls
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                self._take(connection)
        except OSError:
            pass

    def _take(self, connection):
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(65536)
            if not piece:
                return
            received += piece
        head, _, rest = received.partition(b"\r\n\r\n")
        request, *headers = head.decode().split("\r\n")
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

    def close(self):
        self._listener.close()


def pump(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass
