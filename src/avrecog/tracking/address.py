"""The address of a tracking store: what MLFLOW_TRACKING_URI says, read, checked, and shown without its secrets."""

import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from avrecog.errors import TrackingError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&\s]*(?:pass|pwd|token|secret|odbc_connect)[^=&\s]*=)[^&\s]*")


def given_address() -> str | None:
    """The store that MLFLOW_TRACKING_URI names in place of the project's own."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def shown_address(address: str) -> str:
    """An address as people may see it: `***` stands for passwords, and for the user of a server, who may be a token."""
    return _hidden(address, ".")


def first_line(error: Exception) -> str:
    """What an error says, cut to one line, without the secrets of an address in it."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    given = given_address()
    if given:
        for form in (given, given.rstrip("/")):
            line = line.replace(form, shown_address(form))
    return _hidden(line, r"\S")[:300]


def _hidden(text: str, character: str) -> str:
    """The text with `***` for what is secret in addresses, in which such characters may stand.

    A password reaches to the last @, since people forget to write %40 and %2F in it.
    """
    text = re.sub(rf"(https?://)(?:[^/?#@:\s]*:{character}*|[^/?#@:\s]+)@", r"\1***@", text)
    text = re.sub(rf"(://[^/?#@:\s]*:){character}*@", r"\1***@", text)
    return SECRET_PARAMETER.sub(r"\1***", text)


def sqlite_address(database: Path) -> str:
    """The address of a SQLite database as MLflow and SQLAlchemy take it: `?` would begin a query, `%2F` is decoded.

    The driver is named since MLflow makes the folders of `sqlite:///` addresses, and makes them without decoding.

    Raises:
        TrackingError: if its path is no UTF-8, which no address can hold.
    """
    try:
        return f"sqlite+pysqlite:///{quote(str(database))}"
    except UnicodeEncodeError:
        shown = os.fsencode(database).decode(errors="backslashreplace")
        raise TrackingError(
            f"{shown}: MLflow can't keep runs in a folder whose name is no UTF-8; rename the folder, or set "
            f"MLFLOW_TRACKING_URI to another store"
        ) from None


def check_address(address: str) -> None:
    """See that an address is one, and connect once to a database, since MLflow tries for minutes.

    Raises:
        SQLAlchemyError: if a database can't be opened.
        TrackingError: if it is malformed, or what speaks to such a database is not installed.
    """
    import sqlalchemy

    kind = address.partition("://")[0].partition("+")[0]
    try:
        parts = urlsplit(address)  # as MLflow takes it apart
        if kind in ("http", "https"):
            parts.port  # noqa: B018  it is read here, and may be no number
        elif kind in DATABASES:
            sqlalchemy.make_url(address)
    except (ValueError, sqlalchemy.exc.ArgumentError):  # what they say may hold a part of the password
        raise TrackingError(
            f"MLFLOW_TRACKING_URI: expected an address such as http://HOST:5000 or "
            f"postgresql://USER:PASSWORD@HOST:5432/NAME, IPv6 in brackets, / @ : [ ] in a password as %2F %40 %3A %5B "
            f"%5D, got {shown_address(address)}"
        ) from None
    if kind not in DATABASES:
        return
    try:
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.pool.NullPool)
    except ImportError as error:
        raise TrackingError(f"MLFLOW_TRACKING_URI: {kind} needs a package that is missing here ({error})") from None
    if kind != "sqlite" or Path(engine.url.database or "").parent.is_dir():  # MLflow makes the folder
        engine.connect().close()
