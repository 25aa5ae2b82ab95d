"""A zstd frame that wants all of its window at once: each block is made of references to every page of 128 MiB. No
compressor writes such a one by itself; libzstd takes it as a list of sequences."""

import ctypes
import struct

WINDOW, BLOCK, PAGE, MATCH = 128 << 20, 128 << 10, 4096, 4
# Of ZSTD_cParameter.
WINDOW_LOG, MIN_MATCH, BLOCK_DELIMITERS = 101, 105, 1008


def plain_size(blocks):
    """How many zeros pack() takes for so many blocks of references."""
    return WINDOW + blocks * BLOCK


def _sequence(offset, literals, match):
    return struct.pack("4I", offset, literals, match, 0)


def _block_of_references():
    made, page = bytearray(), 0
    for at in range(0, BLOCK, MATCH):
        page = (page + 12289) % (WINDOW // PAGE)  # prime to their number: all of them, far from each other
        made += _sequence(min(WINDOW - MATCH, max(at + MATCH, page * PAGE)), 0, MATCH)
    return made + _sequence(0, 0, 0)


def pack(plain, blocks, head=1024):
    """plain: an archive of one file of plain_size(blocks) zeros, whose header ends before `head`."""
    assert not any(plain[head:head + plain_size(blocks) - BLOCK])
    one_byte_back = _sequence(1, 0, BLOCK) + _sequence(0, 0, 0)
    made = _sequence(1, head, BLOCK - head) + _sequence(0, 0, 0) + one_byte_back * (WINDOW // BLOCK - 1)
    made += _block_of_references() * (blocks - 1)
    left = len(plain) - WINDOW - (blocks - 1) * BLOCK
    while left > 0:
        made += _sequence(0, min(left, BLOCK), 0)
        left -= BLOCK
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_createCCtx.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.ZSTD_createCCtx())

    def checked(call, *arguments):
        call.restype = ctypes.c_size_t
        result = call(context, *arguments)
        assert not library.ZSTD_isError(ctypes.c_size_t(result)), (call.__name__, result)
        return result

    for parameter, value in ((WINDOW_LOG, 27), (MIN_MATCH, 3), (BLOCK_DELIMITERS, 1)):
        checked(library.ZSTD_CCtx_setParameter, parameter, value)
    room = ctypes.create_string_buffer((blocks + 8) * BLOCK)
    size = checked(library.ZSTD_compressSequences, room, ctypes.c_size_t(len(room)), bytes(made),
                   ctypes.c_size_t(len(made) // 16), plain, ctypes.c_size_t(len(plain)))
    library.ZSTD_freeCCtx(context)
    return room.raw[:size]
