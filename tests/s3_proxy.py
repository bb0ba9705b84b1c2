"""A proxy on 127.0.0.1 before an S3 server that does, now and then, what real stores and networks do to a client.

Which requests suffer, and what, comes from a seed and the number of the request. Every fault is
counted by its kind, so that a test can tell that it happened.
"""

import base64
import http.client
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"


class Fault(StrEnum):
    """What becomes of a request."""

    ERROR_500 = "500 before"
    ERROR_500_AFTER = "500 after it was done"
    SLOW_DOWN = "503 SlowDown"
    RESET = "reset before"
    RESET_AFTER = "reset after it was done"
    TRUNCATED = "truncated body"
    STALL = "stall"
    PRECONDITION_412 = "412 after it was done"
    CONFLICT_409 = "409 before"
    WRONG_CHECKSUM = "a body that its checksum does not fit"
    KEYS_REFUSED = "InternalError for each key of a DeleteObjects"


ANYTIME = (Fault.ERROR_500, Fault.SLOW_DOWN, Fault.RESET, Fault.STALL)
CHANGES = (Fault.ERROR_500_AFTER, Fault.RESET_AFTER)
CONDITIONAL = (Fault.PRECONDITION_412, Fault.CONFLICT_409)
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Script:
    """How the proxy behaves; change it at any time."""

    upstream: str
    """host:port of the real server."""
    share: float = 0.0
    """Of the requests that suffer a fault."""
    stall_s: float = 5.0
    seed: int = 0
    down: bool = False
    """Every request is answered with 503."""
    refuses: bool = False
    """Every request is answered with 403."""
    broken: str = ""
    """Every GET of a path that holds this is answered with 500, if not empty."""
    unconditional: bool = False
    """The condition of a write is not passed on, as by a store that does not know it."""
    clock_s: float | None = None
    """The `Date` of each answer is this far from the time of this machine."""
    kinds: tuple[Fault, ...] = tuple(Fault)
    at_most: int | None = None
    """So many faults, then none; by default without end."""
    counts: Counter[Fault] = field(default_factory=Counter)
    num_requests: int = 0
    num_possible: int = 0
    """Requests that can have a fault of `kinds`."""
    asked: list[tuple[float, str, str]] = field(default_factory=list)
    """Monotonic time, method and path of every request."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of the bodies that answered GETs, by path."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, method: str, conditional: bool) -> Fault | None:
        """The fault of the next request, counted."""
        with self.lock:
            self.num_requests += 1
            possible = [*ANYTIME, *(CHANGES if method != "GET" else ()), *(CONDITIONAL if conditional else ())]
            possible += [Fault.TRUNCATED, Fault.WRONG_CHECKSUM] if method == "GET" else []
            possible += [Fault.KEYS_REFUSED] if method == "POST" else []
            possible = [fault for fault in possible if fault in self.kinds]
            enough = self.at_most is not None and sum(self.counts.values()) >= self.at_most
            if enough or not possible:
                return None
            # Few requests have a condition, and how many others come between depends on the speed of the machine.
            self.num_possible += 1
            rare = set(self.kinds) <= set(CONDITIONAL)
            rng = random.Random(f"{self.seed}/{self.num_possible if rare else self.num_requests}")
            if rng.random() >= self.share:
                return None
            fault = rng.choice(possible)
            self.counts[fault] += 1
            return fault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script  # set in a subclass for each proxy

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):  # the client has gone: it was killed, or gave up
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        script = self.script
        script.asked.append((time.monotonic(), self.command, self.path))
        if script.refuses:
            return self._error(403, "SignatureDoesNotMatch")
        if script.down or (script.broken and self.command == "GET" and script.broken in self.path):
            return self._error(503 if script.down else 500, "SlowDown" if script.down else "InternalError")
        conditional = bool(self.headers.get("If-None-Match") or self.headers.get("If-Match"))
        fault = script.next_fault(self.command, conditional)
        match fault:
            case Fault.ERROR_500:
                return self._error(500, "InternalError")
            case Fault.SLOW_DOWN:
                return self._error(503, "SlowDown")
            case Fault.CONFLICT_409:
                return self._error(409, "ConditionalRequestConflict")
            case Fault.RESET:
                return self._reset()
            case Fault.STALL:
                time.sleep(script.stall_s)
            case Fault.KEYS_REFUSED if b"<Delete" in body:
                return self._refuse_keys(body)
            case _:
                pass
        return self._forward(body, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815 - names of http.server

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        server = http.client.HTTPConnection(self.script.upstream, timeout=60)
        try:
            headers = {
                name: value
                for name, value in self.headers.items()
                if not (self.script.unconditional and name.lower() in ("if-none-match", "if-match"))
            }
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            data = answer.read()
        finally:
            server.close()
        if self.command == "GET":
            with self.script.lock:
                self.script.sent[self.path.partition("?")[0]] += len(data)
        match fault:
            case Fault.ERROR_500_AFTER:
                return self._error(500, "InternalError")
            case Fault.RESET_AFTER:
                return self._reset()
            case Fault.PRECONDITION_412:
                return self._error(412, "PreconditionFailed")
            # S3 sends no checksum with an error; aiobotocore 3.9 ends with a TypeError where one comes.
            case Fault.WRONG_CHECKSUM if answer.status < 300:
                checksum = base64.b64encode(zlib.crc32(data + b"lost").to_bytes(4, "big")).decode()
                return self._answer(answer, data, checksum=checksum)
            case _:
                return self._answer(answer, data, cut=fault is Fault.TRUNCATED)

    def _answer(
        self, answer: http.client.HTTPResponse, data: bytes, *, cut: bool = False, checksum: str | None = None
    ) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            lost = HOP_BY_HOP | ({"date"} if self.script.clock_s is not None else set())
            if name.lower() not in lost and not (checksum and name.lower().startswith("x-amz-checksum-")):
                self.send_header(name, value)
        if self.script.clock_s is not None:
            self.send_header("Date", formatdate(time.time() + self.script.clock_s, usegmt=True))
        if checksum:
            self.send_header("x-amz-checksum-crc32", checksum)
        # The answer to HEAD tells the length of a body that it does not have.
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self._reset()

    def _refuse_keys(self, body: bytes) -> None:
        """Answer a DeleteObjects with an error for each key; nothing is deleted."""
        keys = re.findall(rb"<Key>.*?</Key>", body, re.DOTALL)
        errors = b"".join(
            b"<Error>%s<Code>InternalError</Code><Message>injected</Message></Error>" % key for key in keys
        )
        answer = b"<?xml version='1.0'?><DeleteResult>%s</DeleteResult>" % errors
        self.send_response_only(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _error(self, status: int, code: str) -> None:
        body = b"" if self.command == "HEAD" else ERROR.format(code=code).encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        """Close with RST instead of FIN, as a dying server's kernel does."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()

    def log_message(self, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that this proxy itself has cut."""


@contextmanager
def s3_proxy(endpoint: str, **options: object) -> Iterator[tuple[str, Script]]:
    """Yield the proxy's own endpoint, and the script that it follows."""
    script = Script(upstream=urlsplit(endpoint).netloc, **options)
    server = _Server(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
