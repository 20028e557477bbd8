"""The queue in a real PostgreSQL."""

import pytest
from nodes import free_port

from oncofm.pacs.errors import NodeError
from oncofm.pacs.work_queue import open_queue


@pytest.mark.slow
def test_queue(postgres, tmp_path):
    pytest.importorskip("psycopg2")
    queue = open_queue(postgres.url, tmp_path, "a")
    other = open_queue(postgres.url, tmp_path, "b")
    queue.put("one")
    queue.put("two")
    assert (len(queue), len(other)) == (2, 0)
    again = open_queue(postgres.url, tmp_path, "a")
    assert [again.take(), again.take(), again.take()] == ["one", "two", None]
    queue.put("three")
    queue.clear()
    assert queue.take() is None


def test_no_server(tmp_path):
    pytest.importorskip("psycopg2")
    with pytest.raises(NodeError, match="cannot be reached"):
        open_queue(f"postgresql://oncofm@127.0.0.1:{free_port()}/x", tmp_path, "a")
