"""An S3 server for tests: moto as a process of its own, and a proxy before it that fails as it is told."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

#: What becomes of a request: it is answered; or refused with 503; or the connection ends before or amid the answer; or
#: no answer comes; or one with other bytes.
Fate = Literal["answered", "refused", "cut", "truncated", "stalled", "altered"]


@contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[str]:
    """The endpoint of a new, empty server."""
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            found = None
            for line in process.stderr:
                if found := re.search(rf"Running on (http://{re.escape(host)}:\d+)", line):
                    break
            assert found, "the server did not start"
            drain = threading.Thread(target=process.stderr.read, daemon=True)  # or it would stop at a full pipe
            drain.start()
            yield found[1]
        finally:
            process.kill()


@contextmanager
def unreliable(
    endpoint: str, fate: Callable[[str, str], Fate], *, over: threading.Event | None = None
) -> Iterator[str]:
    """The endpoint of a proxy before a server, that asks for the fate of each request: method and path.

    What is stalled stays so until ``over``.
    """
    host = endpoint.removeprefix("http://")

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chosen = fate(self.command, self.path)
            if chosen == "refused":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if chosen == "cut":
                self.close_connection = True
                return
            if chosen == "stalled":
                assert over is not None
                over.wait()
                self.close_connection = True
                return
            upstream = http.client.HTTPConnection(host)
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
            if chosen == "altered" and content:
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if chosen == "truncated" and content:
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                self.wfile.write(content)
            upstream.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _relay

        def log_message(self, format: str, *args: object) -> None:
            pass

        def send_response(self, code: int, message: str | None = None) -> None:
            self.send_response_only(code, message)

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
