"""Synthetic traces: requests that arrive at random, at a rate for each model."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triune.core.errors import InvalidArgumentError
from triune.simulation.trace import MOST_ARRIVALS, Arrival

FORM = "MODEL=poisson:RATE or MODEL=poisson:RATE:ROWS"


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests to one model, which arrive as a Poisson process.

    Attributes:
        model: the model's name.
        per_second: the mean number of requests per second.
        num_rows: the number of rows of each request.
    """

    model: str
    per_second: float
    num_rows: int = 1


def parse_stream(text: str) -> Stream:
    """Read a stream from text such as "minilm=poisson:20:4": the model, requests a second, and rows of each request.

    The number of rows may be left out, and is then 1.

    Raises:
        InvalidArgumentError: the text has another form, or a rate or number of rows is not above 0.
    """
    found = re.fullmatch(r"(.+)=poisson:([0-9]*\.?[0-9]+)(?::([0-9]{1,6}))?", text)
    if found is None or not float(found[2]) or (found[3] is not None and not int(found[3])):
        raise InvalidArgumentError(
            f"arrivals {text!r} cannot be read; write {FORM}, with a rate of requests a second and a number of rows "
            "above 0, such as minilm=poisson:200"
        )
    return Stream(found[1], float(found[2]), int(found[3] or 1))


def synthetic(streams: Sequence[Stream], seconds: float, seed: int) -> list[Arrival]:
    """Make the requests of some streams, in the order of their arrival.

    The same streams and seed give the same requests. Adding another stream does not change the requests of these
    streams.

    Raises:
        InvalidArgumentError: there would be no requests, or too many.
    """
    expected = seconds * sum(each.per_second for each in streams)
    if expected > MOST_ARRIVALS / 2:
        raise InvalidArgumentError(
            f"arrivals at these rates for {seconds:g} s would be some {expected:,.0f} requests, and "
            f"{MOST_ARRIVALS // 2:,} are the limit; lower the rates, or --seconds"
        )
    found: list[Arrival] = []
    for stream in streams:
        random = np.random.default_rng([seed, zlib.crc32(stream.model.encode())])
        mean = stream.per_second * seconds
        # Draw the number of requests, then their times: given the number, the times of a Poisson process are
        # independent and uniform.
        times = random.uniform(0, seconds * 1e9, random.poisson(mean))
        found += [Arrival(int(each), stream.model, stream.num_rows) for each in times]
    if not found:
        raise InvalidArgumentError(f"no request arrives at these rates within {seconds:g} s; raise them, or --seconds")
    return sorted(found, key=lambda each: (each.at_ns, each.model))
