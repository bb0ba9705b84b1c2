"""moto's S3 server on 127.0.0.1 and the port GATEWAY_PORT, one request at a time.

Left to its threads it lets two of 32 conditional writers win, in up to 41 of 230 races: it looks and
writes in two steps. One lock around both makes it the second real server of the stores' contract.
"""

import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import MotoRequestHandler
from werkzeug.serving import run_simple

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def one_at_a_time(application: Application) -> Application:
    lock = threading.Lock()

    def locked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with lock:
            return list(application(environ, start_response))

    return locked


if __name__ == "__main__":
    server = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", int(os.environ["GATEWAY_PORT"]), server, threaded=True, request_handler=MotoRequestHandler)
