"""Write transcripts: as JSON, as text, as subtitles, or as events."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import orjson

from triune.core.energy import report_of
from triune.engine.generation import Placement
from triune.engine.speech.segments import Segment
from triune.engine.speech.words.split import Word
from triune.frontends.bodies.budget import Reservation
from triune.frontends.bodies.responses import HeldResponse
from triune.frontends.openai.speech_requests import Transcription

_SEGMENT_BYTES = 1000
"""The approximate memory of a segment, in bytes, until its response is written."""

_WORD_BYTES = 300
"""The approximate memory of a word with its times, in bytes."""


class HeldText(HeldResponse):
    """A `HeldResponse` with plain text instead of JSON."""

    media_type = "text/plain"


class Transcript:
    """Writes the answer to one request for a transcript."""

    def __init__(self, request: Transcription, placement: Placement, seconds: float) -> None:
        """Args:
        request: the request.
        placement: where the model runs.
        seconds: the length of the audio.
        """
        self._request = request
        self._placement = placement
        self._seconds = seconds

    async def whole(self, segments: AsyncGenerator[Segment], held: Reservation) -> HeldResponse:
        """The answer as one document. The response releases the request's reservation of memory when it is sent."""
        found: list[Segment] = []
        async for segment in segments:
            held.grow(_SEGMENT_BYTES + 4 * len(segment.text) + _WORD_BYTES * len(segment.words))
            found.append(segment)
        kind = self._request.form
        if kind in ("json", "verbose_json"):
            content = orjson.dumps(await self._document(found, is_verbose=kind == "verbose_json"))
        else:
            content = {"text": _text, "srt": _srt, "vtt": _vtt}[kind](found).encode()
        held.resize(len(content))
        return (HeldResponse if kind in ("json", "verbose_json") else HeldText)(content, held)

    async def events(self, segments: AsyncGenerator[Segment]) -> AsyncGenerator[bytes]:
        """The answer as events, one for each segment."""
        texts: list[str] = []
        async for segment in segments:
            delta = segment.text if texts else segment.text.lstrip()
            texts.append(delta)
            yield _event({"type": "transcript.text.delta", "delta": delta})
        done: dict[str, Any] = {"type": "transcript.text.done", "text": "".join(texts), "usage": self._usage()}
        yield _event({**done, **(await self._report())})

    async def _document(self, segments: Sequence[Segment], *, is_verbose: bool) -> dict[str, Any]:
        document: dict[str, Any] = {"text": _joined(segments)}
        if is_verbose:
            document |= {
                "task": "translate" if self._request.speech.translates else "transcribe",
                "language": segments[0].language if segments else self._request.speech.language or "",
                "duration": self._seconds,
            }
            if self._request.has_segments:
                document["segments"] = [_segment(number, each) for number, each in enumerate(segments)]
            if self._request.speech.has_words:
                document["words"] = [_word(word) for each in segments for word in each.words]
        return {**document, "usage": self._usage(), **(await self._report())}

    def _usage(self) -> dict[str, Any]:
        return {"type": "duration", "seconds": self._seconds}

    async def _report(self) -> dict[str, Any]:
        """Where the model ran, and the energy of the answer. Waits for the meters."""
        bills = self._request.speech.bills
        if not self._request.has_report or bills is None:
            return {}
        placement = self._placement
        return {
            "triune": {
                "unit": placement.unit.value,
                "runtime": placement.runtime,
                "precision": placement.precision,
                "reason": placement.reason,
                "energy": await report_of(bills),
            }
        }


def _event(document: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(document)


def _joined(segments: Sequence[Segment]) -> str:
    return "".join(each.text for each in segments).strip()


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.mean_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech,
    }


def _word(word: Word) -> dict[str, Any]:
    # Times are multiples of 0.02 s: rounding removes only the error of floating point.
    return {"word": word.text.strip(), "start": round(word.start, 2), "end": round(word.end, 2)}


def _text(segments: Sequence[Segment]) -> str:
    return _joined(segments) + "\n"


def _srt(segments: Sequence[Segment]) -> str:
    return "".join(
        f"{number}\n{_time(each.start, ',')} --> {_time(each.end, ',')}\n{_line(each)}\n\n"
        for number, each in enumerate(segments, 1)
    )


def _vtt(segments: Sequence[Segment]) -> str:
    cues = (f"{_time(each.start, '.')} --> {_time(each.end, '.')}\n{_line(each)}\n\n" for each in segments)
    return "WEBVTT\n\n" + "".join(cues)


def _line(segment: Segment) -> str:
    # Replace arrows: in subtitles, an arrow would be read as the times of another cue.
    return segment.text.strip().replace("-->", "->")


def _time(seconds: float, point: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
