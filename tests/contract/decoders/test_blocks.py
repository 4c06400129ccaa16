"""The paged cache of every runtime: blocks are moved, kept, shared and checked."""

import numpy as np
import pytest

from contract.decoders.conftest import NUM_BLOCKS, Bench, other_form
from contract.decoders.test_answers import check, texts, truth
from support.decoder_steps import Texts
from triune.core.decoder import DecoderStep
from triune.core.errors import InvalidArgumentError

CASE = "llama 2"


def test_sizes(bench: Bench) -> None:
    decoder = bench.load(CASE)
    assert decoder.num_blocks == NUM_BLOCKS
    # Keys and values of 2 layers, 4 heads of 8 in fp32.
    assert decoder.block_bytes == decoder.block_size * 2 * 2 * 4 * 8 * 4
    decoder.allocate(3)
    assert decoder.num_blocks == 3
    assert not any(each.any() for each in decoder.read_blocks(range(3)))


def test_a_sequence_goes_on_from_other_blocks_and_in_another_executable(bench: Bench) -> None:
    here = Texts(bench.load(CASE), texts())
    begun = [here.read({0: 33})[0]]
    blocks = here.decoder.read_blocks(here.blocks[0])
    there = Texts(bench.load(CASE, num_blocks=5), texts()[:1])
    assert there.decoder.cache_form == here.decoder.cache_form
    there.decoder.write_blocks(there.blocks[0], blocks)
    there.lengths[0] = 33
    check([np.concatenate([*begun, *there.read({0: 7})])], truth(CASE)[:1])
    # What was read is a copy: the run of the other executable, and of this one, changed nothing in it.
    here.read({0: 7})
    spare = np.setdiff1d(np.arange(NUM_BLOCKS), np.concatenate(here.blocks))[: len(here.blocks[0])]
    here.decoder.write_blocks(spare, blocks)
    here.blocks[0], here.lengths[0] = spare.astype(np.int32), 33
    check([np.concatenate([*begun, *here.read({0: 7})])], truth(CASE)[:1])


def test_a_sequence_moves_to_a_cache_of_another_form(bench: Bench) -> None:
    here = Texts(bench.load(CASE), texts())
    begun = [here.read({0: 33})[0]]
    tokens = here.decoder.read_tokens(here.blocks[0], 33)
    assert [each.shape for each in tokens] == [(33, 4, 8)] * 4
    other = Texts(other_form(CASE), texts()[:1])
    assert other.decoder.cache_form != here.decoder.cache_form
    assert other.decoder.block_size != here.decoder.block_size
    other.decoder.write_tokens(other.blocks[0], tokens)
    other.lengths[0] = 33
    check([np.concatenate([*begun, *other.read({0: 7})])], truth(CASE)[:1])
    # And back, with what the other one wrote.
    here.decoder.write_tokens(here.blocks[0], other.decoder.read_tokens(other.blocks[0], 39))
    here.lengths[0] = 39
    check(here.read({0: 1}), [truth(CASE)[0][39:]])


def test_tokens_that_do_not_fit_are_refused(bench: Bench) -> None:
    decoder = bench.load(CASE)
    tokens = decoder.read_tokens([0, 1], 2 * decoder.block_size)
    with pytest.raises(InvalidArgumentError, match=f"{2 * decoder.block_size} tokens are to be written to 1 blocks"):
        decoder.write_tokens([0], tokens)
    with pytest.raises(InvalidArgumentError, match="and at least one token"):
        decoder.write_tokens([0], [each[:0] for each in tokens])
    with pytest.raises(InvalidArgumentError, match=r"shapes \[.*; this model has"):
        decoder.write_tokens([0, 1], tokens[:3])


def test_a_copy_of_blocks_is_a_fork(bench: Bench) -> None:
    texts_ = Texts(bench.load(CASE), [texts()[0], texts()[0]])
    begun = texts_.read({0: 33})
    texts_.decoder.copy_blocks(texts_.blocks[0], texts_.blocks[1])
    texts_.lengths[1] = 33
    check([np.concatenate([*begun, rest]) for rest in texts_.read({0: 7, 1: 7})], truth(CASE)[:1] * 2)


def test_copies_happen_at_once(bench: Bench) -> None:
    decoder = bench.load(CASE)
    blocks = decoder.read_blocks([0, 1])
    for each in blocks:
        each[0], each[1] = 1, 2
    decoder.write_blocks([0, 1], blocks)
    decoder.copy_blocks([0, 1], [1, 0])
    for each in decoder.read_blocks([0, 1]):
        assert (each[0] == 2).all()
        assert (each[1] == 1).all()


def test_sequences_share_blocks_of_an_equal_beginning(bench: Bench) -> None:
    decoder = bench.load(CASE)
    shared = decoder.block_size
    text = texts()[0]
    texts_ = Texts(decoder, [text, text])
    texts_.read({0: shared})
    texts_.blocks[1][0] = texts_.blocks[0][0]
    texts_.lengths[1] = shared
    rest = len(text) - shared
    check(texts_.read({1: rest, 0: rest}), [truth(CASE)[0][shared:]] * 2)


def _step(**changed: object) -> DecoderStep:
    arrays: dict[str, object] = {
        "input_ids": np.arange(3),
        "position_ids": np.arange(3),
        "past_lengths": np.array([0], np.int32),
        "subsequence_begins": np.array([0, 3], np.int32),
        "block_indices": np.array([0], np.int32),
        "block_indices_begins": np.array([0, 1], np.int32),
        "logits_indices": np.array([2]),
    }
    return DecoderStep(**arrays | changed)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"block_indices": np.array([NUM_BLOCKS], np.int32)}, f"a block of the step is {NUM_BLOCKS}; there are"),
        ({"block_indices": np.array([-1], np.int32)}, "a block of the step is -1; there are"),
        ({"logits_indices": np.array([3])}, "a token with logits of the step is 3; there are 3"),
        (
            {"past_lengths": np.array([30], np.int32)},
            "has 30 tokens and gets 3; its 1 blocks hold",
        ),
        ({"past_lengths": np.array([-1], np.int32)}, "must ascend from 0"),
        ({"subsequence_begins": np.array([0, 2], np.int32)}, "must ascend from 0"),
        ({"subsequence_begins": np.array([1, 3], np.int32)}, "must ascend from 0"),
        ({"block_indices_begins": np.array([0, 2], np.int32)}, "must ascend from 0"),
        ({"position_ids": np.arange(2)}, "a step of 3 tokens, 2 positions, 1 sequences and 1 blocks"),
        ({"past_lengths": np.array([], np.int32)}, "must ascend from 0"),
    ],
)
def test_steps_that_do_not_fit_are_refused(bench: Bench, changed, message) -> None:
    decoder = bench.load(CASE)
    with pytest.raises(InvalidArgumentError, match=message):
        decoder.run(_step(**changed))
    assert decoder.run(_step()).shape == (1, 48)


def test_blocks_that_do_not_fit_are_refused(bench: Bench) -> None:
    decoder = bench.load(CASE)
    blocks = decoder.read_blocks([0, 1])
    with pytest.raises(InvalidArgumentError, match="for cache 0, which takes"):
        decoder.write_blocks([0], blocks)
    with pytest.raises(InvalidArgumentError, match="for cache 3, which takes"):
        decoder.write_blocks([0, 1], [*blocks[:3], blocks[3].astype(np.float64)])
    with pytest.raises(InvalidArgumentError, match="are 3 arrays; there are 4 caches"):
        decoder.write_blocks([0, 1], blocks[:3])


def test_closed_again_it_does_nothing(bench: Bench) -> None:
    decoder = bench.load(CASE)
    decoder.close()
    decoder.close()
