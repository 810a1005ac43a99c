"""A line to somewhere far away: a socket in front of another one, each direction of which takes its time."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

CHUNK = 262_144


async def far_line(outer: Path, inner: Path, delay: float) -> asyncio.Server:
    """Listen at `outer` and carry everything to `inner` and back, `delay` seconds each way."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near_reader, near_writer = await asyncio.open_unix_connection(str(inner))
        await asyncio.gather(_one_way(reader, near_writer, delay), _one_way(near_reader, writer, delay))

    await asyncio.to_thread(outer.unlink, missing_ok=True)
    return await asyncio.start_unix_server(carry, path=str(outer))


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.close()
                return
            writer.write(data)

    arriving = asyncio.create_task(arrive())
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            under_way.put_nowait((loop.time() + delay, data))
    under_way.put_nowait((loop.time() + delay, b""))
    await arriving
