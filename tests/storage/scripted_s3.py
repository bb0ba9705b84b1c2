"""An S3 server of one bucket that misbehaves on command: what ministack never does and real stores do."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"


class ScriptedS3:
    def __init__(self):
        self.objects = {}
        self.faults = []  # consumed by PUTs, in order; an empty list means good behaviour
        self.requests = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script = None  # set in a subclass for each server

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.script.faults.pop(0) if self.script.faults else None
        exclusive = self.headers.get("If-None-Match") == "*"
        self.script.requests.append(("PUT", exclusive))
        if fault in ANSWERS:
            self.answer(*ANSWERS[fault])
        elif exclusive and self.path in self.script.objects and fault != "ignore condition":
            self.answer(412, ERROR.format(code="PreconditionFailed", message="no condition named"))
        else:
            self.script.objects[self.path] = body
            self.answer_to_stored(fault)

    def answer_to_stored(self, fault):
        if fault == "hang up":
            self.close_connection = True
            self.connection.close()
        elif fault == "500 afterwards":
            self.answer(500, ERROR.format(code="InternalError", message="stored, and yet"))
        else:
            self.answer(200, "")

    def do_GET(self):
        self.script.requests.append(("GET", None))
        result = self.script.objects.get(self.path)
        if result is None:
            self.answer(404, ERROR.format(code="NoSuchKey", message="absent"))
        else:
            self.answer(200, result)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.script.objects.clear()
        self.answer(200, "<DeleteResult></DeleteResult>")

    def answer(self, status, body):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ANSWERS = {
    "refuse": (403, ERROR.format(code="AccessDenied", message="no")),
    "signature": (403, ERROR.format(code="SignatureDoesNotMatch", message="check your secret")),
    "conflict": (409, ERROR.format(code="ConditionalRequestConflict", message="a race")),
    "unavailable": (503, ERROR.format(code="SlowDown", message="slow down")),
}


@contextmanager
def scripted_s3(monkeypatch, secret="test"):
    script = ScriptedS3()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{http.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore's own retries would eat the script's faults
    try:
        yield script
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
