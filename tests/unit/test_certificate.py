"""The server's certificate: what is refused at the start, and how it follows its files."""

import time
from pathlib import Path
from typing import Any

import pytest
import structlog

import seqserve.certificate as module
from certificates import Authority, Pair
from seqserve.certificate import Certificate, open_certificate
from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who signs."""
    return Authority("authority")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    """A certificate with its key."""
    return authority.issue()


def refusal(certificate: Path, key: Path, client_ca: Path | None = None) -> str:
    """The message with which files are refused."""
    with pytest.raises(ConfigurationError) as caught:
        Certificate(certificate, key, client_ca)
    return str(caught.value)


def test_pair_that_fits_is_taken_without_a_word(tmp_path: Path, pair: Pair) -> None:
    """Nothing to log, and nothing new before the files change."""
    with structlog.testing.capture_logs() as logs:
        certificate = Certificate(*pair.write(tmp_path))
        certificate.report()
        assert certificate.credentials() is not None
        assert certificate.renew() is None
    assert logs == []


def test_missing_files_are_named(tmp_path: Path, pair: Pair) -> None:
    """With the setting, the path and the reason."""
    certificate, key = pair.write(tmp_path)
    absent = tmp_path / "absent"
    reason = f"{absent} cannot be read: No such file or directory"
    assert refusal(absent, key) == f"tls_certificate {reason}"
    assert refusal(certificate, absent) == f"tls_key {reason}"
    assert refusal(certificate, key, absent) == f"tls_client_ca {reason}"


def test_files_in_the_wrong_place_are_named(tmp_path: Path, pair: Pair) -> None:
    """A key where a certificate should be, and the other way round."""
    certificate, key = pair.write(tmp_path)
    assert refusal(key, key) == f"tls_certificate {key} holds no certificate in PEM form"
    assert refusal(certificate, certificate) == (
        f"tls_key {certificate} holds no private key in PEM form"
    )
    assert refusal(certificate, key, key) == f"tls_client_ca {key} holds no certificate in PEM form"


def test_key_of_another_certificate_is_refused(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    """The message says what must be done."""
    certificate, _ = pair.write(tmp_path / "one")
    _, key = authority.issue().write(tmp_path / "two")
    assert refusal(certificate, key) == (
        f"tls_key {key} does not fit tls_certificate {certificate} (key values mismatch); both "
        "must come from one request for a certificate"
    )


def test_encrypted_key_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Rather than that the process waits for somebody to type."""
    certificate, key = authority.issue(password=b"word").write(tmp_path)
    assert refusal(certificate, key) == (
        f"tls_key {key} is encrypted, and nobody is here to be asked for its password; decrypt it"
    )


def test_damaged_files_are_refused(tmp_path: Path, pair: Pair) -> None:
    """Marks without contents."""
    certificate, key = pair.write(tmp_path)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(pair.certificate[:60] + b"\n-----END CERTIFICATE-----\n")
    assert f"tls_key {key} does not fit tls_certificate {damaged} (" in refusal(damaged, key)
    assert refusal(certificate, key, damaged).startswith(
        f"tls_client_ca {damaged} holds a certificate that cannot be read ("
    )


def test_expired_certificate_is_a_warning(tmp_path: Path, authority: Authority) -> None:
    """The server starts: whoever renews it need not start it again."""
    paths = authority.issue(is_expired=True).write(tmp_path)
    with structlog.testing.capture_logs() as logs:
        Certificate(*paths).report()
    assert logs == [
        {
            "event": "clients will refuse the certificate; renew it",
            "tls_certificate": str(paths[0]),
            "reason": "certificate has expired",
            "log_level": "warning",
        }
    ]


def test_end_of_the_certificate_in_use_is_a_warning(tmp_path: Path, pair: Pair) -> None:
    """Once, with the first connection after it."""
    now = time.time()
    certificate = Certificate(*pair.write(tmp_path), clock=lambda: now)
    with structlog.testing.capture_logs() as logs:
        assert certificate.renew() is None
        assert logs == []
        now += 2 * 86400
        assert [certificate.renew() for _ in range(3)] == [None] * 3
    assert [(log["log_level"], log["reason"]) for log in logs] == [
        ("warning", "certificate has expired")
    ]


def test_changed_files_are_taken_once(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """The next handshake gets the new pair, those after it go on with it."""
    certificate = Certificate(*pair.write(tmp_path))
    authority.issue().write(tmp_path)
    with structlog.testing.capture_logs() as logs:
        assert certificate.renew() is not None
        assert certificate.renew() is None
    assert [log["event"] for log in logs] == ["certificate renewed"]


def test_half_of_a_new_pair_leaves_the_former_in_use(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    """Each state of the files is logged once; the whole pair is taken when it is there."""
    certificate_path, key_path = pair.write(tmp_path)
    certificate = Certificate(certificate_path, key_path)
    new = authority.issue()
    with structlog.testing.capture_logs() as logs:
        certificate_path.write_bytes(new.certificate)
        assert [certificate.renew() for _ in range(3)] == [None] * 3
        key_path.unlink()
        assert [certificate.renew() for _ in range(3)] == [None] * 3
        key_path.write_bytes(new.key)
        assert certificate.renew() is not None
    event = "certificate not renewed; the former stays in use"
    assert [log["event"] for log in logs] == [event, event, "certificate renewed"]
    assert "does not fit" in logs[0]["reason"]
    assert logs[1]["reason"] == f"tls_key {key_path} cannot be read: No such file or directory"


def test_files_that_become_what_they_were_are_no_news_to_callers(
    tmp_path: Path, authority: Authority, pair: Pair
) -> None:
    """A slip that was taken back, and is told again when it is repeated."""
    certificate_path, key_path = pair.write(tmp_path)
    certificate = Certificate(certificate_path, key_path)
    wrong = authority.issue().key
    with structlog.testing.capture_logs() as logs:
        for key in (wrong, pair.key, wrong, pair.key):
            key_path.write_bytes(key)
            assert [certificate.renew() for _ in range(2)] == [None] * 2
    assert [log["log_level"] for log in logs] == ["error"] * 2


def test_files_that_change_while_they_are_tried_are_tried_again(
    tmp_path: Path, authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is served is what was tried, and a file that is gone for a moment does no harm."""
    certificate_path, key_path = pair.write(tmp_path)
    certificate = Certificate(certificate_path, key_path)
    new, shake_hands = authority.issue(), module._shake_hands
    new.write(tmp_path)

    def disturb(certificate: Path, key: Path) -> Any:
        verdict = shake_hands(certificate, key)
        key_path.write_bytes(new.key + b"\n")
        return verdict

    def vanish(certificate: Path, key: Path) -> Any:
        raise FileNotFoundError(2, "No such file or directory")

    with structlog.testing.capture_logs() as logs:
        for trial in (disturb, vanish):
            monkeypatch.setattr(module, "_shake_hands", trial)
            assert certificate.renew() is None
        monkeypatch.undo()
        assert certificate.renew() is not None
    assert "changed while being read" in logs[0]["reason"]
    assert "the files of TLS cannot be read: " in logs[1]["reason"]
    assert logs[2]["event"] == "certificate renewed"


def test_swapped_link_is_a_change(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """As Kubernetes replaces a mounted Secret: both files at once."""
    pair.write(tmp_path / "0")
    authority.issue().write(tmp_path / "1")
    (tmp_path / "..data").symlink_to("0")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    certificate = Certificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "..new").symlink_to("1")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert certificate.renew() is not None


def test_new_authority_alone_is_a_change(tmp_path: Path, authority: Authority, pair: Pair) -> None:
    """Who signs callers can change without the server's own certificate."""
    path = tmp_path / "ca.crt"
    path.write_bytes(authority.certificate)
    certificate = Certificate(*pair.write(tmp_path), path)
    path.write_bytes(authority.certificate + Authority("other").certificate)
    assert certificate.renew() is not None


def test_settings_name_the_files(tmp_path: Path, pair: Pair) -> None:
    """Without them there is no certificate."""
    certificate, key = pair.write(tmp_path)
    assert open_certificate(ServerConfig()) is None
    assert open_certificate(ServerConfig(tls_certificate=certificate, tls_key=key)) is not None
