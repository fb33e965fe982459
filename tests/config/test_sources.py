"""Which collections a `from:` means."""

from __future__ import annotations

import pytest

from hub.catalog import Sources


@pytest.mark.parametrize(
    ("patterns", "collection", "meant"),
    [
        ("orders", "orders", True),
        ("orders", "orders2", False),
        ("shop/*", "shop/public.orders", True),
        ("shop/*", "shop", False),
        ("shop/*", "shop2/public.orders", False),
        ("shop/public.*", "shop/public.orders", True),
        ("shop/public.*", "shop/private.orders", False),
        ("*", "orders", True),
        ("*", "shop/public.orders", False),
        ("*/public.orders", "shop/public.orders", True),
        ("**", "shop/public.orders", True),
        ("shop/orders_?", "shop/orders_1", True),
        ("shop/orders_?", "shop/orders_12", False),
        ("shop/a[b]", "shop/a[b]", True),
        ("shop/a.b", "shop/axb", False),
        ("shop/*", "shop/a\nb", True),
        (["shop/*", "!shop/public.orders"], "shop/public.orders", False),
        (["!shop/public.orders", "shop/*"], "shop/public.orders", False),
        (["a", "b"], "b", True),
        ("**", "dead_letters/warehouse", False),
        ("*/warehouse", "dead_letters/warehouse", False),
        ("dead_letters/*", "dead_letters/warehouse", True),
        ("dead_letters/warehouse", "dead_letters/warehouse", True),
    ],
)
def test_patterns(patterns: str | list[str], collection: str, meant: bool) -> None:
    assert Sources(patterns).matches(collection) is meant
