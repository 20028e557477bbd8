"""The configuration: what is wrong is said with its line."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from nodes import config_text, pacs

from oncofm.errors import SetupError
from oncofm.pacs.config import read_config
from oncofm.pacs.errors import PacsConfigError

GOOD = """\
node:
  folder: node
  ae_titles: [ONCOFM]
  peers: [SCANNER]
destinations:
  PACS:
    type: dicom
    host: 127.0.0.1
    port: 4242
    ae_title: ORTHANC
    calling_ae_title: ONCOFM
rules:
  - name: lung
    match: {modality: [CT], labels: ["lung*"]}
    destinations: [PACS]
    settings:
      per: component
"""


def read(tmp_path, text: str):
    path = tmp_path / "pacs.yml"
    path.write_text(text)
    return read_config(path)


def test_good(tmp_path):
    config = read(tmp_path, GOOD)
    rule = config.rule("lung")
    settings = config.settings(rule)
    assert (settings.per, settings.sr, settings.seed_kinds) == (
        "component",
        "auto",
        ("seg", "rtstruct"),
    )
    assert rule.require == ("CT", "SEG|RTSTRUCT")
    assert config.rule("other") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("port: 4242", "port: 70000", r"line 9: destinations.PACS.dicom.port: .* less than"),
        ("port: 4242", "port: '4242'", r"line 9: .*valid integer"),
        ("per: component", "per: lesion", "line 17: rules.0.settings.per: Input should be"),
        ("per: component", "pre: component", r"line 17: .*there is no such key; see the docs"),
        ("per: component", "jitter: 3", r"line 16: .*say how stable predictions are"),
        ("per: component", "sr: none", r"line 16: .*a node sends reports"),
        ("per: component", "sr_features: much", "line 17: "),
        ("[ONCOFM]\n", "[ONCOFM-WITH-A-LONG-TITLE]\n", r"line 3: .*1 to 16 printable"),
        ("  peers: [SCANNER]\n", "", r"line 1: node: name the AE titles of the peers"),
        (
            "destinations: [PACS]",
            "destinations: [RACS]",
            "line 15: rules.0.destinations: RACS is no destination",
        ),
        ("destinations: [PACS]", "destinations: []", "has no destination and is no shadow"),
        (
            "{modality: [CT]",
            "{called: [OTHER]",
            "line 14: rules.0.match: OTHER is no AE title of the node",
        ),
        ("- name: lung", "- name: lung cancer", "line 13: "),
        ("- name: lung", "- name: lung\n    force_s: 10", "force_s must be longer"),
        ("type: dicom", "type: ftp", "line 6: destinations.PACS"),
        ("peers: [SCANNER]", "peers: [SCANNER", "line 5: .*mend the YAML"),
        ("peers: [SCANNER]", "peers: [SCANNER]\n  peers: []", "line 5: peers is there twice"),
        ("folder: node", "folder: node\n  min_free_mb: .nan", "line 3: node.min_free_mb"),
        ("folder: node", "folder: node\n  idle_s: .inf", "line 3: node.idle_s: .*finite"),
        ("folder: node", "folder: ~/node", "line 2: node.folder: a path is written out"),
        ("rules:", "model: {device: tpu}\nrules:", "line 12: model.device: .*cuda"),
        ("folder: node", "folder: 12", "line 2: node.folder: it must be a path"),
        ("peers: [SCANNER]", "peers: SCANNER", "line 4: node.peers: it must be a list"),
        ("    host: ", "    #", "line 6: destinations.PACS.dicom.host: it must be given"),
        ("type: dicom", "#", "line 6: destinations.PACS: its type must be given"),
        ("- name: lung", "- require: [ct]\n    name: lung", "line 13: rules.0.require.0"),
        (
            "port: 4242",
            "port: 4242\n    commitment: true",
            "commits, so that its .* must be a peer",
        ),
        ("folder: node", "folder: !!python/object:os.system x", "no plain YAML|PacsConfig"),
    ],
)
def test_mistakes(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(PacsConfigError, match=message):
        read(tmp_path, GOOD.replace(old, new, 1))


def test_a_destination_that_commits_to_somebody_else(tmp_path):
    text = GOOD.replace("peers: [SCANNER]", "any_peer: true")
    text = text.replace("port: 4242", "port: 4242\n    commitment: true")
    assert read(tmp_path, text).destinations["PACS"].commitment_timeout_s == 600
    text = text.replace("calling_ae_title: ONCOFM", "calling_ae_title: OTHER")
    with pytest.raises(PacsConfigError, match="is to commit to OTHER, which the node is not"):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["", "- 1", "just text", "\0", "a: *b", "? [1]\n: 2"])
def test_no_configuration(tmp_path, text):
    with pytest.raises(PacsConfigError):
        read(tmp_path, text)


def test_missing_file(tmp_path):
    with pytest.raises(PacsConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yml")
    (tmp_path / "latin.yml").write_bytes(b"a: \xff")
    with pytest.raises(SetupError, match="UTF-8"):
        read_config(tmp_path / "latin.yml")


def test_the_one_in_the_docs(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "pacs.md"
    if not page.exists():
        pytest.skip("there are no docs beside the installed tests")
    (text,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    config = read(tmp_path, text)
    assert set(config.destinations) == {"PACS", "ARCHIVE"}
    # Defaults that the page gives are those that there are.
    for section, keys in re.findall(
        r"^\| `(node|jobs|sending|retention)` \| (.*) \|$", page.read_text(), re.M
    ):
        defaults = type(getattr(config, section)).model_fields
        for key, value in re.findall(r"`(\w+)` \(([\d.]+)", keys):
            assert str(defaults[key].default).removesuffix(".0") == value.removesuffix(".0"), key


def test_two_rules_of_a_name(tmp_path):
    content = config_text(tmp_path, {"PACS": pacs(4242)})
    content["rules"] *= 2
    with pytest.raises(PacsConfigError, match="two rules are called lesions"):
        read(tmp_path, yaml.safe_dump(content))


def test_aliases_of_aliases(tmp_path):
    letters = "abcdefghijklmnop"
    text = "a: &a [x]\n" + "".join(
        f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, after in pairwise(letters)
    )
    with pytest.raises(PacsConfigError, match="line 1: a: there is no such key"):
        read(tmp_path, text + GOOD)
