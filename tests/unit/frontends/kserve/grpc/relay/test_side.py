"""What remains of a connection of the relay when it has ended."""

import asyncio
import gc
import socket
import weakref

from triune.frontends.kserve.grpc.relay.side import Side, is_hung_up


async def connect() -> tuple[Side, socket.socket]:
    """Returns a side, and the other end of its connection."""
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, side = await loop.create_connection(lambda: Side(memoryview(bytearray(64)), 3600, 0), sock=near)
    return side, far


async def test_nothing_is_kept_of_a_connection_that_closed_in_time() -> None:
    side, far = await connect()
    side.close()
    kept = weakref.ref(side.transport)
    del side
    far.close()
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    assert kept() is None


async def test_a_hang_up_is_seen_while_nothing_is_read() -> None:
    side, far = await connect()
    side.pause()
    far.send(b"unread")
    assert not is_hung_up(side.transport)
    far.close()
    assert is_hung_up(side.transport)
    side.transport.abort()
