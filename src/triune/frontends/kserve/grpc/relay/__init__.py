"""A proxy between clients and gRPC's library, so that no connection delays the calls of another one.

The library has one queue for the new calls of all connections, and it reads every frame as soon as it arrives. A
connection that opens thousands of calls, resets them or sends thousands of pings would delay all others. The relay
reads the headers of frames: connections open new calls in turns, and a connection that sends more small frames a second
than its limit is read more slowly.
"""

from triune.frontends.kserve.grpc.relay.relay import Relay
from triune.frontends.kserve.grpc.relay.sides import CALL

__all__ = ["CALL", "Relay"]
