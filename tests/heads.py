"""Heads on disk."""

import numpy as np
import yaml
from safetensors.numpy import save_file


def write_head(folder, n_outputs=1, arrays=None, n_features=12, **changes):
    """Write a head with random arrays; `changes` go into its card, and the arrays come back."""
    classes = ["benign", "malignant"] if n_outputs == 1 else [f"c{i}" for i in range(n_outputs)]
    card = {
        "name": folder.name,
        "title": "A test",
        "kind": "logistic",
        "classes": classes,
        "model": "fmcib",
        "profile": "mhub",
        "weights_sha256": "any",
        "n_features": n_features,
        "intended_use": "tests",
        "licence": "Apache-2.0",
    } | changes
    folder.mkdir()
    (folder / "head.yml").write_text(yaml.safe_dump(card))
    rng = np.random.default_rng(0)
    arrays = arrays or {
        "weight": rng.normal(size=(n_outputs, n_features)).astype(np.float32),
        "bias": rng.normal(size=n_outputs).astype(np.float32),
    }
    save_file(arrays, folder / "head.safetensors")
    return arrays
