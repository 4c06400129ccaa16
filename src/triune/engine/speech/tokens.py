"""Whisper's special tokens, and the prompts that consist of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from triune.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from triune.engine.weights.tokenizer.tokenizer import Tokenizer

SECONDS_A_STAMP: Final = 0.02
"""The time between successive timestamp tokens, in seconds."""

_NUM_STAMPS: Final = 1501
_MULTILINGUAL_ROWS: Final = 51_865
"""The number of rows of a multilingual model's embedding; English-only models have fewer. The tokenizers of
English-only models have tokens of languages, too, but the models never learned them.
"""


@dataclass(frozen=True, slots=True)
class SpeechTokens:
    """The ids of special tokens.

    Attributes:
        end: the end of a text.
        start: the beginning of a transcript.
        translate: the task of translating to English.
        transcribe: the task of writing the spoken language.
        previous: the beginning of the text before this window.
        start_of_lm: the token `<|startoflm|>`, which is not used.
        no_speech: the token for a window without speech.
        no_stamps: the token that asks for a text without times.
        languages: the tokens of languages by their codes; empty for English-only models.
    """

    end: int
    start: int
    translate: int
    transcribe: int
    previous: int
    start_of_lm: int
    no_speech: int
    no_stamps: int
    languages: Mapping[str, int]

    @classmethod
    def of(cls, tokenizer: "Tokenizer", vocab_size: int, where: str) -> "SpeechTokens":
        """Find the special tokens by their texts.

        Args:
            tokenizer: the model's tokenizer.
            vocab_size: the number of rows of the embedding.
            where: the name of the model in error messages.

        Raises:
            InvalidArgumentError: the tokenizer lacks a special token, or the embedding has no rows for the timestamp
                tokens.
        """

        def need(*names: str) -> int:
            found = (tokenizer.backend.token_to_id(f"<|{name}|>") for name in names)
            token = next((each for each in found if each is not None), None)
            if token is None:
                raise InvalidArgumentError(f"{where}: the tokenizer has no token <|{names[0]}|>, which Whisper needs")
            return token

        start, translate, no_stamps = need("startoftranscript"), need("translate"), need("notimestamps")
        if no_stamps + _NUM_STAMPS >= vocab_size:
            raise InvalidArgumentError(
                f"{where}: the embedding has {vocab_size} rows; with {_NUM_STAMPS} tokens of time after token "
                f"{no_stamps} there are more"
            )
        added = tokenizer.backend.get_added_tokens_decoder()
        between = {entry.content.strip("<|>"): token for token, entry in added.items() if start < token < translate}
        return cls(
            end=need("endoftext"),
            start=start,
            translate=translate,
            transcribe=need("transcribe"),
            previous=need("startofprev"),
            start_of_lm=need("startoflm"),
            no_speech=need("nospeech", "nocaptions"),
            no_stamps=no_stamps,
            languages=between if vocab_size >= _MULTILINGUAL_ROWS else {},
        )

    @property
    def first_stamp(self) -> int:
        """The timestamp token of time 0."""
        return self.no_stamps + 1

    @property
    def never_chosen(self) -> tuple[int, ...]:
        """The special tokens that never occur in an answer."""
        return (
            *(self.start, self.translate, self.transcribe, self.previous, self.start_of_lm),
            *(self.no_speech, self.no_stamps),
        )

    def prompt(self, before: Sequence[int], language: str, *, translates: bool, has_stamps: bool) -> list[int]:
        """The prompt of a window.

        Args:
            before: the tokens of the text before it; may be empty.
            language: the code of the language; English-only models have no token for it.
            translates: whether to translate the speech to English.
            has_stamps: whether the text shall have times.
        """
        prompt = [self.previous, *before] if before else []
        prompt.append(self.start)
        if self.languages:
            prompt += [self.languages[language], self.translate if translates else self.transcribe]
        return prompt if has_stamps else [*prompt, self.no_stamps]

    def text_tokens(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that are text: neither special tokens nor times."""
        return [each for each in tokens if each < self.end]
