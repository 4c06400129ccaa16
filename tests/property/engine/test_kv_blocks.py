"""Whatever sequences do, the pool's laws hold, and each sequence finds its own tokens in its blocks."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from support.examples import examples
from triune.engine.kv.hashes import BlockHash, block_hashes, root_hash
from triune.engine.kv.pool import KVBlockPool
from triune.engine.kv.table import BlockTable

BLOCK_SIZE = 3
NUM_BLOCKS = 9


class _Sequence:
    def __init__(self, table: BlockTable, tokens: list[int]) -> None:
        self.table = table
        self.tokens = tokens


class Sequences(RuleBasedStateMachine):
    """Sequences of few different tokens, so that many begin alike, in a cache that is too small for them."""

    sequences: Bundle[_Sequence] = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.pool = KVBlockPool(NUM_BLOCKS, self.evicted)
        self.memory: list[list[int]] = [[-1] * BLOCK_SIZE for _ in range(NUM_BLOCKS)]
        self.running: list[_Sequence] = []

    def evicted(self, block: int, block_hash: BlockHash) -> None:
        # The content is still there, and it is what the hash says of the block's own tokens.
        assert -1 not in self.memory[block]
        assert len(block_hash) == 16

    def write(self, sequence: _Sequence) -> None:
        """What a step does: write the tokens that are not in the cache yet."""
        table = sequence.table
        for index in range(table.num_tokens, len(sequence.tokens)):
            block = table.blocks[index // BLOCK_SIZE]
            assert self.pool.is_writable(block), "a block with two readers, or with a hash, is not written to"
            self.memory[block][index % BLOCK_SIZE] = sequence.tokens[index]
        table.write(sequence.tokens)

    @rule(target=sequences, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=14))
    def begin(self, tokens: list[int]) -> object:
        table = BlockTable(self.pool, BLOCK_SIZE, root_hash())
        # The last token is always computed, since its logits are wanted.
        table.share(block_hashes(tokens[:-1], BLOCK_SIZE))
        if not table.grow(len(tokens)):
            table.free()
            return multiple()
        sequence = _Sequence(table, tokens)
        self.running.append(sequence)
        self.write(sequence)
        return sequence

    @rule(sequence=sequences, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=4), rejected=st.integers(0, 3))
    def go_on(self, sequence: _Sequence, tokens: list[int], rejected: int) -> None:
        """Room for guesses is allocated, some are rejected, the others are written."""
        wanted = len(sequence.tokens) + len(tokens)
        if not sequence.table.grow(wanted):
            return
        sequence.tokens += tokens[: max(0, len(tokens) - rejected)]
        sequence.table.truncate(len(sequence.tokens))
        self.write(sequence)

    @rule(target=sequences, sequence=sequences)
    def fork(self, sequence: _Sequence) -> object:
        forked = sequence.table.fork()
        if forked is None:
            return multiple()
        table, copy = forked
        if copy is not None:
            self.memory[copy[1]] = list(self.memory[copy[0]])
        other = _Sequence(table, list(sequence.tokens))
        self.running.append(other)
        return other

    @rule(sequence=consumes(sequences))
    def end(self, sequence: _Sequence) -> None:
        sequence.table.free()
        self.running.remove(sequence)

    @precondition(lambda self: not self.running)
    @rule()
    def change_weights(self) -> None:
        self.pool.forget_cached()
        assert self.pool.num_free == NUM_BLOCKS

    @invariant()
    def laws_hold(self) -> None:
        self.pool.check()
        assert self.pool.num_used + self.pool.num_cached + self.pool.num_free == NUM_BLOCKS
        held = {block for each in self.running for block in each.table.blocks}
        assert self.pool.num_used == len(held)

    @invariant()
    def each_sequence_finds_its_tokens(self) -> None:
        for each in self.running:
            content = [token for block in each.table.blocks for token in self.memory[block]]
            assert content[: len(each.tokens)] == each.tokens


Sequences.TestCase.settings = examples(60, stateful_step_count=40)
TestSequences = Sequences.TestCase
