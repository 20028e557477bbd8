import re
from pathlib import Path

import pytest

from oncofm import errors

ROOT = Path(__file__).parents[1]


def subclasses(family):
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, family) and value is not family
    ]


def test_every_reason_code_is_documented_and_has_one_class():
    codes = [error.code for error in subclasses(errors.Rejected)]
    assert len(codes) == len(set(codes))
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/reasons.md").read_text(), re.M))
    assert set(codes) <= documented


def test_every_warning_code_in_the_code_is_documented():
    used = set()
    for path in (ROOT / "oncofm").rglob("*.py"):
        used |= set(re.findall(r"Notice\(\s*\"(\w+)\"", path.read_text()))
        used |= set(re.findall(r"\"(\w+_left_out)\"", path.read_text()))
    text = (ROOT / "docs/reasons.md").read_text()
    missing = {code for code in used if f"`{code}`" not in text}
    assert not missing


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/reasons.md",
        "docs/container.md",
        "docs/install-pacs.md",
        "docs/differences.md",
        "docs/workflows.md",
        "docs/batch.md",
        "docs/scale.md",
        "docs/pacs.md",
        "docs/conformance.md",
    ],
)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
        assert (ROOT / name).parent.joinpath(target).exists(), target


def test_every_difference_names_a_test_that_exists():
    named = set(re.findall(r"`(test_\w+)` \|$", (ROOT / "docs/differences.md").read_text(), re.M))
    source = (ROOT / "tests/parity/test_differences.py").read_text()
    assert named
    assert named <= set(re.findall(r"^def (test_\w+)", source, re.M))


def test_every_key_of_every_module_is_documented():
    from oncofm.workflow.mhub.models import choose_model, find_models, load_modules, read_workflow
    from oncofm.workflow.mhub.overrides import declared_keys

    model = choose_model(find_models(), None)
    names = [path.stem for path in sorted(model.modules_dir.glob("[A-Z]*.py"))]
    workflow = read_workflow(Path("all.yml"), f"general: {{}}\nexecute: {names}")
    declared = {cls.__name__: declared_keys(cls) for cls in load_modules(workflow, model)}
    documented, module = {}, ""
    for row in re.findall(r"^\|(.*)\|$", (ROOT / "docs/workflows.md").read_text(), re.M):
        cells = [cell.strip().strip("`") for cell in row.split("|")]
        module = cells[0] or module
        if module in declared:
            documented.setdefault(module, set()).update({cells[1]} - {""})
    assert documented == {name: set(keys) for name, keys in declared.items()}
