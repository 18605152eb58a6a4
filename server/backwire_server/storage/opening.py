"""Opens the data directory that a server was told of."""

from collections.abc import Callable

from backwire_server.config_parts import Keeping
from backwire_server.sessions.keeping.durable import Durability
from backwire_server.sessions.limits import Limits
from backwire_server.storage.sharing.membership import MOST_WAITING
from backwire_server.storage.sharing.shared_vault import SharedVault
from backwire_server.storage.vault import FileVault


def open_vault(
    keeping: Keeping,
    limits: Limits,
    owns: Callable[[str], bool],
    replica: str = "",
    most_waiting: int = MOST_WAITING,
) -> FileVault | SharedVault | None:
    """Returns the vault that has the sessions which this process owns; None for a server without a data directory.

    That of a directory which servers share has all sessions, for the replica of this name; so many calls may wait for
    another one. Whoever starts the processes must hold a DirectoryLock on the directory.
    """
    if keeping.data_dir is None:
        return None
    if keeping.shared:
        return SharedVault(
            keeping.data_dir,
            replica=replica,
            lease=keeping.lease,
            default=Durability(keeping.durability),
            limits=limits,
            checkpoint_bytes=keeping.checkpoint_bytes,
            checkpoint_url=keeping.checkpoint_url,
            most_waiting=most_waiting,
        )
    return FileVault(
        keeping.data_dir,
        default=Durability(keeping.durability),
        limits=limits,
        max_disk_bytes=keeping.max_disk_bytes,
        owns=owns,
        checkpoint_bytes=keeping.checkpoint_bytes,
        checkpoint_url=keeping.checkpoint_url,
    )
