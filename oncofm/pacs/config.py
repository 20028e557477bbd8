"""The configuration of a node: one YAML file, checked as a whole before anything starts."""

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from oncofm.errors import SettingInvalidError
from oncofm.pacs.config_node import (
    JobsSection,
    ModelSection,
    NodeSection,
    RetentionSection,
    SendingSection,
)
from oncofm.pacs.config_peers import Destination, DicomDestination, QidoSource
from oncofm.pacs.config_values import (
    AETitles,
    Name,
    Requirements,
    Seconds,
    Section,
    SourceName,
    Texts,
    listed,
)
from oncofm.pacs.yaml_lines import PlacedError, read_yaml
from oncofm.workflow.settings import (
    Per,
    Profile,
    ReportFeatures,
    ReportStyle,
    SeedKind,
    Settings,
)


class Match(Section):
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


class RuleSettings(Section):
    """What `oncofm run` can be told, as far as it fits a node; see `Settings`."""

    profile: Profile = "mhub"
    seed_kinds: Annotated[tuple[SeedKind, ...], BeforeValidator(listed)] = ("seg", "rtstruct")
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


class Rule(Section):
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
    require: Requirements = ("CT", "SEG|RTSTRUCT")
    quiet_s: Seconds = 60.0
    force_s: Annotated[float, Field(gt=0)] = 86_400.0
    settings: RuleSettings = RuleSettings()
    destinations: Annotated[tuple[Name, ...], BeforeValidator(listed)]
    shadow: bool = False

    @model_validator(mode="after")
    def _check_times(self) -> "Rule":
        if self.force_s <= self.quiet_s:
            raise ValueError("force_s must be longer than quiet_s")
        return self


class PacsConfig(Section):
    """A node's whole configuration."""

    node: NodeSection
    jobs: JobsSection = JobsSection()
    model: ModelSection = ModelSection()
    sources: dict[SourceName, QidoSource] = Field(default_factory=dict)
    destinations: dict[Name, Destination]
    sending: SendingSection = SendingSection()
    rules: Annotated[tuple[Rule, ...], BeforeValidator(listed), Field(min_length=1)]
    retention: RetentionSection = RetentionSection()

    @model_validator(mode="after")
    def _check_names(self) -> "PacsConfig":
        names = [rule.name for rule in self.rules]
        for index, rule in enumerate(self.rules):
            place = ("rules", index)
            if rule.name in names[:index]:
                raise PlacedError(f"two rules are called {rule.name}", *place, "name")
            for name in rule.destinations:
                if name not in self.destinations:
                    raise PlacedError(f"{name} is no destination", *place, "destinations")
            if not rule.destinations and not rule.shadow:
                raise PlacedError(f"rule {rule.name} has no destination and is no shadow", *place)
            for title in rule.match.called:
                if title not in self.node.ae_titles:
                    raise PlacedError(f"{title} is no AE title of the node", *place, "match")
        return self

    @model_validator(mode="after")
    def _check_sources(self) -> "PacsConfig":
        for name, source in self.sources.items():
            if source.ae_title not in (None, *self.node.ae_titles):
                raise PlacedError(
                    f"{name} fetches for {source.ae_title}, which the node is not",
                    *("sources", name, "ae_title"),
                )
        return self

    @model_validator(mode="after")
    def _check_commitment(self) -> "PacsConfig":
        for name, one in self.destinations.items():
            if not isinstance(one, DicomDestination) or not one.commitment:
                continue
            if not self.node.any_peer and one.ae_title not in self.node.peers:
                raise PlacedError(
                    f"{name} commits, so that its {one.ae_title} must be a peer",
                    *("destinations", name, "ae_title"),
                )
            if one.calling_ae_title not in self.node.ae_titles:
                raise PlacedError(
                    f"{name} is to commit to {one.calling_ae_title}, which the node is not",
                    *("destinations", name, "calling_ae_title"),
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
