"""Under which boot of the machine files were written: with another one, what was not flushed may be lost."""

from dataclasses import dataclass

from backwire_api.v1 import storage_pb2


@dataclass(frozen=True, slots=True)
class Boots:
    """The boots that tell a loss of power from damage, as `life.this_machine` names them.

    Attributes:
        now: That of this process; empty where none tells anything: what is flushed at once is not lost, and in a
            directory that servers share, the machine that wrote something may run still.
        manifest: That under which the manifest was written, and so what the session began with, or its last checkpoint.
    """

    now: str = ""
    manifest: str = ""

    @property
    def is_other(self) -> bool:
        """Whether the boot under which the manifest was written is known to have ended."""
        return self.ended(self.manifest)

    def of(self, header: storage_pb2.JournalHeader | None, before: str = "") -> str:
        """Returns that under which a segment was written; without a header that before it, or of the manifest."""
        return (before or self.manifest) if header is None else header.boot

    def ended(self, boot: str) -> bool:
        """Tells whether a boot is known to have ended, with all that was not flushed."""
        return bool(self.now and boot) and boot != self.now


UNKNOWN = Boots()
