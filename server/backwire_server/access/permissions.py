"""Which scope each method of the contract needs."""

from types import MappingProxyType

from backwire_server.sessions.caller import Caller, Scope
from backwire_server.sessions.errors import PermissionDenied

LEAST = MappingProxyType(
    {
        "CreateSession": Scope.WRITE,
        "GetSession": Scope.READ,
        "ListSessions": Scope.READ,
        "DeleteSession": Scope.WRITE,
        "AttachSession": Scope.WRITE,
        "DetachSession": Scope.WRITE,
        "Forward": Scope.READ,
        "Backward": Scope.WRITE,
        "Step": Scope.WRITE,
        "TrainStep": Scope.WRITE,
        "GetParameters": Scope.READ,
        "SetParameters": Scope.WRITE,
        "GetGradients": Scope.READ,
        "ZeroGradients": Scope.WRITE,
        "SaveCheckpoint": Scope.WRITE,
        "ListCheckpoints": Scope.READ,
        "DeleteCheckpoint": Scope.WRITE,
        "RestoreCheckpoint": Scope.WRITE,
        "ForkSession": Scope.WRITE,
        "MoveSession": Scope.WRITE,
        "ExportSession": Scope.READ,
        "ImportSession": Scope.WRITE,
        "Pipeline": Scope.READ,
        "DescribeGraph": Scope.READ,
        "ListOps": Scope.READ,
        "DescribeSession": Scope.READ,
        "CheckGradients": Scope.READ,
        "GetStatus": Scope.READ,
        "GetSessionHistory": Scope.READ,
    }
)
"""The least scope for each method; Forward in train mode and the mutating requests of a Pipeline need WRITE."""

_RANKS = {scope: rank for rank, scope in enumerate(Scope)}


def check(caller: Caller, method: str, training: bool = False) -> None:
    """Raises PermissionDenied when the caller may not use a method of this name.

    `training` says that a Forward is in train mode, or that a request of a Pipeline mutates its session. A method that
    is not in LEAST needs ADMIN.
    """
    needed = LEAST.get(method, Scope.ADMIN)
    if training and needed is Scope.READ:
        needed = Scope.WRITE
    if _RANKS[caller.scope] < _RANKS[needed]:
        what = f"{method} that changes a session" if training else method
        raise PermissionDenied(
            f"{what} needs the scope {needed.value!r}, and the token has {caller.scope.value!r}; use a token with the "
            "scope that is needed"
        )
