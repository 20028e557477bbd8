"""Sections of the configuration about the node itself: who it is, and how it works."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from oncofm.pacs.config_values import AETitles, Device, File, Patience, Port, Seconds, Section, Text


class ServerTls(Section):
    """Files of the server's side of TLS.

    Attributes
    ----------
    certificate, key : pathlib.Path
        PEM.
    client_ca : pathlib.Path or None
        PEM of who signs the clients' certificates; with it a client must have one.
    """

    certificate: File
    key: File
    client_ca: File | None = None


class NodeSection(Section):
    """Who the node is, and whom it listens to.

    Attributes
    ----------
    folder : pathlib.Path
        Spool, state and logs; on a local disk. It holds patient data.
    ae_titles : tuple of str
        Called AE titles that are answered.
    peers : tuple of str
        Calling AE titles that are let in.
    any_peer : bool
        Let everybody in instead.
    address, port
        Where it listens.
    max_associations : int
        More are refused.
    max_pdu_bytes : int
        Longest PDU that is taken.
    max_object_mb : float
        Largest object that is taken, as sent and inflated.
    min_free_mb : float
        With less free on the disk nothing is taken.
    idle_s : float
        After as long without a message an association is ended.
    tls : ServerTls or None
        With it nothing but TLS is answered.
    status_address, status_port
        Where the status page, health and metrics are; without a port nowhere.
    """

    folder: File
    ae_titles: Annotated[AETitles, Field(min_length=1)]
    peers: AETitles = ()
    any_peer: bool = False
    address: Text = "0.0.0.0"
    port: Port = 11112
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 10
    max_pdu_bytes: Annotated[int, Field(ge=4096, le=16_777_216)] = 262_144
    max_object_mb: Annotated[float, Field(gt=0, le=100_000)] = 2048.0
    min_free_mb: Annotated[float, Field(ge=0)] = 2048.0
    idle_s: Patience = 60.0
    tls: ServerTls | None = None
    status_address: Text = "127.0.0.1"
    status_port: Port | None = None

    @model_validator(mode="after")
    def _check_peers(self) -> "NodeSection":
        if bool(self.peers) == self.any_peer:
            raise ValueError("name the AE titles of the peers, or set any_peer, not both")
        return self


class JobsSection(Section):
    """How jobs run.

    Attributes
    ----------
    queue : str
        Empty: an SQLite file in the node's folder. Else ``sqlite:///FILE``, ``redis://...`` or
        ``postgresql://...``.
    attempts : int
        So often a job is tried.
    backoff_s, max_backoff_s : float
        Wait before the second try, twice that before the third, and so on up to the longest.
    time_limit_s : float
        A longer job is stopped.
    memory_limit_mb : float or None
        A larger one, too.
    """

    queue: str = ""
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff_s: Seconds = 30.0
    max_backoff_s: Seconds = 3600.0
    time_limit_s: Annotated[float, Field(gt=0)] = 1800.0
    memory_limit_mb: Annotated[float, Field(gt=0)] | None = None


class ModelSection(Section):
    """What the node computes with; the same for all rules, since it stays loaded."""

    weights: File | None = None
    expected_sha256: str | None = None
    random_seed: int | None = None
    device: Device = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    batch_size: Annotated[int, Field(ge=1)] | None = None


class SendingSection(Section):
    """How often and how fast sending is tried again."""

    attempts: Annotated[int, Field(ge=1, le=10_000)] = 100
    backoff_s: Annotated[float, Field(gt=0)] = 10.0
    max_backoff_s: Annotated[float, Field(gt=0)] = 1800.0


class RetentionSection(Section):
    """How long things are kept after a study is done.

    Attributes
    ----------
    images_hours : float
        Received objects; 0 deletes them when the study is done.
    reports_days : float
        Reports that were made: a revision needs the one that it revises.
    records_days : float
        What is known about a study, by UID: it tells what was there before.
    """

    images_hours: Annotated[float, Field(ge=0)] = 0.0
    reports_days: Annotated[float, Field(ge=0)] = 365.0
    records_days: Annotated[float, Field(gt=0)] = 3650.0
