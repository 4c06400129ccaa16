"""Reads the fields of `audio/transcriptions` and `audio/translations`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from triune.core.energy import Bill
from triune.engine.speech.segments import SpeechRequest
from triune.frontends.openai.forms import Form
from triune.frontends.text.fields import FieldError, Fields, unsupported

FORMATS: Final = ("json", "text", "verbose_json", "srt", "vtt")
GRANULARITIES: Final = ("segment", "word")
_LISTS: Final = ("timestamp_granularities", "include")


@dataclass(frozen=True, slots=True)
class Transcription:
    """A request for the text of an audio file, in its language or in English.

    Attributes:
        model: the model's name.
        file: the audio file.
        speech: how the speech is to be read.
        form: the format of the response, one of FORMATS.
        is_stream: whether to answer with events.
        has_report: whether the answer has a report of where the model ran, and of the time and energy (`triune`).
        has_segments: whether 'verbose_json' lists the segments.
    """

    model: str
    file: bytearray
    speech: SpeechRequest
    form: str
    is_stream: bool
    has_report: bool
    has_segments: bool = True


def read_transcription(form: Form, *, translates: bool) -> Transcription:
    """Read a request. Raises FieldError if a field is wrong, missing or unknown."""
    fields = Fields(_document(form.fields))
    if form.file is None:
        raise FieldError("'file' is missing: send the audio file in a part of this name", "file")
    model = fields.need("model", fields.string("model"))
    kind = fields.choice("response_format", FORMATS) or FORMATS[0]
    granularities: list[str] = []
    if not translates:
        granularities = _read_granularities(fields, kind)
        if fields.array("include"):
            raise unsupported("include", "probabilities are in 'verbose_json', by segment")
        fields.refuse("chunking_strategy", "windows follow the times that the model writes", "auto")
    language = None if translates else fields.string("language")
    temperature = _number(fields, "temperature")
    is_stream = not translates and _flag(fields, "stream")
    if is_stream and kind not in ("json", "text"):
        raise unsupported("stream", f"with response_format '{kind}': ask for 'json' or 'text'")
    has_report = _flag(fields, "triune")
    bills = list[Bill]() if has_report else None
    speech = SpeechRequest(
        language or None,
        translates,
        fields.string("prompt") or "",
        temperature,
        has_words="word" in granularities,
        bills=bills,
    )
    fields.ignore("user")
    fields.end()
    has_segments = not granularities or "segment" in granularities
    return Transcription(model, form.file, speech, kind, is_stream, has_report, has_segments)


def _document(given: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The form's fields as a JSON object. A list field `name[]` of the form becomes the member `name`."""
    document: dict[str, Any] = {}
    for name, values in given.items():
        plain = name.removesuffix("[]")
        if plain in _LISTS:
            document[plain] = [*document.get(plain, []), *values]
        elif len(values) > 1:
            raise FieldError(f"the form has {len(values)} parts '{name[:64]}': send one", name[:64])
        else:
            document[name] = values[0]
    return document


def _read_granularities(fields: Fields, kind: str) -> list[str]:
    granularities = fields.array("timestamp_granularities") or []
    for each in granularities:
        if each not in GRANULARITIES:
            raise FieldError(
                f"'timestamp_granularities' has '{each[:64]}'; it may have 'segment' and 'word'",
                "timestamp_granularities",
            )
    if granularities and kind != "verbose_json":
        raise FieldError("'timestamp_granularities' needs response_format 'verbose_json'", "timestamp_granularities")
    return granularities


def _number(fields: Fields, name: str) -> float:
    text = fields.string(name)
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise FieldError(f"'{name}' is '{text[:64]}'; it must be a number between 0 and 1", name)
    return value


def _flag(fields: Fields, name: str) -> bool:
    text = (fields.string(name) or "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise FieldError(f"'{name}' is '{text[:64]}'; it must be true or false", name)
    return text in ("true", "1")
