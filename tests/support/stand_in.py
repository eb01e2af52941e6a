"""What servers that stand in for Weights & Biases have in common."""

import http.server
import json
from typing import Any


class StandIn(http.server.BaseHTTPRequestHandler):
    """Reads requests and answers with data as GraphQL does; tells nothing of it."""

    def request_body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, data: dict[str, Any]) -> None:
        content = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass
