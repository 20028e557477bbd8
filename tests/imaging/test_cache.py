from oncofm.imaging.cache import ByteCache


def test_the_oldest_values_go_first():
    cache = ByteCache(10, len)
    for key in "abc":
        cache.put(key, "1234")
    assert [cache.get(key) for key in "abc"] == [None, "1234", "1234"]


def test_what_was_used_last_stays():
    cache = ByteCache(8, len)
    cache.put("a", "1234")
    cache.put("b", "1234")
    cache.get("a")
    cache.put("c", "1234")
    assert [cache.get(key) for key in "abc"] == ["1234", None, "1234"]


def test_a_value_put_again_counts_once():
    cache = ByteCache(8, len)
    for _ in range(5):
        cache.put("a", "1234")
    cache.put("b", "1234")
    assert cache.get("a") == "1234"


def test_one_value_is_kept_however_large():
    cache = ByteCache(1, len)
    cache.put("a", "1234")
    assert cache.get("a") == "1234"
    cache.put("b", "12345")
    assert [cache.get("a"), cache.get("b")] == [None, "12345"]


def test_values_of_one_owner_are_dropped():
    cache = ByteCache(12, len)
    for key in (("a", 1), ("b", 1), ("a", 2)):
        cache.put(key, "1234")
    cache.drop("a")
    assert [cache.get(("a", 1)), cache.get(("b", 1)), cache.get(("a", 2))] == [None, "1234", None]
    cache.put("c", "12345678")  # their bytes are free again
    assert cache.get(("b", 1)) == "1234"
