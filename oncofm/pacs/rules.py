"""Which rule a study falls under, and what it still lacks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from oncofm.pacs.config import Match, Rule
from oncofm.pacs.database import StoredObject


@dataclass(frozen=True)
class StudyFacts:
    """What rules look at: every value that any object of a study has."""

    called: frozenset[str]
    calling: frozenset[str]
    modality: frozenset[str]
    body_part: frozenset[str]
    study_description: frozenset[str]
    series_description: frozenset[str]
    labels: frozenset[str]


_EXACT = ("called", "calling")
_PATTERNS = ("modality", "body_part", "study_description", "series_description", "labels")


def study_facts(objects: Iterable[StoredObject]) -> StudyFacts:
    """Collect the facts of a study."""
    objects = list(objects)
    return StudyFacts(
        called=frozenset(item.called for item in objects),
        calling=frozenset(item.calling for item in objects),
        modality=frozenset(item.facts.modality for item in objects),
        body_part=frozenset(item.facts.body_part for item in objects),
        study_description=frozenset(item.facts.study_description for item in objects),
        series_description=frozenset(item.facts.series_description for item in objects),
        labels=frozenset(label for item in objects for label in item.facts.labels),
    )


def choose_rule(rules: Sequence[Rule], facts: StudyFacts) -> Rule | None:
    """Find the first rule that a study falls under, or may when its segmentation has come."""
    return next((rule for rule in rules if not misfits(rule.match, facts)), None)


def misfits(match: Match, facts: StudyFacts) -> list[str]:
    """Keys of a rule that speak against a study.

    The labels of a study that has none yet speak against nothing: the segmentation may come.
    """
    found = []
    for key in _EXACT:
        wanted = getattr(match, key)
        if wanted and not facts_of(facts, key) & set(wanted):
            found.append(key)
    for key in _PATTERNS:
        patterns, values = getattr(match, key), facts_of(facts, key)
        if key == "labels" and not values:
            continue
        if patterns and not any(fits(value, patterns) for value in values):
            found.append(key)
    return found


def missing(rule: Rule, objects: Sequence[StoredObject]) -> list[str]:
    """Say what a study lacks before its job can start.

    Parameters
    ----------
    rule : Rule
        What it falls under.
    objects : sequence of StoredObject
        All that is known of it.

    Returns
    -------
    list of str
        Half-sentences; empty if nothing is missing.
    """
    present = [item for item in objects if item.present]
    modalities = {
        item.facts.modality
        for item in present
        if item.facts.modality != "SR" or item.facts.kind == "sr"  # no dose report, say
    }
    found = [
        f"no {' or '.join(wanted.split('|'))} has come"
        for wanted in rule.require
        if not modalities & {one.strip() for one in wanted.split("|")}
    ]
    uids = {item.sop_uid for item in present}
    for item in present:
        n_absent = len(set(item.facts.references) - uids)
        if n_absent:
            found.append(
                f"{n_absent} of {len(item.facts.references)} images that {item.facts.modality} "
                f"{item.sop_uid} refers to have not come"
            )
    if rule.match.labels and not any(item.facts.labels for item in present):
        found.append("no segment or ROI has come whose label could fit the rule")
    n_gone = sum(1 for item in objects if was_deleted(rule, item))
    if n_gone:
        found.append(f"{n_gone} objects of the earlier job were deleted; send the study again")
    return list(dict.fromkeys(found))


def awaits_images(rules: Sequence[Rule], objects: Sequence[StoredObject]) -> bool:
    """Whether an annotation came first: what rules go by may come with its images."""
    if any(item.facts.kind == "image" for item in objects):
        return False
    return any(item.present and is_input(rule, item) for rule in rules for item in objects)


def is_input(rule: Rule, item: StoredObject) -> bool:
    """Whether a job reads an object; a dose report, say, only goes with its study."""
    return item.facts.kind in ("image", *rule.settings.seed_kinds)


def was_deleted(rule: Rule, item: StoredObject) -> bool:
    """Whether an earlier job read an object that is not there any more."""
    return is_input(rule, item) and bool(item.done_file) and not item.present


def facts_of(facts: StudyFacts, key: str) -> frozenset[str]:
    """Values of a study that a key of a rule is about."""
    return getattr(facts, key)


def fits(value: str, patterns: Iterable[str]) -> bool:
    """Whether a text fits one of some patterns, upper and lower case alike."""
    return any(fnmatchcase(value.casefold(), pattern.casefold()) for pattern in patterns)
