"""An endpoint that takes whatever it is sent and says nothing: `python -m tests.bench.silent`."""

import asyncio
import os

from tests.bench.addresses import HOST, SILENT_PORT

PIECE = 65_536
BACKLOG = 4_096


async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(PIECE):
            pass
    except ConnectionError:
        pass  # who waits for an answer may leave as he likes
    finally:
        writer.close()


async def main() -> None:
    # After the origin and the load, which share its CPU: what it does is no part of the figures.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    server = await asyncio.start_server(drop, HOST, SILENT_PORT, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
