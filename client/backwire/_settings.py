"""Where `connect` finds a server that nobody named: environment variables, and profiles in a file of the user."""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backwire._errors import InvalidRequestError
from backwire._wire._channel import TLS
from backwire._wire._timeout import Timeout

FILE_VARIABLE = "BACKWIRE_CLIENT_CONFIG"
PROFILE_VARIABLE = "BACKWIRE_PROFILE"
DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to connect; None where nothing was said."""

    target: str | None = None
    token: str | None = None
    tls: TLS | bool | None = None
    timeout: Timeout | float | None = None

    def at(self) -> str:
        """Returns the target; raises InvalidRequestError where there is none."""
        if self.target is None:
            raise InvalidRequestError(
                "no target is known; pass one such as 'localhost:50051' or 'embedded', or set BACKWIRE_TARGET",
                field="target",
            )
        return self.target


def chosen(
    target: str | None,
    *,
    token: str | None,
    tls: TLS | bool | None,
    timeout: Timeout | float | None,
    profile: str | None,
) -> Settings:
    """Returns what the arguments of `connect` say and, without a target or with a profile, what `find` adds to it.

    A target alone is not given the token of a profile, which may be meant for another.
    """
    if target is not None and profile is None:
        return Settings(target, token, tls, timeout)
    found = find(profile)
    return Settings(
        found.target if target is None else target,
        found.token if token is None else token,
        found.tls if tls is None else tls,
        found.timeout if timeout is None else timeout,
    )


def find(profile: str | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Returns the settings of a profile, each replaced by its environment variable where that is set and not empty.

    The profile is the one that is named, else that of BACKWIRE_PROFILE, else `default`, which need not exist. The file
    is that of BACKWIRE_CLIENT_CONFIG, else `backwire/config.toml` in the user's configuration directory.

    Raises InvalidRequestError for a file or a profile that cannot be used, naming where it was said.
    """
    path = _path(environment)
    found = _profile(path, profile or environment.get(PROFILE_VARIABLE) or None)
    for key in _KINDS:
        text = environment.get(f"BACKWIRE_{key.upper()}")
        if text:
            found[key] = (text, f"BACKWIRE_{key.upper()}")
    values = {key: _KINDS[key](value, origin) for key, (value, origin) in found.items()}
    tls = _tls(values)
    return Settings(values.get("target"), values.get("token"), tls, values.get("timeout"))


def _path(environment: Mapping[str, str]) -> Path:
    if environment.get(FILE_VARIABLE):
        return Path(environment[FILE_VARIABLE])
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME") or "~", ".config")
    return Path(os.path.expanduser(base)) / "backwire" / "config.toml"  # also of a user without a home


def _profile(path: Path, name: str | None) -> dict[str, tuple[Any, str]]:
    """Returns the values of a profile, each with where it was said; none when only the default could be meant."""
    profiles = _profiles(path)
    if name is not None and name not in profiles:
        listed = ", ".join(profiles) or "none"
        raise InvalidRequestError(f"{path} has no profile {name!r}; it has {listed}", field="profile")
    chosen = profiles.get(name or DEFAULT_PROFILE, {})
    if not isinstance(chosen, dict):
        raise InvalidRequestError(f"{path}: {name or DEFAULT_PROFILE} is no table; write [{DEFAULT_PROFILE}] above it")
    for key in chosen:
        if key not in _KINDS:
            raise InvalidRequestError(f"{path}: {key!r} is unknown; a profile has {', '.join(_KINDS)}", field=key)
    return {key: (value, f"{path}: {key}") for key, value in chosen.items()}


def _profiles(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}; make it readable, or remove it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} is no TOML: {error}; write profiles such as [{DEFAULT_PROFILE}]") from None


def _tls(values: Mapping[str, Any]) -> TLS | bool | None:
    files = {"ca": "root_certificates", "key": "private_key", "certificate": "certificate_chain"}
    told = {field: values[key] for key, field in files.items() if key in values}
    if "server_name" in values:
        told["server_name"] = values["server_name"]
    return TLS(**told) if told else values.get("tls")


def _text(value: Any, origin: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"{origin} is {value!r}, which is no text; put it between quotes")
    return value


def _file(value: Any, origin: str) -> bytes:
    path = Path(_text(value, origin)).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{origin}: {path} cannot be read: {error.strerror}; name a PEM file") from None


def _seconds(value: Any, origin: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"{origin} is {value!r}, which is no number of seconds; write one such as 60"
        ) from None


def _switch(value: Any, origin: str) -> bool:
    found = {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
    if found is None:
        raise InvalidRequestError(f"{origin} is {value!r}; write true or false")
    return found


_KINDS: Mapping[str, Callable[[Any, str], Any]] = {
    "target": _text,
    "token": _text,
    "tls": _switch,
    "ca": _file,
    "server_name": _text,
    "certificate": _file,
    "key": _file,
    "timeout": _seconds,
}
"""What a profile may have, and what makes a value of it."""
