"""Addresses of tracking stores: what is none is said, and what is secret in them is not."""

import pytest
from mlflow.exceptions import MlflowException

from avrecog.errors import TrackingError
from avrecog.tracking.address import check_address, first_line, shown_address
from avrecog.tracking.client import store_problems, tracking_client, tracking_errors

MALFORMED = {
    "postgresql://u:hush@host:port/db": "postgresql://u:***@host:port/db",
    "postgresql://u:hush@h:hush@host/db": "postgresql://u:***@host/db",
    "mysql+pymysql://u:hush@[::1/db": "mysql+pymysql://u:***@[::1/db",
    "http://[::1": "http://[::1",
    "http://u:hush@host:port/": "http://***@host:port/",
    "https://u:hush@[::1": "https://***@[::1",
}
SHOWN = {
    "http://host:5000/path": "http://host:5000/path",
    "http://host/a@b": "http://host/a@b",
    "https://hush@host": "https://***@host",
    "https://u:hush@host/a": "https://***@host/a",
    "postgresql://u@host/db": "postgresql://u@host/db",
    "postgresql+psycopg://u:hu/s@h?#@host:5432/db": "postgresql+psycopg://u:***@host:5432/db",
    "postgresql:///db?host=h&user=u&password=hush&port=1": "postgresql:///db?host=h&user=u&password=***&port=1",
    "mssql+pyodbc:///?odbc_connect=PWD%3Dhush": "mssql+pyodbc:///?odbc_connect=***",
    "sqlite:////home/a:b@c/mlflow.db": "sqlite:////home/a:b@c/mlflow.db",
}


@pytest.mark.parametrize("address", MALFORMED)
def test_a_malformed_address_is_refused_and_named(tmp_path, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        TrackingError, match="MLFLOW_TRACKING_URI: expected an address such as http://HOST:5000"
    ) as told:
        tracking_client()
    assert str(told.value).endswith(f"got {MALFORMED[address]}")
    assert store_problems() == [str(told.value)]


@pytest.mark.parametrize("address", SHOWN)
def test_an_address_is_shown_without_its_secrets(address):
    assert shown_address(address) == SHOWN[address]


@pytest.mark.parametrize("address", ["http://u:hu/sh@host:5000/", "postgresql://u:hu sh@host/db"])
def test_an_error_about_a_store_names_it_without_its_password(monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(TrackingError, match="the tracking store can't be used") as told, tracking_errors():
        raise MlflowException(f"API request to {address.rstrip('/')}/api/2.0 failed")
    assert "hu" not in str(told.value)
    assert "host" in str(told.value)


def test_any_address_in_an_error_loses_its_password(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    error = OSError("can't reach ftp://u:hush@host/place or http://u:hush@host\nmore")
    assert first_line(error) == "can't reach ftp://u:***@host/place or http://***@host"


def test_addresses_that_only_their_kind_understands_are_left_to_mlflow():
    check_address("databricks://profile:prefix")
    check_address("https://[::1]:5000/path")
