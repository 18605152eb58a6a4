"""What a session tells of itself without waiting for its turn."""

import time

from backwire_server.sessions.errors import Recovering, SessionQuarantined
from backwire_server.sessions.history import History
from backwire_server.sessions.info import SessionInfo, Standing
from backwire_server.sessions.keeping.keeper import Keeper
from backwire_server.sessions.limits import Limits
from backwire_server.sessions.status import SessionState, SessionStatus


class Report:
    """What a keeper keeps, for others to see. Whoever has the turn publishes, any thread may read meanwhile.

    Attributes:
        history: What the last steps gave.
    """

    __slots__ = ("_address", "_created", "_keeper", "_limits", "_standing", "history")

    def __init__(
        self, keeper: Keeper, limits: Limits, address: str, *, created: float, standing: Standing | None
    ) -> None:
        """Tells of what the keeper keeps; `standing` is where it stands, None while only its journal tells."""
        self.history = History()
        self._keeper = keeper
        self._limits = limits
        self._address = address
        self._created = created
        self._standing = standing

    def info(self, last_used: float) -> SessionInfo:
        """Returns what the session is and where it stands.

        Raises Recovering while that is not known, SessionQuarantined when it cannot be.
        """
        if (damage := self._keeper.damage) is not None:
            raise SessionQuarantined(str(damage))
        outline, standing = self._keeper.outline, self._standing
        if standing is None:
            raise self.recovering()
        oldest = time.monotonic() - self._limits.pass_ttl
        return SessionInfo(
            session_id=self._keeper.session_id,
            created=self._created,
            last_used=last_used,
            inputs=outline.inputs,
            parameters=outline.parameters,
            outputs=outline.outputs,
            has_loss=outline.has_loss,
            optimizer=outline.optimizer,
            seed=outline.seed,
            limits=self._limits,
            step=standing.step,
            contributions=standing.contributions,
            forward_ids=tuple(name for name, born in standing.births if born >= oldest),
            address=self._address,
            durability=self._keeper.durability,
            lease=standing.lease,
            max_staleness=outline.max_staleness,
            executor=outline.executor,
            data_parallel=outline.data_parallel,
            precision=outline.precision,
        )

    def status(self, last_used: float) -> SessionStatus:
        """Returns how the session is doing, in any state."""
        standing, history = self._standing or Standing(), self.history
        oldest = time.monotonic() - self._limits.pass_ttl
        return SessionStatus(
            session_id=self._keeper.session_id,
            state=self._state(),
            step=standing.step,
            steps=history.steps,
            loss=history.loss,
            gradient_norm=history.gradient_norm,
            learning_rate=history.learning_rate,
            contributions=standing.contributions,
            passes=sum(born >= oldest for _, born in standing.births),
            nbytes=self._keeper.nbytes,
            last_used=last_used,
        )

    def recovering(self) -> Recovering:
        """Returns the error for a call that comes while the session is made from its journal, which tells how far."""
        done, count = self._keeper.progress or (0, 0)
        how_far = f": {done:,} of {count:,} mutations are done again" if count else ""
        return Recovering(
            f"session {self._keeper.session_id!r} is being recovered{how_far}; call again", retry_after=0.2
        )

    def publish(self) -> bool:
        """Brings where the session stands up to date, from memory; tells whether it has other contributions now."""
        content = self._keeper.content
        trainer = content.trainer
        before = self._standing
        self._standing = Standing(
            trainer.step, trainer.accumulator.contributions, trainer.passes.births, content.lease.current
        )
        return before is None or before.contributions != self._standing.contributions

    def _state(self) -> SessionState:
        keeper = self._keeper
        if keeper.damage is not None:
            return SessionState.QUARANTINED
        if keeper.progress is not None or self._standing is None:
            return SessionState.RECOVERING
        return SessionState.AWAKE if keeper.awake else SessionState.ASLEEP
