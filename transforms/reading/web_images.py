"""Images at http(s) addresses that records name, fetched if the run allows it."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transforms.reading.record_error import RecordError

if TYPE_CHECKING:
    from aiohttp import ClientSession

# Images that are fetched at a time.
_AT_ONCE = 16
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Web:
    """The limits of one image.

    Attributes:
        most_bytes: more are not read.
        seconds: on the clock, redirects included, after which an address is given up.
    """

    most_bytes: int
    seconds: float


def is_address(path: str) -> bool:
    """Tell whether a path is an http(s) address."""
    return _ADDRESS.match(path) is not None


def fetch_addresses(addresses: Sequence[str], web: Web) -> dict[str, bytes | RecordError]:
    """The contents at http(s) addresses, as they are sent, or why not. Redirects lead to http(s) only."""
    if not addresses:
        return {}
    # Its loop runs in a thread of its own, so that it works in notebooks, and Ctrl-C waits for no server.
    from fsspec.asyn import get_loop, sync

    return dict(zip(addresses, sync(get_loop(), _fetch_all, addresses, web), strict=True))


async def _fetch_all(addresses: Sequence[str], web: Web) -> list[bytes | RecordError]:
    # Flags are made of the modules that read, and most runs fetch nothing.
    from aiohttp import ClientSession, ClientTimeout

    # Unpacked, a small answer might fill the memory.
    plain = {"Accept-Encoding": "identity"}
    free = asyncio.Semaphore(_AT_ONCE)
    async with ClientSession(timeout=ClientTimeout(web.seconds), headers=plain, auto_decompress=False) as session:

        async def fetch(address: str) -> bytes | RecordError:
            # The time of an address begins with its turn.
            async with free:
                return await _fetch(session, address, web)

        return await asyncio.gather(*map(fetch, addresses))


async def _fetch(session: "ClientSession", address: str, web: Web) -> bytes | RecordError:
    from aiohttp import ClientResponseError, TooManyRedirects

    content = bytearray()
    try:
        async with session.get(address, raise_for_status=True) as response:
            async for part in response.content.iter_any():
                content += part
                if len(content) > web.most_bytes:
                    message = f"{address} sends more than max_image_bytes, {web.most_bytes}"
                    return RecordError("too_many_bytes", message)
    except TimeoutError:
        problem = f"not all of it came within {web.seconds:g} s, ten times max_record_seconds"
    except TooManyRedirects:
        problem = "too many redirects"
    except ClientResponseError as error:
        problem = f"HTTP {error.status} {error.message}"
    except Exception as error:
        # A server may send anything, and one bad record must not end a run.
        problem = f"{type(error).__name__}: {error}"
    else:
        return bytes(content)
    return RecordError("unreadable_image", f"{address} cannot be fetched: {problem}")
