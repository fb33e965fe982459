"""The metadata that CDC captures share."""

from __future__ import annotations

from hub import cdc


def test_metadata_of_one_transaction_is_shared() -> None:
    shared, columns = cdc.transaction_metadata([cdc.TransactionRun(3, 7, 100, 5, None)])
    assert shared == {"transaction_id": 7, "commit_lsn": 100, "ts_ms": 5}
    assert columns == {}


def test_metadata_that_differs_between_transactions_becomes_a_column() -> None:
    runs = [cdc.TransactionRun(2, 7, 100, 5, None), cdc.TransactionRun(1, 8, 110, 5, "other")]
    shared, columns = cdc.transaction_metadata(runs)
    assert shared == {"ts_ms": 5}
    assert columns == {
        "transaction_id": [7, 7, 8],
        "commit_lsn": [100, 100, 110],
        "origin": [None, None, "other"],
    }


def test_a_sparse_column_is_none_where_a_record_has_no_value() -> None:
    assert cdc.sparse({1: b"{}"}, 3) == [None, b"{}", None]


def test_every_name_is_documented() -> None:
    assert cdc.__doc__ is not None
    assert all(f"`{name}`" in cdc.__doc__ for name in cdc.NAMES)
