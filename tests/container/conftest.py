"""An engine, the image, and a way to run it as a hospital would."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from containers import HARDENED, ROOT, USER, ContainerResult, Engine, give_to, make_readable

_START_SECONDS = 60


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests to a run that names their marker: they build the image."""
    if "container" not in config.option.markexpr:
        mine = [item for item in items if item.get_closest_marker("container")]
        config.hook.pytest_deselected(items=mine)
        items[:] = [item for item in items if item not in mine]


@pytest.fixture(scope="session")
def engine(tmp_path_factory) -> Iterator[Engine]:
    """The running engine, or one that is started for the tests."""
    found = subprocess.run(
        [ROOT / "utils/image/find_docker.sh"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        _without_engine(found.stderr.strip())
    docker = Engine(found.stdout.strip())
    if _answers(docker):
        yield docker
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        _without_engine("no Docker engine answers, and none can be started here")
    log = tmp_path_factory.mktemp("engine") / "dockerd.log"
    with log.open("wb") as stream:
        daemon = subprocess.Popen(["dockerd"], stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(docker):
            if daemon.poll() is not None or time.monotonic() > deadline:
                _without_engine(f"dockerd does not start: {log.read_text()[-500:]}")
            time.sleep(0.5)
        yield docker
    finally:
        daemon.terminate()
        daemon.wait(60)


def _answers(docker: Engine) -> bool:
    return docker("info", check=False).returncode == 0


def _without_engine(reason: str) -> NoReturn:
    message = f"CONTAINER ENGINE MISSING: {reason}; the image goes untested"
    if os.environ.get("ONCOFM_REQUIRE_TOOLS") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def build_image(engine: Engine) -> Iterator[Callable[..., str]]:
    """Build the image with the settings of ``utils/image/build.sh``; it is removed at the end."""
    names: list[str] = []

    def build(**settings: object) -> str:
        name = f"oncofm-test:{uuid.uuid4().hex[:12]}"
        environment = os.environ | {key: str(value) for key, value in settings.items()}
        environment |= {"IMAGE": name, "DOCKER": engine.docker}
        for program in ("base_image.sh", "build.sh"):
            done = subprocess.run(
                [ROOT / "utils/image" / program],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        names.append(name)
        return name

    yield build
    for name in names:
        engine("rmi", name, check=False)


@pytest.fixture(scope="session")
def image(build_image) -> str:
    """The image without weights, built for real once."""
    return build_image(TORCH="cpu", WEIGHTS="none")


@pytest.fixture(scope="session")
def plain_weights_folder(seed0_weights, tmp_path_factory) -> Path:
    """What a site can mount at /app/weights: the file alone, which torch runs."""
    folder = tmp_path_factory.mktemp("plain_weights")
    (folder / "fmcib").mkdir()
    os.link(seed0_weights, folder / "fmcib" / "model_weights.torch")
    make_readable(folder)
    return folder


@pytest.fixture(scope="session")
def weights_folder(engine, image, seed0_weights, tmp_path_factory) -> Path:
    """What a site mounts at /app/weights, prepared for OpenVINO with the image itself."""
    folder = tmp_path_factory.mktemp("mounted_weights")
    (folder / "fmcib").mkdir()
    os.link(seed0_weights, folder / "fmcib" / "model_weights.torch")
    mount = f"--volume={folder}:/app/weights"
    engine("run", "--rm", *HARDENED, "--user=0:0", mount, image, "weights", "prepare")
    make_readable(folder)
    return folder


@pytest.fixture(scope="session")
def image_with_weights(build_image, seed0_weights) -> str:
    """The image with weights, which are prepared in the build."""
    return build_image(TORCH="cpu", WEIGHTS=seed0_weights)


@pytest.fixture
def output(tmp_path) -> Path:
    """An empty folder that belongs to the user of the container."""
    if os.geteuid() != 0:
        pytest.skip("NOT ROOT: a folder cannot be given to another user, the image goes untested")
    folder = tmp_path / "output"
    folder.mkdir(mode=0o755)
    give_to(USER, folder)
    return folder


@pytest.fixture
def start_container(engine: Engine, image: str, weights_folder: Path) -> Iterator[Callable]:
    """Start a hardened container; its id is returned, and it is removed after the test.

    ``start_container(input, output, *args, user=..., extra=[...])``: `args` go to the entry
    point, `extra` to ``docker run``. A folder may carry a mount option: ``"/folder:ro"``.
    """
    started: list[str] = []

    def start(
        source: Path,
        target: Path | str | None,
        *args: str,
        user: str = USER,
        extra: tuple[str, ...] | list[str] = (),
        image: str = image,
        weights: Path | None = weights_folder,
    ) -> str:
        make_readable(source)
        mounts = [f"--volume={source}:/app/data/input_data:ro"]
        if target is not None:
            folder, _, option = str(target).partition(":")
            mounts.append(f"--volume={folder}:/app/data/output_data:{option or 'rw'}")
        if weights is not None:
            mounts.append(f"--volume={weights}:/app/weights:ro")
        command = ["run", "--detach", *HARDENED, f"--user={user}", *mounts, *extra, image, *args]
        started.append(engine(*command).stdout.strip())
        return started[-1]

    yield start
    for container in started:
        engine("rm", "--force", container, check=False)


@pytest.fixture
def run_container(engine: Engine, start_container) -> Callable[..., ContainerResult]:
    """Run a hardened container to its end; takes what `start_container` takes."""

    def run(source: Path, target: Path | str | None, *args: str, **options) -> ContainerResult:
        container = start_container(source, target, *args, **options)
        code = int(engine("wait", container).stdout)
        logs = engine("logs", container)
        return ContainerResult(code, logs.stdout, logs.stderr, engine.lines("diff", container))

    return run
