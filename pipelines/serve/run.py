"""The server from its settings to Ctrl-C."""

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cache.errors import EmocacheError, SettingsError, first_line
from pipelines.settings import Settings

if TYPE_CHECKING:  # these load torch
    from pipelines.exported import ExportedPredictor
    from pipelines.predict import Predictor
    from pipelines.serve.desk import Desk
    from pipelines.serve.persons import Persons

# Why no person of the cache is shown.
REACHED = (
    "other machines reach this server, and pictures of the data set are for this one alone: leave "
    "--host out"
)
EXPORTED = "the head is an exported one: serve the head that was exported, with its cache"


def serve(
    settings: Settings,
    head: Path,
    on_ready: Callable[[str, bool], None] = lambda url, open: None,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve this head until the process is told to end (SIGINT, SIGTERM).

    head: of `train`, or a folder of `export`. on_ready: called with the address once it answers,
    and whether other machines reach it. on_stop: called when it is told to end. Raises
    SettingsError where it cannot listen there, and as `Predictor.load` or `ExportedPredictor.load`.
    """
    import uvicorn

    from pipelines.serve.app import make_app
    from pipelines.serve.guard import LOOPBACK

    # One line for each broken form: who sends many would fill the terminal.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    limits = settings.serve
    here = is_loopback(limits.host)
    listening = listen(limits.host, limits.port)  # first: networks take a while to load
    with listening:
        app = make_app(
            desk_of(settings, head, here), {*LOOPBACK, limits.host.lower()} if here else None
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                # Longer than `Retry-After`: who asks again at the moment at which the connection is
                # closed reads an error.
                timeout_keep_alive=30,
                timeout_graceful_shutdown=5,
            )
        )
        end = server.handle_exit

        def ending(signal: int, frame: FrameType | None) -> None:
            on_stop()
            end(signal, frame)

        server.handle_exit = ending  # type: ignore[assignment, method-assign]
        name = f"[{limits.host}]" if ":" in limits.host else limits.host
        on_ready(f"http://{name}:{listening.getsockname()[1]}", not here)
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises once it has ended well
            server.run(sockets=[listening])


def desk_of(settings: Settings, head: Path, here: bool) -> "Desk":
    """What the server is asked; here: whether this machine alone reaches it."""
    from pipelines.predict import predictor_of
    from pipelines.serve.desk import Desk

    predictor = predictor_of(settings, head)
    persons = persons_of(settings, predictor) if here else REACHED
    return Desk(predictor, settings.serve, persons)


def persons_of(settings: Settings, predictor: "Predictor | ExportedPredictor") -> "Persons | str":
    """The persons of the cache that the head was fitted on, or why there are none to be had."""
    from pipelines.predict import Predictor
    from pipelines.serve.persons import Persons

    if not isinstance(predictor, Predictor):
        return EXPORTED
    try:
        return Persons.open(settings, predictor.model, predictor.info, predictor.networks.device())
    except EmocacheError as error:
        return str(error)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises SettingsError."""
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family, backlog=512)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host} port {port} ({first_line(error)}): set serve.port to another "
            "one, 0 for any that is free, or serve.host to an address of this machine"
        ) from None
