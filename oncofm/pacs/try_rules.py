"""What would happen to a study: the rules, tried on files."""

from dataclasses import dataclass
from pathlib import Path

from oncofm.errors import InputNotFoundError
from oncofm.pacs.config import PacsConfig
from oncofm.pacs.database import StoredObject
from oncofm.pacs.errors import ObjectRefusedError
from oncofm.pacs.objects import ObjectFacts, digest, read_facts
from oncofm.pacs.receive import STORAGE_CLASSES
from oncofm.pacs.rules import choose_rule, misfits, missing, study_facts


@dataclass(frozen=True)
class RuleVerdict:
    """What would happen to a study.

    Attributes
    ----------
    study_uid : str
        The study.
    rule : str
        Name of the rule that it falls under; empty if none.
    text : str
        The answer, in a few lines.
    """

    study_uid: str
    rule: str
    text: str


def try_rules(
    config: PacsConfig, folder: Path, *, calling: str = "", called: str = ""
) -> list[RuleVerdict]:
    """Say what would happen to each study in a folder.

    Parameters
    ----------
    config : PacsConfig
        With the rules.
    folder : pathlib.Path
        Files of DICOM, at any depth.
    calling, called : str
        AE titles to assume; else the first that are configured.

    Raises
    ------
    InputNotFoundError
        If it is no folder, or there is no DICOM file.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"{folder} is no folder; name the folder of a study.")
    studies: dict[str, list[StoredObject]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            item = _stored(config, path, calling, called)
            if item is not None:
                studies.setdefault(item.facts.study_uid, []).append(item)
    if not studies:
        raise InputNotFoundError(f"{folder} holds no DICOM file; name the folder of a study.")
    return [_verdict(config, uid, objects) for uid, objects in studies.items()]


def _stored(config: PacsConfig, path: Path, calling: str, called: str) -> StoredObject | None:
    try:
        data = path.read_bytes()
        facts = read_facts(data)
    except (ObjectRefusedError, OSError):
        return None
    peers = config.node.peers
    return StoredObject(
        study_key=digest(facts.study_uid),
        sop_uid=facts.sop_uid,
        file=path.name,
        n_bytes=len(data),
        calling=calling or (peers[0] if peers else ""),
        called=called or config.node.ae_titles[0],
        facts=facts,
        present=True,
        done_file="",
        received_at=0.0,
    )


def _is_kept(facts: ObjectFacts) -> bool:
    return facts.sop_class in STORAGE_CLASSES and not facts.is_own


def _verdict(config: PacsConfig, study_uid: str, found: list[StoredObject]) -> RuleVerdict:
    objects = [item for item in found if _is_kept(item.facts)]
    n_other = len(found) - len(objects)
    others = f", and {n_other} that the node does not take" if n_other else ""
    lines = [f"study {study_uid}: {len(objects)} objects{others}"]
    if not objects:
        return RuleVerdict(study_uid, "", "\n".join([*lines, "  nothing is done"]))
    facts = study_facts(objects)
    rule = choose_rule(config.rules, facts)
    for other in config.rules:
        if rule is not None and other.name == rule.name:
            break
        lines.append(f"  rule {other.name} does not fit: {', '.join(misfits(other.match, facts))}")
    if rule is None:
        return RuleVerdict(study_uid, "", "\n".join([*lines, "  no rule fits; nothing is done"]))
    where = "nowhere (shadow)" if rule.shadow else f"to {', '.join(rule.destinations)}"
    lines.append(f"  rule {rule.name}: reports go {where}")
    lines += [f"  it waits: {one}" for one in missing(rule, objects)]
    return RuleVerdict(study_uid, rule.name, "\n".join(lines))
