"""An application that takes a moment for each request, behind the edge, as granian is given it."""

from __future__ import annotations

import asyncio
from typing import Any

from tenantry.kernel.http.edge import Edge
from tenantry.kernel.http.shutdown import Shutdown

__all__ = ("app",)

_shutdown = Shutdown(drain=60)


async def _serve(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        with _shutdown.watch():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(0.005)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok", "more_body": False})


app = Edge(_serve, quiet=("/",), shutdown=_shutdown)
