"""A receiver of alerts for tests: what Apprise sends arrives here."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: A part of the receiver's URL that nobody may ever see.
SECRET = "t0k3nOfTheChannel"


class Receiver:
    """An HTTP server that takes Apprise's JSON messages; ``status`` is what it answers."""

    def __init__(self) -> None:
        self.taken: list[dict[str, str]] = []
        self._arrived = threading.Condition()
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.status == 200:
                    with receiver._arrived:
                        receiver.taken.append(content)
                        receiver._arrived.notify_all()
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server.server_port}/{SECRET}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.taken]

    @property
    def keys(self) -> list[str]:
        return [message["message"].rsplit("Message ", 1)[1] for message in self.taken]

    def wait_for(self, words: str, *, seconds: float) -> bool:
        """Wait until a message with these words in its title has arrived; whether it has."""
        with self._arrived:
            return self._arrived.wait_for(lambda: any(words in title for title in self.titles), timeout=seconds)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
