"""``oncofm batch``: many cases, whatever happens in between."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from oncofm.biomarkers.head import Head, require_fit
from oncofm.encoders.encoder import EncoderFacts
from oncofm.errors import BatchError
from oncofm.results.files import prepare_output_folder
from oncofm.results.manifest import Configuration
from oncofm.workflow.batch.computers import open_computer
from oncofm.workflow.batch.finish import BatchResult, finish
from oncofm.workflow.batch.ledger import Ledger, open_ledger
from oncofm.workflow.batch.options import BatchOptions
from oncofm.workflow.batch.parts import remove_unknown
from oncofm.workflow.batch.plan import left_to_do, plan_items, require_source
from oncofm.workflow.batch.remote import FETCHED_FOLDER, discard
from oncofm.workflow.batch.work import work_through
from oncofm.workflow.batch.writer import Writer
from oncofm.workflow.describe import configure
from oncofm.workflow.job import Report, load_heads
from oncofm.workflow.settings import Settings
from oncofm.workflow.timing import Timing

EXIT_TERMINATED = 143
"""128 + SIGTERM, as a shell reports it."""


def run_batch(
    source: Path,
    output: Path,
    settings: Settings,
    options: BatchOptions,
    report: Report = lambda event: None,
) -> BatchResult:
    """Compute the features of every case of a manifest or folder.

    Parameters
    ----------
    source : pathlib.Path
        Manifest, or folder of DICOM.
    output : pathlib.Path
        Folder for the results, on a local disk.
    settings : Settings
        What the user chose about the features.
    options : BatchOptions
        How to get there.
    report : callable
        Takes progress events.

    Returns
    -------
    BatchResult
        Its exit code is 143 if the process was asked to terminate; what was finished until then
        is kept, and the final tables are not written.

    Raises
    ------
    SetupError
        If the batch cannot start, or the output can no longer be written.
    """
    timing = Timing()
    require_source(source, output)
    prepare_output_folder(output)
    heads = load_heads(settings)
    with open_ledger(output) as ledger, open_computer(options, settings, timing) as computer:
        _check_resume(ledger, output, options)
        discard(output / FETCHED_FOLDER)
        remove_unknown(output, (name for files in ledger.parts().values() for name in files))
        with timing.part("plan"):
            plan = plan_items(source, output, options.shard)
        encoder = computer.describe_encoder()
        _check_heads(heads, encoder, settings)
        configuration = configure(encoder, settings)
        digest = _digest(configuration, encoder, settings, heads)
        ledger.note(
            configuration=configuration.model_dump_json(),
            digest=digest,
            plan=json.dumps({"n_items": len(plan), "shard": options.shard}),
        )
        ledger.place(plan)
        todo = left_to_do(plan, ledger.results(), options)
        n_done = len(plan) - len(todo)
        report({"event": "start", "n_cases": len(plan), "n_lesions": None, "n_before": n_done})
        writer = Writer(output, ledger, encoder, configuration, digest, heads, settings)
        with timing.part("read_and_encode"):
            terminated = work_through(todo, computer, writer, heads, settings, report)
        if terminated:
            return BatchResult(None, EXIT_TERMINATED)
        encoder = computer.describe_encoder()  # its batches may have become smaller
        result = finish(output, ledger, plan, encoder, configuration, heads, settings, timing)
        if result.manifest is not None:
            report({"event": "end", **result.manifest.summary.model_dump()})
        return result


def _check_resume(ledger: Ledger, output: Path, options: BatchOptions) -> None:
    if not options.resume and ledger.entries():
        raise BatchError(
            f"{output} holds results of a batch; go on with it by --resume, or choose another "
            "folder."
        )


def _check_heads(heads: Sequence[Head], encoder: EncoderFacts, settings: Settings) -> None:
    for head in heads:
        require_fit(head, encoder.weights.sha256, settings.profile, encoder.n_features)


def _digest(
    configuration: Configuration, encoder: EncoderFacts, settings: Settings, heads: Sequence[Head]
) -> str:
    """Hash everything that can change a row of the tables."""
    parts = [
        configuration.model_dump(mode="json"),
        encoder.engine,
        [head.card.model_dump(mode="json") for head in heads],
        [
            hashlib.sha256(array.tobytes()).hexdigest()
            for head in heads
            for layer in head.layers
            for array in (layer.weight, layer.bias)
        ],
        settings.jitter,
        settings.sr,
        settings.sr_features,
        settings.key_images,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
