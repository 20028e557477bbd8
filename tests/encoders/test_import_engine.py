"""What is imported ahead of loading an encoder."""

import pytest

from oncofm.encoders import load, openvino_engine
from oncofm.encoders.load import import_engine
from oncofm.errors import EngineError


@pytest.fixture
def imported(monkeypatch) -> list[str]:
    """The engines whose import begins during a test; both fail as if they were not installed."""
    begun: list[str] = []

    def without_openvino():
        begun.append("openvino")
        raise EngineError("OpenVINO cannot be imported.")

    monkeypatch.setattr(openvino_engine, "import_openvino", without_openvino)
    monkeypatch.setattr(load, "prepare_threads", lambda: begun.append("torch"))
    return begun


@pytest.fixture
def weights(tmp_path):
    folder = tmp_path / "some.torch.openvino"
    folder.mkdir()
    (folder / "prepared.json").write_text("{}")
    return tmp_path / "some.torch"


@pytest.mark.parametrize(("engine", "expected"), [("auto", "openvino"), ("torch", "torch")])
def test_the_engine_that_will_run(weights, imported, engine, expected):
    import_engine("fmcib", weights, device="cpu", engine=engine)
    assert imported == [expected]


def test_without_a_prepared_model(tmp_path, imported, monkeypatch):
    monkeypatch.setenv("ONCOFM_HOME", str(tmp_path))
    import_engine("fmcib", tmp_path / "other.torch", device="cpu", engine="openvino")
    assert imported == []
    import_engine("fmcib", tmp_path / "other.torch", device="cpu")
    import_engine("fmcib", None, device="cpu")
    import_engine("fmcib", tmp_path / "other.torch", device="cuda")
    assert imported == ["torch"] * 3
