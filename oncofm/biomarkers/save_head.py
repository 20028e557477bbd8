"""Write a head to its folder: the same head, the same bytes."""

from pathlib import Path

import yaml
from safetensors.numpy import save

from oncofm.biomarkers.head import ARRAYS_FILE, CARD_FILE, REFERENCE_PREFIX, TABLE_PREFIX, Head
from oncofm.biomarkers.reference import ARRAYS as REFERENCE_ARRAYS
from oncofm.results.files import atomic_path, prepare_output_folder, write_text


def save_head(head: Head, folder: Path) -> None:
    """Write ``head.yml`` and ``head.safetensors``; a head of that name is replaced.

    Parameters
    ----------
    head : Head
        What to write.
    folder : pathlib.Path
        Made if it is missing.

    Raises
    ------
    OutputNotWritableError
        If writing fails. A folder then holds no card, hence no head, or a whole one.
    """
    prepare_output_folder(folder)
    prefixes = [""] if head.card.kind != "mlp" else [f"{i}." for i in range(len(head.layers))]
    arrays = {}
    for prefix, layer in zip(prefixes, head.layers, strict=True):
        # safetensors writes memory as it lies
        arrays[f"{prefix}weight"] = layer.weight.astype("<f8", order="C")
        arrays[f"{prefix}bias"] = layer.bias.astype("<f8", order="C")
    if head.reference is not None:
        for name in REFERENCE_ARRAYS:
            array = getattr(head.reference, name)
            arrays[f"{REFERENCE_PREFIX}{name}"] = array.astype("<f4", order="C")
    if head.table is not None:
        arrays[f"{TABLE_PREFIX}x"] = head.table.x.astype("<f8", order="C")
        arrays[f"{TABLE_PREFIX}y"] = head.table.y.astype("<f8", order="C")
    card = head.card.model_dump(mode="json", exclude_defaults=True)
    # The card goes first and comes last, so that it never stands beside another head's arrays.
    (folder / CARD_FILE).unlink(missing_ok=True)
    with atomic_path(folder / ARRAYS_FILE) as temporary:
        temporary.write_bytes(save(arrays))
    write_text(folder / CARD_FILE, yaml.safe_dump(card, sort_keys=False, allow_unicode=True))
