"""Tasks for the tests of the sandbox: records whose first bytes say what becomes of the process that reads them."""

import mmap
import os
import signal
import time

from transforms.worker.sandbox import records_of

DEADLY = {"segfault": "crashed", "abort": "crashed", "exit": "crashed", "spin": "timed_out", "memory": "out_of_memory"}


def read(arguments, parts, file):
    """Per record its length, and the record backwards."""
    for values in records_of(arguments, parts):
        name = (values[0] or b"").decode()
        match name:
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "abort":
                os.abort()
            case "exit":
                os._exit(3)
            case "spin":
                while True:
                    pass
            case "sleep":
                time.sleep(1000)
            case "memory":
                bytearray(1 << 40)
            case "print":
                os.system("echo from a C library; echo from a C library >&2")
            case "leak":
                # Enough for the next one to fail for lack of memory, if this process went on; reserved, but not
                # written to, which takes a second on a slow machine.
                _leaked.append(mmap.mmap(-1, 3 << 29))
            case "large":
                mmap.mmap(-1, 1 << 30).close()
        yield len(name), [value[::-1] for value in values if value is not None]


def read_file(arguments, parts, file):
    """The bytes of the file in ranges, as told."""
    for offset, size in arguments:
        file.seek(offset)
        yield file.tell(), [file.read(size)]


def descriptors(arguments, parts, file):
    """How many files the child has open."""
    yield [len(os.listdir("/proc/self/fd"))], []


def fail(arguments, parts, file):
    """Raise what is asked for."""
    yield 1, []
    raise {"ValueError": ValueError, "OSError": OSError, "RuntimeError": RuntimeError}[arguments]("what happened")


def process(arguments, parts, file):
    """The process that runs this."""
    yield os.getpid(), []


_leaked: list[mmap.mmap] = []
