"""Copy the keys and values of one sequence out of a cache, and into another one."""

from collections.abc import Callable
from collections.abc import Sequence as Seq

import numpy as np

from triune.core.decoder import DecoderExecutable
from triune.core.errors import InternalError, InvalidArgumentError, TriuneError
from triune.engine.kv.hashes import block_hashes
from triune.engine.kv.pool import KVBlockPool
from triune.engine.moving.state import KeysAndValues


def copied_out(decoder: DecoderExecutable, blocks: Seq[int], num_tokens: int, form: str) -> KeysAndValues:
    """Copy the keys and values of a sequence's first tokens.

    Args:
        decoder: the decoder that owns the cache.
        blocks: the sequence's blocks, at least those of the tokens.
        num_tokens: the number of tokens.
        form: the `cache_form` of the decoder that will receive them. If it is the form of this decoder, blocks are
            copied as they are; otherwise keys and values are read as FP32.
    """
    if not num_tokens:
        return KeysAndValues()
    held = blocks[: -(-num_tokens // decoder.block_size)]
    if form == decoder.cache_form:
        return KeysAndValues(num_tokens, decoder.read_blocks(held), form)
    return KeysAndValues(num_tokens, decoder.read_tokens(held, num_tokens))


def put_into_cache(
    decoder: DecoderExecutable,
    pool: KVBlockPool,
    tokens: Seq[int],
    salt: bytes,
    cached: KeysAndValues,
    before_writing: Callable[[], None],
    most_tokens: int | None = None,
) -> bool:
    """Put keys and values into the prefix cache, for sequences with these tokens and this salt.

    Only full blocks are kept, as many as the pool has room for.

    Args:
        decoder: the decoder that owns the cache.
        pool: the pool of its blocks.
        tokens: the sequence's token ids, at least `cached.num_tokens`.
        salt: see `kv.hashes.block_hashes`.
        cached: the result of `copied_out`.
        before_writing: the function that is called after blocks were evicted and before they are overwritten.
        most_tokens: the approximate number of tokens to write at once, at least one block; None for all.

    Returns:
        whether more blocks can be written, by another call: this one stopped at `most_tokens`.

    Raises:
        InvalidArgumentError: the keys and values belong to another model, or the blocks have another form.
        InternalError: the decoder failed.
    """
    size = decoder.block_size
    if cached.form not in ("", decoder.cache_form):
        raise InvalidArgumentError(
            f"blocks of the form '{cached.form}' do not fit a cache of the form '{decoder.cache_form}'; move tokens"
        )
    if not cached.form and any(len(each) != cached.num_tokens for each in cached.arrays):
        raise InvalidArgumentError(f"keys and values are of other lengths than {cached.num_tokens} tokens")
    hashes = block_hashes(tokens[: cached.num_tokens], size, salt)
    known = pool.find(hashes)
    pool.hold(known)
    missing = hashes[len(known) :][: pool.num_available]
    num_most = len(missing) if most_tokens is None else max(1, most_tokens // size)
    is_part = len(missing) > num_most
    missing = missing[:num_most]
    blocks = (pool.allocate(len(missing)) or []) if missing else []
    try:
        before_writing()
        if blocks:
            first, last = len(known), len(known) + len(blocks)
            if cached.form:
                decoder.write_blocks(blocks, [each[first:last] for each in cached.arrays])
            else:
                part = slice(first * size, last * size)
                decoder.write_tokens(blocks, [each[part].astype(np.float32) for each in cached.arrays])
            for block, block_hash in zip(blocks, missing, strict=True):
                pool.publish(block, block_hash)
    except TriuneError:
        raise
    except Exception as error:
        raise InternalError(f"keys and values cannot be written: {type(error).__name__}: {error}") from error
    finally:
        pool.release([*known, *blocks])
    return is_part
