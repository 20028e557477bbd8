"""The run manifest: what ran, on what, with what, and how it ended."""

import hashlib
import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import oncofm
from oncofm.encoders.encoder import Encoder, EncoderFacts
from oncofm.results.files import write_text

RESEARCH_USE = "For research use only. Not for clinical care. Not a medical device."
_REPORTED_PACKAGES = (
    "numpy",
    "torch",
    "openvino",
    "pydicom",
    "SimpleITK",
    "pyarrow",
    "python-gdcm",
    "mhubio",
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Software(_Section):
    """Versions of oncofm and of the libraries that can change a number."""

    name: str
    version: str
    python: str
    platform: str
    packages: dict[str, str]


class Model(_Section):
    """The foundation model and its parameters."""

    name: str
    weights_sha256: str
    weights: str
    licence: str
    engine: str
    device: str
    precision: str
    batch_size: int
    batch_sizes_before: list[int] = []
    """Larger ones that the device had no memory for; features differ by rounding between them."""


class Configuration(_Section):
    """Everything a user can choose that changes a feature."""

    model: str
    weights_sha256: str
    profile: str
    precision: str
    seed_kinds: tuple[str, ...]
    labels: tuple[str, ...]
    per: str
    min_volume_mm3: float
    seg_threshold: float

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, the same on every machine."""
        text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Provenance(_Section):
    """What every row of every table repeats, so that no table is an orphan."""

    software: str
    model: str
    weights: str
    weights_sha256: str
    profile: str
    device: str
    precision: str
    configuration_hash: str


class Inputs(_Section):
    """What was read, by UID."""

    series_uids: list[str]
    segmentation_uids: list[str]
    n_files_skipped: int


class Summary(_Section):
    """How many ended how."""

    cases: dict[str, int]
    lesions: dict[str, int]
    left_out: dict[str, int]
    exit_code: int


class Reports(_Section):
    """Structured reports and key images that were written, and why others were not."""

    sop_instance_uids: list[str]
    failures: list[str]
    key_image_uids: list[str] = []


class Attempt(_Section):
    """What one process has done of a batch, up to what it wrote last.

    `seconds` is its time from the first case on. Of those it waited for readers (or a cluster)
    for `waiting_s`, and wrote for `writing_s`; the rest is encoding. `reading_s` is what its reader
    processes worked, together; `held_up_s` is what they waited for the encoder. `slowest` is an
    item and its seconds of reading. What a cluster's workers did counts too.
    """

    started_at: str
    ended_at: str
    n_cases: int
    n_lesions: int
    n_workers: int
    seconds: float
    waiting_s: float
    writing_s: float
    reading_s: float | None = None
    held_up_s: float | None = None
    bytes_read: int | None = None
    peak_memory_mib: dict[str, float] = {}
    slowest: list[tuple[str, float]] = []


class Throughput(_Section):
    """How fast the work went, what limited it, and what it took, over all attempts.

    `seconds` is what it took without the pauses between attempts; of a run, all of it until the
    tables are written, by one process. `limited_by` is what most of it was spent on: ``readers``
    (or ``cluster``), ``encoder`` or ``writing``. Fields of `Attempt` are sums, or maxima of the
    memory of a kind of process.
    """

    n_cases: int
    n_lesions: int
    seconds: float
    cases_per_s: float
    lesions_per_s: float
    started_at: str
    ended_at: str
    limited_by: str | None = None
    waiting_s: float | None = None
    encoding_s: float | None = None
    writing_s: float | None = None
    reading_s: float | None = None
    held_up_s: float | None = None
    bytes_read: int | None = None
    n_workers: int
    peak_memory_mib: dict[str, float]
    attempts: list[Attempt] = []


class RunManifest(_Section):
    """The content of ``run.json``."""

    schema_version: int = 1
    statement: str = RESEARCH_USE
    software: Software
    model: Model
    configuration: Configuration
    configuration_hash: str
    inputs: Inputs
    summary: Summary
    heads: list[str] = []
    reports: Reports | None
    seconds: dict[str, float]
    peak_memory_mib: float
    throughput: Throughput | None = None
    finished_at: str


def describe_weights(encoder: Encoder | EncoderFacts) -> str:
    """Say in a few words which weights ran; random ones are named as such."""
    weights = encoder.weights
    if weights.random_seed is not None:
        return f"RANDOM WEIGHTS (seed {weights.random_seed}): the features have no meaning"
    return weights.path.name if weights.path else weights.model


def describe_model(encoder: Encoder | EncoderFacts) -> Model:
    """Describe a loaded encoder for the manifest."""
    return Model(
        name=encoder.weights.model,
        weights_sha256=encoder.weights.sha256,
        weights=describe_weights(encoder),
        licence=encoder.weights.licence,
        engine=encoder.engine,
        device=encoder.device,
        precision=encoder.precision,
        batch_size=encoder.batch_size,
        batch_sizes_before=list(EncoderFacts.of(encoder).batch_sizes_before),
    )


def describe_software() -> Software:
    """Versions as installed."""
    packages = {}
    for name in _REPORTED_PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Software(
        name="oncofm",
        version=oncofm.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages,
    )


def provenance(encoder: Encoder | EncoderFacts, configuration: Configuration) -> Provenance:
    """Derive the columns that every table repeats."""
    return Provenance(
        software=f"oncofm {oncofm.__version__}",
        model=configuration.model,
        weights=describe_weights(encoder),
        weights_sha256=configuration.weights_sha256,
        profile=configuration.profile,
        device=encoder.device,
        precision=configuration.precision,
        configuration_hash=configuration.digest(),
    )


def write_manifest(manifest: RunManifest, target: Path) -> None:
    """Write the manifest as indented JSON, atomically."""
    write_text(target, manifest.model_dump_json(indent=2) + "\n")


def utc_now() -> str:
    """Return the time of day in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
