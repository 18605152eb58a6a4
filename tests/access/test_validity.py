"""Until when a certificate is valid is what others read of it, and reminders come once a day."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.access.conftest import Authority

from backwire_server.access.validity import Reminder, Validity

DAY = timedelta(days=1)


def own(begin: datetime, end: datetime) -> bytes:
    """Returns a certificate of these times."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    built = x509.CertificateBuilder(name, name, key.public_key(), 2**150 + 1, begin, end).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("end", [datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)])
def test_the_times_are_those_of_the_first_certificate(end: datetime) -> None:
    begin = datetime(1999, 5, 6, 7, 8, 9, tzinfo=UTC)
    chain = b"the server's\n" + own(begin, end) + Authority("above").certificate
    assert Validity.of(chain) == Validity(begin, end)


@pytest.mark.parametrize("cut", [0, 1, 20, 60, 200])
def test_what_is_no_certificate_has_none(cut: int) -> None:
    lines = own(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)).decode().splitlines()
    inner = "".join(lines[1:-1])[:cut]
    assert Validity.of(f"{lines[0]}\n{inner}\n{lines[-1]}\n".encode()) is None
    assert Validity.of(b"") is None


def test_notice_is_given_7_days_before_or_for_a_tenth_of_a_short_life() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    assert Validity(begin, begin + 90 * DAY).notice == 7 * DAY
    assert Validity(begin, begin + DAY).notice == DAY / 10


def test_reminders_come_once_a_day_until_the_certificate_is_renewed(caplog: pytest.LogCaptureFixture) -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    end, reminder = begin + 90 * DAY, Reminder(Path("tls.crt"))
    reminder.look(end)  # of none yet
    reminder.take(own(begin, end), begin)
    for hours in range(-8 * 24, 36, 6):
        reminder.look(end + timedelta(hours=hours))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 9
    assert caplog.messages[6] == "tls.crt expires on 2026-04-01 00:00:00Z: clients will refuse it then; renew it"
    assert caplog.messages[7] == "tls.crt expired on 2026-04-01 00:00:00Z: clients refuse it; renew it"
    reminder.take(own(end, end + 90 * DAY), end + 2 * DAY)
    assert len(caplog.records) == 9
    reminder.take(own(begin, end), end + 2 * DAY)
    assert len(caplog.records) == 10, "another is told at once"
