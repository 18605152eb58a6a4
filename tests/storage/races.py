"""Short races of servers for one session on a shared directory, and what must hold in every order of their calls.

Each function sets one up and returns what the servers do, and what looks at the outcome. A server may stop for good
before any of its system calls, as if it had been killed.
"""

from collections.abc import Callable, Sequence

from tests.storage.interleaving import Actor
from tests.storage.race_site import Check, Race, Site, Works
from tests.storage.sharing.servers import gone
from tests.storage.store_races import STORE_RACES
from tests.storage.toy import KEY, append, history, image, spec

from backwire_server.sessions.errors import SessionNotFound
from backwire_server.sessions.requests import RequestKey
from backwire_server.storage.session_files import FileSession
from backwire_server.storage.sharing.shared_vault import SharedVault

DELETION = RequestKey("delete", b"\x04")


def taken_over(site: Site) -> tuple[Works, Check]:
    """An owner that was taken for dead does all that it can, while another takes the session and goes on."""
    one = site.join("one")
    files = site.made(one)
    gone(site.directory, "one")
    other = site.join("other")
    before, after, found = [1, 2, 3], list[int](), list[int]()

    def owner() -> None:
        append(files, 4)
        before.append(4)
        files.checkpoint(image([1, 2, 3, 4]), background=False)
        append(files, 5)
        before.append(5)
        files.save("kept", image([1, 2, 3, 4, 5])).result()
        files.delete_checkpoint("kept")
        files.close()

    def heir() -> None:
        taken = other.open("a")
        found.extend(history(taken.recover()))
        for number in (101, 102):
            append(taken, number)
            after.append(number)
        taken.close()

    def check(_: Sequence[Actor]) -> None:
        taken = site.successor("other").open("a")
        all_of_it = history(taken.recover())
        of_owner = [number for number in all_of_it if number < 100]
        assert of_owner == list(range(1, len(of_owner) + 1)) == all_of_it[: len(of_owner)]
        assert len(of_owner) >= len(before), "what was acknowledged is there"
        assert all_of_it[len(of_owner) :][: len(after)] == after
        assert not after or of_owner == found, "nothing of the owner's counts after the next one has begun"
        append(taken, 999)
        taken.close()

    return [owner, heir], check


def moved(site: Site) -> tuple[Works, Check]:
    """An owner hands a session over, while two others want it."""
    one, other, third = site.join("one"), site.join("other"), site.join("third")
    files = site.made(one)
    acknowledged = [1, 2, 3]

    def owner() -> None:
        append(files, 4)
        acknowledged.append(4)
        files.hand_over("other", lambda: None)
        files.close()

    def taking(vault: SharedVault, number: int) -> Callable[[], None]:
        def take() -> None:
            taken = vault.open("a")
            assert 4 in history(taken.recover())
            append(taken, number)
            acknowledged.append(number)
            taken.close()

        return take

    def check(_: Sequence[Actor]) -> None:
        found = history(site.successor("one", "other", "third").open("a").recover())
        assert len(found) == len(set(found))
        assert set(acknowledged) <= set(found)

    return [owner, taking(other, 101), taking(third, 201)], check


def made_twice(site: Site) -> tuple[Works, Check]:
    """Two servers make a session for the same request."""
    done: dict[str, list[int]] = {"one": [], "other": []}

    def making(vault: SharedVault, acknowledged: list[int]) -> Callable[[], None]:
        def make() -> None:
            files = vault.create("a", spec(), site.durability, KEY)
            acknowledged.append(0)
            append(files, 7)
            acknowledged.append(7)
            files.close()

        return make

    def check(_: Sequence[Actor]) -> None:
        assert not (done["one"] and done["other"]), "one of them made it"
        successor = site.successor("one", "other")
        if done["one"] or done["other"]:
            found = history(successor.open("a").recover())
            assert 7 in found or 7 not in [*done["one"], *done["other"]]
        else:
            entry = successor.entry("a")  # made, and not acknowledged; or not to its end
            files = successor.open("a") if entry else successor.create("a", spec(), site.durability, KEY)
            append(files, 8)

    return [making(site.join(name), done[name]) for name in done], check


def branched(site: Site) -> tuple[Works, Check]:
    """An owner that was taken for dead branches a session, and so does who takes it over, for the same request."""
    one = site.join("one")
    files = site.made(one)
    gone(site.directory, "one")
    other = site.join("other")
    key = RequestKey("branch", b"\x05")
    acknowledged: dict[str, list[int]] = {"a": [1, 2, 3], "b": []}
    makers: list[str] = []

    def branching(source: Callable[[], FileSession], name: str, number: int) -> Callable[[], None]:
        def branch() -> None:
            parent = source()
            made = parent.fork("b", key)
            makers.append(name)
            append(made, number)
            acknowledged["b"].append(number)
            append(parent, number)
            acknowledged["a"].append(number)

        return branch

    def taken() -> FileSession:
        opened = other.open("a")
        opened.recover()
        return opened

    def check(_: Sequence[Actor]) -> None:
        successor = site.successor("other")
        assert set(acknowledged["a"]) <= set(history(successor.open("a").recover()))
        assert len(makers) <= 1
        try:
            found = history(successor.open("b").recover())
        except SessionNotFound:
            assert not makers
        else:
            assert found[:3] == [1, 2, 3]
            assert set(acknowledged["b"]) <= set(found)

    return [branching(lambda: files, "one", 50), branching(taken, "other", 60)], check


def deleted(site: Site) -> tuple[Works, Check]:
    """A server deletes a session that another, to which it is dead in the middle, takes and goes on with."""
    one, other = site.join("one"), site.join("other")
    site.made(one).close()
    gone_for: list[str] = []

    def delete() -> None:
        one.delete("a", DELETION)
        gone_for.append("one")

    def take() -> None:
        gone(site.directory, "one")
        taken = other.open("a")
        assert history(taken.recover()) == [1, 2, 3]
        append(taken, 101)
        gone_for.append("other, until it is given back")
        taken.close()
        gone_for.pop()

    def check(_: Sequence[Actor]) -> None:
        (site.directory / "replicas" / "one").unlink(missing_ok=True)
        successor = site.successor("other")
        there = [entry.session_id for entry in successor.entries()]
        assert len(gone_for) < 2
        assert "one" not in gone_for or there == []
        assert DELETION not in [key for _, key in successor.deletions()] or there == [], "told to be done, and is not"
        if there:
            successor.delete("a", DELETION)
        assert successor.names() == []

    return [delete, take], check


def looked_at(site: Site) -> tuple[Works, Check]:
    """A server looks at a session whose owner makes checkpoints and gives it to another, which does the same."""
    one, other, third = site.join("one"), site.join("other"), site.join("third")
    files = site.made(one)
    steps: list[int] = []

    def owners() -> None:
        files.checkpoint(image([1, 2, 3]), background=False)
        append(files, 4)
        files.checkpoint(image([1, 2, 3, 4]), background=False)
        files.close()
        taken = other.open("a")
        append(taken, 5)
        taken.checkpoint(image([1, 2, 3, 4, 5]), background=False)
        taken.close()

    def read(files: FileSession) -> int:
        assert files.spec().definition
        files.checkpoints()
        return files.entry.step

    def looker() -> None:
        for _ in range(2):
            steps.append(third.look("a", read))
            third.check("a")
            (entry,) = third.entries()
            assert entry.key == KEY
            assert entry.durability == site.durability
            steps.append(entry.step)

    def check(actors: Sequence[Actor]) -> None:
        assert actors[1].error is None
        assert steps == sorted(steps)

    return [owners, looker], check


RACES: dict[str, Race] = {
    **{race.__name__: race for race in (taken_over, moved, made_twice, branched, deleted, looked_at)},
    **STORE_RACES,
}
