"""Where a store lies: a folder, or any place that fsspec reads (``s3://``, ``https://``, …)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from feie.features.errors import StoreError, StoreNotFoundError, UsageError, one_line
from feie.features.store.backends.bounds import refuse_file
from feie.features.store.backends.durable import DurableStore

_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3"}


class BoundedStore(FsspecStore):
    """Objects of which no chunk unpacks to more than a chunk may have."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read one key; see `FsspecStore.get`."""
        found = await super().get(key, prototype, byte_range)
        if found is not None:
            refuse_file(key, found.to_bytes())
        return found


def is_url(location: str) -> bool:
    """Say whether a location is an address and no path."""
    return "://" in location


def refuse_absent(location: str) -> None:
    """Raise `StoreNotFoundError` where a local path holds nothing; addresses are not asked."""
    try:
        if is_url(location) or Path(location).exists():
            return
    except OSError as error:
        raise StoreError(f"{location} cannot be read: {error.strerror}") from None
    raise StoreNotFoundError(
        f"there is no store at {location}; `feie extract --videos DIR --store {location}` makes one"
    )


def open_root(location: str, options: Mapping[str, Any] | None = None) -> zarr.Group:
    """Open a Zarr group for reading.

    Nothing is listed, and of an address only the root's metadata is fetched: one request.

    Parameters
    ----------
    location : str
        A folder, or an address.
    options : mapping, optional
        What fsspec needs to open the address, e.g. ``{"anon": True}`` for a public bucket.

    Raises
    ------
    StoreNotFoundError
        No group is there.
    StoreError
        What reads such an address is not installed, or the address cannot be reached.
    """
    if options and not is_url(location):
        raise UsageError(f"storage options are for addresses; {location} is a path")
    try:
        source = (
            zarr_store(location, options)
            if is_url(location)
            else DurableStore(location, read_only=True)
        )
        return zarr.open_group(source, mode="r", zarr_format=3, use_consolidated=False)
    except FileNotFoundError:
        raise StoreNotFoundError(
            f"{location} holds no Zarr group, so it is no feie store"
        ) from None
    except PermissionError as error:
        why = error.strerror or "access is denied"
        raise StoreError(f"{location} cannot be read: {why}") from None
    except Exception as error:
        if not is_url(location) or isinstance(error, StoreError):
            raise
        # Each file system has its own errors for a name that is not found, a key that is lacking…
        raise StoreError(
            f"{location} cannot be read: {one_line(error)}; check the address, the network and "
            f"your credentials"
        ) from error


def address(url: str, options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Give fsspec's file system of an address, and the path in it.

    The file system is in its plain form, in which it closes its connections itself when the
    program ends, and remembers no listings: others write what it lists.

    Raises
    ------
    StoreError
        What reads such an address is not installed, or the address makes no sense.
    """
    from fsspec.core import url_to_fs

    scheme = url.partition("://")[0]
    try:
        files, path = url_to_fs(url, **{"use_listings_cache": False, **(options or {})})
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        cure = f"pip install 'feie[{extra}]'" if extra else one_line(error)
        raise StoreError(f"{url} needs a library that is not installed: {cure}") from None
    except ValueError as error:
        raise StoreError(f"{url} cannot be opened: {one_line(error)}") from None
    return files, path.rstrip("/")


def zarr_store(url: str, options: Mapping[str, Any] | None = None) -> FsspecStore:
    """Give the Zarr store of an address, for reading; each call of it runs in a thread."""
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    files, path = address(url, options)
    return BoundedStore(AsyncFileSystemWrapper(files, asynchronous=True), read_only=True, path=path)
