"""The configuration of a node: one YAML file, checked as a whole before anything starts."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from oncofm.errors import SettingInvalidError
from oncofm.pacs.yaml_lines import read_yaml
from oncofm.workflow.settings import (
    Per,
    Profile,
    ReportFeatures,
    ReportStyle,
    SeedKind,
    Settings,
)

_AE_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")


def _ae_title(text: str) -> str:
    if not _AE_TITLE.fullmatch(text):
        raise ValueError("an AE title has 1 to 16 printable characters and no backslash")
    return text


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
AETitles = Annotated[tuple[AETitle, ...], BeforeValidator(_listed)]
File = Annotated[Path, BeforeValidator(_path)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$")]
"""It stands for the calling AE title of what is fetched."""
Modality = Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{1,16}$")]
Modalities = Annotated[tuple[Modality, ...], BeforeValidator(_listed)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class ServerTls(_Section):
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


class ClientTls(_Section):
    """Files of the client's side of TLS.

    Attributes
    ----------
    ca : pathlib.Path
        PEM of who signs the peer's certificate.
    certificate, key : pathlib.Path or None
        PEM of the client's own certificate, where the peer wants one.
    check_host : bool
        Whether the certificate must name the host.
    """

    ca: File
    certificate: File | None = None
    key: File | None = None
    check_host: bool = True


class NodeSection(_Section):
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
    idle_s: Annotated[float, Field(gt=0)] = 60.0
    tls: ServerTls | None = None
    status_address: Text = "127.0.0.1"
    status_port: Port | None = None

    @model_validator(mode="after")
    def _check_peers(self) -> "NodeSection":
        if bool(self.peers) == self.any_peer:
            raise ValueError("name the AE titles of the peers, or set any_peer, not both")
        return self


class JobsSection(_Section):
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


class ModelSection(_Section):
    """What the node computes with; the same for all rules, since it stays loaded."""

    weights: File | None = None
    expected_sha256: str | None = None
    random_seed: int | None = None
    device: Text = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    batch_size: Annotated[int, Field(ge=1)] | None = None


class DicomDestination(_Section):
    """A peer that takes reports by C-STORE.

    Attributes
    ----------
    host, port, ae_title
        The peer.
    calling_ae_title : str
        Who the node is for it.
    timeout_s : float
        As long an answer is waited for.
    tls : ClientTls or None
        With it nothing but TLS is spoken.
    commitment : bool
        Ask for storage commitment: a report counts as sent when the peer says that it keeps it.
    commitment_timeout_s : float
        It is asked again if it said nothing for as long, then twice that, and so on.
    """

    type: Literal["dicom"]
    host: Text
    port: Port
    ae_title: AETitle
    calling_ae_title: AETitle
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    tls: ClientTls | None = None
    commitment: bool = False
    commitment_timeout_s: Annotated[float, Field(gt=0)] = 600.0


class StowDestination(_Section):
    """A server that takes reports by STOW-RS.

    Attributes
    ----------
    url : str
        Of the DICOMweb service; ``/studies`` is added.
    token_file : pathlib.Path or None
        File with a bearer token.
    ca : pathlib.Path or None
        PEM of who signs the server's certificate, if not one that the system knows.
    """

    type: Literal["stow"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    token_file: File | None = None
    ca: File | None = None


Destination = Annotated[DicomDestination | StowDestination, Field(discriminator="type")]


class QidoSource(_Section):
    """A server that studies are fetched from over DICOMweb.

    Attributes
    ----------
    url : str
        Of the DICOMweb service; ``/studies`` is added.
    timeout_s : float
        So long it may be silent.
    token_file : pathlib.Path or None
        File with a bearer token.
    ca : pathlib.Path or None
        PEM of who signs the server's certificate, if not one that the system knows.
    every_s : float or None
        It is asked as often for new studies; without it never, but for what an operator orders.
    modality : tuple of str
        Studies that have one of these are fetched.
    last_days : int or None
        Studies of today and as many days before; None asks for all.
    study_description, series_description, station : tuple of str
        Patterns, as in a rule, for the study or for any of its series.
    series : tuple of str
        Modalities of the series that are fetched.
    ae_title : str or None
        Which of the node's titles they are fetched for; None is the first.
    """

    type: Literal["qido"]
    url: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%+:-]+)*/?$")]
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    token_file: File | None = None
    ca: File | None = None
    every_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    modality: Annotated[Modalities, Field(min_length=1)] = ("SEG", "RTSTRUCT")
    last_days: Annotated[int, Field(ge=0, le=36_500)] | None = 2
    study_description: Texts = ()
    series_description: Texts = ()
    station: Texts = ()
    series: Annotated[Modalities, Field(min_length=1)] = ("CT", "SEG", "RTSTRUCT")
    ae_title: AETitle | None = None


class SendingSection(_Section):
    """How often and how fast sending is tried again."""

    attempts: Annotated[int, Field(ge=1, le=10_000)] = 100
    backoff_s: Annotated[float, Field(gt=0)] = 10.0
    max_backoff_s: Annotated[float, Field(gt=0)] = 1800.0


class Match(_Section):
    """What a rule applies to: every key that is given must fit.

    Patterns have ``*``, ``?`` and ``[...]``, upper and lower case alike; one of a list must fit
    one value of the study.

    Attributes
    ----------
    called, calling : tuple of str
        AE titles, exactly.
    modality, body_part, study_description, series_description : tuple of str
        Patterns for the values of any series.
    labels : tuple of str
        Patterns for the labels of segments and ROIs.
    """

    called: AETitles = ()
    calling: AETitles = ()
    modality: Texts = ()
    body_part: Texts = ()
    study_description: Texts = ()
    series_description: Texts = ()
    labels: Texts = ()


class RuleSettings(_Section):
    """What `oncofm run` can be told, as far as it fits a node; see `Settings`."""

    profile: Profile = "mhub"
    seed_kinds: Annotated[tuple[SeedKind, ...], BeforeValidator(_listed)] = ("seg", "rtstruct")
    labels: Texts = ()
    per: Per = "segment"
    min_volume_mm3: float = 0.0
    seg_threshold: float = 0.5
    heads: Texts = ()
    sr: ReportStyle = "auto"
    sr_features: ReportFeatures = "none"
    key_images: bool = False
    jitter: int = 0

    @model_validator(mode="after")
    def _check_settings(self) -> "RuleSettings":
        if self.sr == "none":
            raise ValueError("sr must not be none: a node sends reports")
        try:
            Settings(**self.model_dump())
        except SettingInvalidError as error:
            raise ValueError(str(error).rstrip(".")) from error
        return self


class Rule(_Section):
    """What happens to studies of a kind.

    Attributes
    ----------
    name : str
        For logs and metrics.
    match : Match
        Which studies.
    require : tuple of str
        Modalities that must be there; ``SEG|RTSTRUCT`` is one or the other.
    quiet_s : float
        A study is complete when nothing of it came for as long.
    force_s : float
        After as long the job starts with what is there.
    settings : RuleSettings
        How the job runs.
    destinations : tuple of str
        Where reports go.
    shadow : bool
        Do everything but send.
    """

    name: Name
    match: Match = Match()
    require: Texts = ("CT", "SEG|RTSTRUCT")
    quiet_s: Seconds = 60.0
    force_s: Annotated[float, Field(gt=0)] = 86_400.0
    settings: RuleSettings = RuleSettings()
    destinations: Annotated[tuple[Name, ...], BeforeValidator(_listed)]
    shadow: bool = False

    @model_validator(mode="after")
    def _check_times(self) -> "Rule":
        if self.force_s <= self.quiet_s:
            raise ValueError("force_s must be longer than quiet_s")
        return self


class RetentionSection(_Section):
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


class PacsConfig(_Section):
    """A node's whole configuration."""

    node: NodeSection
    jobs: JobsSection = JobsSection()
    model: ModelSection = ModelSection()
    sources: dict[SourceName, QidoSource] = {}
    destinations: dict[Name, Destination]
    sending: SendingSection = SendingSection()
    rules: Annotated[tuple[Rule, ...], BeforeValidator(_listed), Field(min_length=1)]
    retention: RetentionSection = RetentionSection()

    @model_validator(mode="after")
    def _check_names(self) -> "PacsConfig":
        names = [rule.name for rule in self.rules]
        for rule in self.rules:
            if names.count(rule.name) > 1:
                raise ValueError(f"two rules are called {rule.name}")
            for name in rule.destinations:
                if name not in self.destinations:
                    raise ValueError(f"rule {rule.name} sends to {name}, which is no destination")
            if not rule.destinations and not rule.shadow:
                raise ValueError(f"rule {rule.name} has no destination and is no shadow")
            for title in rule.match.called:
                if title not in self.node.ae_titles:
                    raise ValueError(f"rule {rule.name} matches {title}, which the node is not")
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> "PacsConfig":
        for name, source in self.sources.items():
            if source.ae_title not in (None, *self.node.ae_titles):
                raise ValueError(f"{name} fetches for {source.ae_title}, which the node is not")
        return self

    @model_validator(mode="after")
    def _check_commitment(self) -> "PacsConfig":
        for name, one in self.destinations.items():
            if not isinstance(one, DicomDestination) or not one.commitment:
                continue
            if not self.node.any_peer and one.ae_title not in self.node.peers:
                raise ValueError(f"{name} commits, so that its {one.ae_title} must be a peer")
            if one.calling_ae_title not in self.node.ae_titles:
                raise ValueError(
                    f"{name} is to commit to {one.calling_ae_title}, which the node is not"
                )
        return self

    def rule(self, name: str) -> Rule | None:
        """Find a rule by its name."""
        return next((rule for rule in self.rules if rule.name == name), None)

    def settings(self, rule: Rule, revises: Path | None = None) -> Settings:
        """Put together what a job of a rule runs with."""
        return Settings(**rule.settings.model_dump(), **self.model.model_dump(), revises=revises)


def read_config(path: Path) -> PacsConfig:
    """Read and check a node's configuration.

    Raises
    ------
    PacsConfigError
        If it cannot be used; with the line of each mistake.
    """
    return read_yaml(path, PacsConfig)
