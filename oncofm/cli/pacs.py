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
    help="A DICOM node: studies in, structured reports back, unattended.",
    epilog="Exit codes: 0 done, 1 usage or set-up error, 3 nothing to do it with.",
    no_args_is_help=True,
)
CONFIG = typer.Option(..., "--config", "-c", help="The node's configuration (YAML).")
STUDY = typer.Argument(..., metavar="STUDY", help="Study Instance UID.")


def _known_state(state: str) -> str:
    from oncofm.errors import SettingInvalidError
    from oncofm.pacs.database import STATES

    if state and state not in STATES:
        raise SettingInvalidError(f"The state {state!r} is none of {', '.join(STATES)}.")
    return state


STATE = typer.Option(
    "",
    "--state",
    callback=_known_state,
    help="Studies that are received, waiting, queued, running, sending, done or quarantined.",
)
JSON = typer.Option(False, "--json", help="As JSON.")
JSON_LINES = typer.Option(False, "--json", help="As JSON, a line for each.")


@app.command()
def serve(config: Path = CONFIG) -> None:
    """Receive studies, run jobs, send reports.

    Until the process gets SIGTERM or SIGINT.
    """
    with _extra():
        from oncofm.pacs.node import serve as serve_node
    serve_node(_read(config), lambda text: typer.echo(f"oncofm pacs: {text}", err=True))


@app.command()
def work(
    config: Path = CONFIG,
    device: str = typer.Option("", "--device", help="Other than the one of the configuration."),
) -> None:
    """Run jobs beside a node: one process for each further GPU of its machine."""
    settings = _read(config)
    from oncofm.pacs.work import work as work_for

    if device:
        model = settings.model.model_copy(update={"device": device})
        settings = settings.model_copy(update={"model": model})
    work_for(settings, lambda text: typer.echo(f"oncofm pacs: {text}", err=True))


@app.command("test-rules")
def try_rules_on(
    folder: Path = typer.Argument(..., metavar="FOLDER", help="A study, as files of DICOM."),
    config: Path = CONFIG,
    calling: str = typer.Option("", "--calling", help="As if this AE title had sent it."),
    called: str = typer.Option("", "--called", help="As if it had been sent to this AE title."),
) -> int:
    """Say what would happen to a study.

    Nothing is sent anywhere. Exit code 3 if nothing would happen.
    """
    from oncofm.pacs.try_rules import try_rules

    verdicts = try_rules(_read(config), folder, calling=calling, called=called)
    for verdict in verdicts:
        typer.echo(verdict.text)
    return 0 if any(verdict.rule for verdict in verdicts) else 3


@app.command()
def status(config: Path = CONFIG, as_json: bool = JSON) -> None:
    """Say how the node stands.

    Studies by state, destinations, disk, last errors; while the node runs or not.
    """
    import json
    import time
    from dataclasses import asdict

    from oncofm.pacs.status import read_status
    from oncofm.pacs.status_text import describe_status

    with _database(config) as (settings, database):
        found = read_status(database, settings, time.time())
    typer.echo(json.dumps(asdict(found), indent=1) if as_json else describe_status(found))


@app.command("list")
def list_studies(config: Path = CONFIG, state: str = STATE, json_lines: bool = JSON_LINES) -> None:
    """List studies with state and reason.

    UID, state, rule, time of the last change, reason; the oldest study first.
    """
    import json

    from oncofm.pacs.export import plain

    where = ("state = ?", state) if state else ("1",)
    with _database(config) as (_, database):
        studies = [plain(study) for study in database.studies(*where)]
    for study in studies:
        if json_lines:
            typer.echo(json.dumps(study))
        else:
            reason = f"  {study['reason']}: {study['message']}" if study["reason"] else ""
            rule, changed_at = study["rule"] or "-", study["changed_at"]
            typer.echo(f"{study['study_uid']}  {study['state']:<12} {rule}  {changed_at}{reason}")


@app.command()
def show(study_uid: str = STUDY, config: Path = CONFIG) -> None:
    """Show all that is known of a study.

    Objects, deliveries and history as JSON; UIDs only.
    """
    import json

    from oncofm.pacs.care import find_study
    from oncofm.pacs.export import describe_study

    with _database(config) as (_, database):
        content = describe_study(database, find_study(database, study_uid))
    typer.echo(json.dumps(content, indent=2))


@app.command()
def fetch(
    study_uid: str = typer.Option(..., "--study", help="Study Instance UID."),
    source: str = typer.Option("", "--from", help="Which of the sources, if there are several."),
    config: Path = CONFIG,
) -> int:
    """Have the node fetch a study from a DICOMweb server, and wait for it.

    All of it comes, also what the node has already. Exit code 3 if it could not be fetched; the
    node tries that again. Without a node that runs, the next one fetches it.
    """
    import time

    from oncofm.pacs.order import await_study, choose_source, order_study
    from oncofm.pacs.sources import FETCHED

    with _database(config) as (settings, database):
        name = choose_source(settings, source)
        order_study(database, name, study_uid, time.time())
        _audit(settings, "fetch_ordered", study_uid)
        found = await_study(database, settings, name, study_uid)
    if found.message:
        typer.echo(f"{name}: {found.message}", err=True)
        return 3
    is_here = found.state == FETCHED
    text = f"{found.objects} objects came" if is_here else "it comes when the node is started"
    typer.echo(f"{name}: {text}", err=True)
    return 0


@app.command()
def requeue(study_uid: str = STUDY, config: Path = CONFIG) -> None:
    """Try a study again, now.

    One in quarantine is sent again, or computed again if it has no reports; one that waits for
    objects starts with what is there; one that fits no rule is held against the rules again; one
    that would be tried later is tried now.
    """
    import time

    from oncofm.pacs.care import requeue as requeue_study
    from oncofm.pacs.lock import is_served

    with _database(config) as (settings, database):
        state = requeue_study(database, study_uid, time.time())
        _audit(settings, "requeued", study_uid)
    waits = "" if is_served(settings.node.folder) else "; it goes on when the node is started"
    typer.echo(f"the study is {state} now{waits}", err=True)


@app.command()
def drop(study_uid: str = STUDY, config: Path = CONFIG) -> None:
    """Give a study up.

    What was received is deleted, and nothing more is sent. Objects that come later start it anew.
    """
    import time

    from oncofm.pacs.care import drop as drop_study

    with _database(config) as (settings, database):
        drop_study(database, study_uid, time.time())
        _audit(settings, "dropped", study_uid)
    typer.echo("the study is dropped", err=True)


@app.command()
def export(
    study_uids: list[str] = typer.Argument(None, metavar="STUDY", help="Study Instance UIDs."),
    config: Path = CONFIG,
    target: Path = typer.Option(..., "--to", metavar="FOLDER", help="It must not exist."),
    state: str = STATE,
    images: bool = typer.Option(
        False, "--images/--without-images", help="Also what was received; reports go in any case."
    ),
) -> int:
    """Write what is known of studies to a folder.

    Reports, tables, history, audit lines: patient data is in it, and README.txt in the folder says
    where. Exit code 3 if no study is of the state.
    """
    import time

    from oncofm.errors import SettingInvalidError
    from oncofm.pacs.care import find_studies
    from oncofm.pacs.export import export as export_studies

    if not study_uids and not state:
        raise SettingInvalidError("Name the studies, or their state with --state.")

    with _database(config) as (settings, database):
        studies = find_studies(database, study_uids or (), state)
        if not studies:
            typer.echo(f"no study is {state}", err=True)
            return 3
        export_studies(database, settings, studies, target, time.time(), images=images)
    n_studies = "1 study" if len(studies) == 1 else f"{len(studies)} studies"
    typer.echo(f"{n_studies} in {target}; its README.txt says where patient data is", err=True)
    return 0


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
