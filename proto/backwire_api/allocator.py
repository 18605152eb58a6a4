"""glibc's allocator, set up for large messages.

gRPC and protobuf take fresh memory for every message. By default glibc asks the kernel for each large block anew, gives
it back as soon as it is free, and the kernel clears all its pages once more: most of the time that a message of many
megabytes takes. Set up as here, a process keeps freed blocks for the next message.
"""

import ctypes
import platform

MiB = 1 << 20

KEPT_BYTES = 512 * MiB
LARGEST_BLOCK = 1 << 30  # what is larger still comes from the kernel, and goes back to it at once
LARGEST_BLOCK_OF_OLD = 32 * MiB  # glibc before 2.35 takes no more
TOP_PAD = 64 * MiB

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8  # from malloc.h


def tune() -> bool:
    """Sets the allocator of this process up for large messages; returns whether that was possible: only with glibc.

    To be called before the process has other threads, which would have got arenas of their own: from then on there is
    one for all, so that a block which one thread freed serves the next. The process keeps up to KEPT_BYTES of freed
    memory for itself.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    large = mallopt(_MMAP_THRESHOLD, LARGEST_BLOCK) or mallopt(_MMAP_THRESHOLD, LARGEST_BLOCK_OF_OLD)
    rest = [mallopt(_ARENA_MAX, 1), mallopt(_TRIM_THRESHOLD, KEPT_BYTES), mallopt(_TOP_PAD, TOP_PAD)]
    return bool(large and all(rest))
