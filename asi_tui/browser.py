"""The terminal in a browser of the same machine, through textual-serve.

It listens on 127.0.0.1 alone. A page of another origin could open the socket all the same and press keys, so a request
that another page sends, or that names another host, is refused.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal(host: str, origin: str | None, site: str | None, port: int) -> str:
    """Why a request is refused, by its `Host`, `Origin` and `Sec-Fetch-Site`; empty where it is not."""
    own = f"{HOST}:{port}"
    if host != own:
        return f"this is http://{own} under another name"
    if origin not in (None, f"http://{own}") or site not in (None, "same-origin", "none"):
        return f"another page asks; type http://{own} into the address line"
    return ""


class OwnServer(Server):
    """textual-serve that answers its own pages only."""

    async def _make_app(self) -> web.Application:
        made = await super()._make_app()

        @web.middleware
        async def own(request: web.Request, handler: Handler) -> web.StreamResponse:
            fields = request.headers
            reason = refusal(fields.get("Host", ""), fields.get("Origin"), fields.get("Sec-Fetch-Site"), self.port)
            if request.path == "/ws" and "Origin" not in fields:  # a browser always says it
                reason = reason or "a socket without an origin"
            if reason:
                raise web.HTTPForbidden(text=f"refused: {reason}\n")
            return await handler(request)

        made.middlewares.append(own)
        return made

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the command has said where it is."""


def command_for(root: Path) -> str:
    """The shell command that a browser's terminal runs."""
    return shlex.join([sys.executable, "-m", "asi_tui.main", "attach", str(root)])


def serve_run(root: Path, port: int) -> None:
    """Serve until Ctrl+C. Raises `OSError` where the port is taken."""
    OwnServer(command_for(root), host=HOST, port=port, title=f"asi  {root.name}").serve()
