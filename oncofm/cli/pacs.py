"""``oncofm pacs``: a node next to a hospital's PACS."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from oncofm.errors import MissingExtraError

if TYPE_CHECKING:
    from oncofm.pacs.config import PacsConfig
    from oncofm.pacs.database import Database

app = typer.Typer(
    help="A DICOM node: studies in, structured reports back, unattended.", no_args_is_help=True
)
CONFIG = typer.Option(..., "--config", "-c", help="The node's configuration (YAML).")
STUDY = typer.Argument(..., metavar="STUDY", help="Study Instance UID.")
JSON_LINES = typer.Option(False, "--json", help="As JSON lines.")


@app.command()
def serve(config: Path = CONFIG) -> None:
    """Receive studies, run jobs, send reports, until the process is told to end."""
    with _extra():
        from oncofm.pacs.node import serve as serve_node
    serve_node(_read(config), lambda text: typer.echo(f"oncofm pacs: {text}", err=True))


@app.command("test-rules")
def try_rules_on(
    folder: Path = typer.Argument(..., metavar="FOLDER", help="A study, as files of DICOM."),
    config: Path = CONFIG,
    calling: str = typer.Option("", "--calling", help="As if this AE title had sent it."),
    called: str = typer.Option("", "--called", help="As if it had been sent to this AE title."),
) -> int:
    """Say what would happen to the study in FOLDER; exit code 3 if nothing would."""
    from oncofm.pacs.try_rules import try_rules

    verdicts = try_rules(_read(config), folder, calling=calling, called=called)
    for verdict in verdicts:
        typer.echo(verdict.text)
    return 0 if any(verdict.rule for verdict in verdicts) else 3


@app.command()
def status(config: Path = CONFIG, json_lines: bool = JSON_LINES) -> None:
    """Count studies and deliveries by state, also while the node runs."""
    import json

    with _database(config) as (_, database):
        deliveries = database.rows(
            "SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state"
        )
        counts = database.counts()
    if json_lines:
        sent = [dict(zip(("destination", "state", "n"), row, strict=True)) for row in deliveries]
        typer.echo(json.dumps({"studies": counts, "deliveries": sent}))
        return
    for state, count in counts.items():
        typer.echo(f"{state:<12} {count:>8}")
    for destination, state, count in deliveries:
        typer.echo(f"{destination}: {state} {count}")


@app.command("list")
def list_studies(
    config: Path = CONFIG,
    state: str = typer.Option("", "--state", help="Only studies of this state."),
    json_lines: bool = JSON_LINES,
) -> None:
    """List studies with state, rule and reason."""
    import json
    from dataclasses import asdict

    from oncofm.errors import SettingInvalidError
    from oncofm.pacs.database import STATES

    if state and state not in STATES:
        raise SettingInvalidError(f"The state {state!r} is none of {', '.join(STATES)}.")
    with _database(config) as (_, database):
        studies = database.studies("state = ?", state) if state else database.studies()
    for study in studies:
        if json_lines:
            typer.echo(json.dumps(asdict(study)))
        else:
            reason = f"  {study.reason}: {study.message}" if study.reason else ""
            typer.echo(f"{study.study_uid}  {study.state:<12} {study.rule or '-'}{reason}")


@app.command()
def show(study_uid: str = STUDY, config: Path = CONFIG) -> None:
    """Show all that is known of a study, as JSON, by UID."""
    import json
    from dataclasses import asdict

    from oncofm.pacs.care import find_study

    with _database(config) as (_, database):
        study = find_study(database, study_uid)
        objects = [
            {
                "sop_uid": item.sop_uid,
                "series_uid": item.facts.series_uid,
                "modality": item.facts.modality,
                "present": item.present,
                "in_last_job": item.done_file == item.file,
                "calling": item.calling,
                "called": item.called,
            }
            for item in database.objects(study.key)
        ]
        deliveries = [asdict(one) for one in database.deliveries("study_key = ?", study.key)]
    content = {**asdict(study), "objects": objects, "deliveries": deliveries}
    typer.echo(json.dumps(content, indent=2))


@app.command()
def requeue(study_uid: str = STUDY, config: Path = CONFIG) -> None:
    """Try again what is in quarantine, or stop waiting for what has not come."""
    import time

    from oncofm.pacs.care import requeue as requeue_study

    with _database(config) as (settings, database):
        state = requeue_study(database, study_uid, time.time())
        _audit(settings, "requeued", study_uid)
    typer.echo(f"the study is {state} now", err=True)


@app.command()
def drop(study_uid: str = STUDY, config: Path = CONFIG) -> None:
    """Give a study up: delete what was received, send nothing more of it."""
    import time

    from oncofm.pacs.care import drop as drop_study

    with _database(config) as (settings, database):
        drop_study(database, study_uid, time.time())
        _audit(settings, "dropped", study_uid)
    typer.echo("the study is dropped", err=True)


def _read(path: Path) -> "PacsConfig":
    with _extra():
        from oncofm.pacs.config import read_config

    return read_config(path)


@contextmanager
def _database(path: Path) -> "Iterator[tuple[PacsConfig, Database]]":
    from oncofm.pacs.database import open_existing

    config = _read(path)
    with open_existing(config.node.folder) as database:
        yield config, database


def _audit(config: "PacsConfig", event: str, study_uid: str) -> None:
    from oncofm.pacs.audit import AUDIT_FILE, AuditLog

    AuditLog(config.node.folder / AUDIT_FILE)(event, study=study_uid)


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(
            f"The package {error.name} is not installed; install oncofm[pacs]."
        ) from error
