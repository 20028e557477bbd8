"""Folder layouts by MHub's patterns; what is expected was written by hand.

Where mhubio's own importer gives an answer, it is the same one for these layouts.
"""

import os
from pathlib import Path

import pytest

from oncofm.errors import InputNotFoundError
from oncofm.workflow import structure
from oncofm.workflow.structure import StructureFile, match_structure
from oncofm.workflow.structure_pattern import StructurePatternError, parse_pattern

CENTROIDS = [
    "$patientID/CT.nrrd@instance@nrrd:mod=ct",
    "$patientID/centroids.json@json:type=fmcibcoordinates",
    "$patientID/masks/GTV.nii.gz@nifti:mod=seg",
]
SLICER = [
    r"$patientID@instance/re:^.*\.nrrd$::@nrrd:mod=ct",
    r"$patientID/re:^.*\.json$::@json:type=fmcibcoordinates",
]


def grow(folder, *names):
    """Make files, and folders where the name ends in a slash."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"")
    return folder


def match(folder, patterns, import_id="patientID"):
    """What was found, with paths as text: {id: [(path, type)]} and the unmatched files."""
    found = match_structure(folder, patterns, import_id)
    files = {
        instance.instance_id: [
            (file.path.relative_to(folder).as_posix(), file.file_type) for file in instance.files
        ]
        for instance in found.instances
    }
    return files, [path.relative_to(folder).as_posix() for path in found.unmatched]


def attributes(folder, patterns, import_id="patientID"):
    found = match_structure(folder, patterns, import_id)
    return {instance.instance_id: instance.attributes for instance in found.instances}


# --- layouts ------------------------------------------------------------------------------


def test_names_and_placeholders(tmp_path):
    names = ("CT.nrrd", "centroids.json", "masks/GTV.nii.gz", "masks/LUNG.nii.gz")
    grow(tmp_path, *(f"P{n}/{name}" for n in (10, 2) for name in names), "readme.txt")
    found = match_structure(tmp_path, CENTROIDS, "patientID")
    assert [instance.instance_id for instance in found.instances] == ["P10", "P2"]
    first = tmp_path / "P10"
    assert found.instances[0].attributes == {"patientID": "P10"}
    assert found.instances[0].files == (
        StructureFile(first / "CT.nrrd", "nrrd", {"mod": "ct", "patientID": "P10"}),
        StructureFile(
            first / "centroids.json", "json", {"type": "fmcibcoordinates", "patientID": "P10"}
        ),
        StructureFile(first / "masks/GTV.nii.gz", "nifti", {"mod": "seg", "patientID": "P10"}),
    )
    assert found.unmatched == (
        first / "masks/LUNG.nii.gz",
        tmp_path / "P2/masks/LUNG.nii.gz",
        tmp_path / "readme.txt",
    )
    assert found.notices == ()


def test_regular_expressions(tmp_path):
    grow(tmp_path, "P1/ct.nrrd", "P1/pet.nrrd", "P1/F.mrk.json", "P1/x.nrrd.txt")
    assert match(tmp_path, SLICER) == (
        {"P1": [("P1/F.mrk.json", "json"), ("P1/ct.nrrd", "nrrd"), ("P1/pet.nrrd", "nrrd")]},
        ["P1/x.nrrd.txt"],
    )


def test_no_patient_is_lost(tmp_path):
    grow(tmp_path, "A/CT.nrrd", "B/centroids.json", "C/ct.nrrd", "D/", "E/masks/")
    assert match(tmp_path, CENTROIDS) == (
        {"A": [("A/CT.nrrd", "nrrd")], "B": [("B/centroids.json", "json")], "C": [], "D": []}
        | {"E": []},
        ["C/ct.nrrd"],
    )


def test_no_input(tmp_path):
    assert match(tmp_path, CENTROIDS) == ({}, [])


def test_deeper_patterns_and_joined_ids(tmp_path):
    grow(tmp_path, "A/1/ct/1.dcm", "A/1/ct/2.dcm", "A/1/seg.dcm", "A/2/ct/1.dcm", "B/")
    patterns = ["$p/$s@instance/ct@dicom:mod=ct", "$p/$s/seg.dcm@dicomseg:mod=seg"]
    expected = {
        "A/1": [("A/1/ct", "dicom"), ("A/1/seg.dcm", "dicomseg")],
        "A/2": [("A/2/ct", "dicom")],
    }
    assert match(tmp_path, patterns, "p/s") == (expected, [])
    assert list(match(tmp_path, patterns, "s/p")[0]) == ["1/A", "2/A"]
    assert attributes(tmp_path, patterns, "p/s")["A/2"] == {"p": "A", "s": "2"}


def test_attributes_below_the_instance_belong_to_the_file(tmp_path):
    grow(tmp_path, "A/T1/mask.nii.gz", "A/T2/mask.nii.gz")
    found = match_structure(tmp_path, ["$p@instance/$lesion/mask.nii.gz@nifti:mod=seg"], "p")
    (instance,) = found.instances
    assert instance.attributes == {"p": "A"}
    assert [file.meta for file in instance.files] == [
        {"mod": "seg", "p": "A", "lesion": "T1"},
        {"mod": "seg", "p": "A", "lesion": "T2"},
    ]


def test_flat_folders(tmp_path):
    grow(tmp_path, "A_ct.nii", "A_seg.nii", "B_ct.nii", "junk.nii", "folder_ct.nii/x")
    pattern = r"re:^(.*)_(.*)\.nii$::$p@instance::$kind::@nifti:mod=any"
    files, unmatched = match(tmp_path, [pattern], "p")
    assert files == {
        "A": [("A_ct.nii", "nifti"), ("A_seg.nii", "nifti")],
        "B": [("B_ct.nii", "nifti")],
    }
    assert unmatched == ["folder_ct.nii/x", "junk.nii"]
    unmarked = pattern.replace("@instance", "")
    assert attributes(tmp_path, [pattern], "p")["A"] == {"p": "A", "kind": "ct"}
    assert attributes(tmp_path, [unmarked], "p")["A"] == {"p": "A"}


def test_groups_that_must_be_a_text(tmp_path):
    grow(tmp_path, "A_ct.nii", "A_seg.nii", "A_pet.nii")
    patterns = [
        r"re:^(.*)_(.*)\.nii$::$p@instance::ct::@nifti:mod=ct",
        r"re:^(.*)_(.*)\.nii$::$p@instance::seg$roi::@nifti:mod=seg",
    ]
    found = match_structure(tmp_path, patterns, "p")
    assert [(file.path.name, file.meta) for file in found.instances[0].files] == [
        ("A_ct.nii", {"mod": "ct", "p": "A"}),
        ("A_seg.nii", {"mod": "seg", "p": "A", "roi": "seg"}),
    ]
    assert [path.name for path in found.unmatched] == ["A_pet.nii"]


def test_names_that_are_captured(tmp_path):
    grow(tmp_path, "img.nrrd", "other.nrrd")
    assert match(tmp_path, ["img.nrrd$p@instance@nrrd:mod=ct"], "p") == (
        {"img.nrrd": [("img.nrrd", "nrrd")]},
        ["other.nrrd"],
    )


def test_name_beats_placeholder_and_expression_beats_name(tmp_path):
    grow(tmp_path, "A/ct/1", "special/ct/1", "special/mr/1", "special2/ct/1", "special2/pt/1")
    patterns = [
        "$p@instance/ct@dicom:mod=ct",
        "special$p@instance/mr@dicom:mod=mr",
        "special2$p@instance/ct@dicom:mod=ct",
        "re:(special2)::$p/pt@dicom:mod=pt",
    ]
    assert match(tmp_path, patterns, "p") == (
        {
            "A": [("A/ct", "dicom")],
            "special": [("special/mr", "dicom")],
            "special2": [("special2/pt", "dicom")],
        },
        ["special/ct/1", "special2/ct/1"],
    )


def test_name_beats_placeholder_among_files(tmp_path):
    grow(tmp_path, "A/CT.nii", "A/GTV.nii")
    found = match_structure(
        tmp_path, ["$p@instance/$roi@nifti:mod=seg", "$p/CT.nii@nifti:mod=ct"], "p"
    )
    assert [file.meta for file in found.instances[0].files] == [
        {"mod": "ct", "p": "A"},
        {"mod": "seg", "p": "A", "roi": "GTV.nii"},
    ]


def test_one_key_has_one_value(tmp_path):
    grow(tmp_path, "A/A/ct.nrrd", "A/B/ct.nrrd", "B/B/ct.nrrd")
    assert match(tmp_path, ["$p/$p@instance/ct.nrrd@nrrd:mod=ct"], "p") == (
        {"A": [("A/A/ct.nrrd", "nrrd")], "B": [("B/B/ct.nrrd", "nrrd")]},
        ["A/B/ct.nrrd"],
    )
    assert match(tmp_path, [r"$p/re:(\w)::$p/ct.nrrd@nrrd:mod=ct"], "p")[1] == ["A/B/ct.nrrd"]
    assert match(tmp_path, [r"re:(.)(.)::$p::$p@nrrd:mod=ct"], "p")[0] == {}


def test_two_declarations_of_one_file(tmp_path):
    grow(tmp_path, "A/x.nrrd", "A/y.json")
    patterns = [
        "$p/x.nrrd@instance@nrrd:mod=ct@NRRD:mod=ct",
        "$p/x.nrrd@nrrd:mod=ct:phase=late",
        "$p/y.json@json",
    ]
    (instance,) = match_structure(tmp_path, patterns, "p").instances
    assert [file.meta for file in instance.files] == [
        {"mod": "ct", "p": "A"},
        {"mod": "ct", "phase": "late", "p": "A"},
        {"p": "A"},
    ]


def test_attributes_of_marks(tmp_path):
    grow(tmp_path, "A/CT.nrrd", "A/a.json", "B/a.json")
    patterns = ["$p/CT.nrrd@instance:cohort=x:site=y=z@nrrd:mod=ct", "$p/a.json@json"]
    assert attributes(tmp_path, patterns, "p") == {
        "A": {"p": "A", "cohort": "x", "site": "y=z"},
        "B": {"p": "B"},
    }
    assert attributes(tmp_path, ["CT.nrrd@instance:p=all@nrrd"], "p") == {}
    grow(tmp_path, "CT.nrrd")
    assert attributes(tmp_path, ["CT.nrrd@instance:p=all@nrrd"], "p") == {"all": {"p": "all"}}


def test_folders_of_dicom_and_what_lies_below(tmp_path):
    grow(tmp_path, "A/1.dcm", "A/seg/s.dcm", "A/seg/other/x.dcm", "lone.dcm", "B/ct.nrrd/x")
    patterns = ["$p@instance@dicom:mod=ct", "$p/seg/s.dcm@dicomseg:mod=seg"]
    assert match(tmp_path, patterns, "p") == (
        {
            "A": [("A", "dicom"), ("A/seg/s.dcm", "dicomseg")],
            "B": [("B", "dicom")],
            "lone.dcm": [("lone.dcm", "dicom")],
        },
        [],
    )
    # A folder is no NRRD file, whatever its name.
    assert match(tmp_path, ["$p@instance/ct.nrrd@nrrd:mod=ct"], "p") == (
        {"A": [], "B": []},
        ["A/1.dcm", "A/seg/other/x.dcm", "A/seg/s.dcm", "B/ct.nrrd/x", "lone.dcm"],
    )


def test_marks_alone_take_no_file(tmp_path):
    grow(tmp_path, "A/x.txt", "note.txt")
    assert match(tmp_path, ["$p@instance"], "p") == ({"A": []}, ["A/x.txt", "note.txt"])


def test_hidden_entries(tmp_path):
    grow(tmp_path, "A/CT.nrrd", "A/._CT.nrrd", ".DS_Store", "__MACOSX/A/CT.nrrd", ".git/x/CT.nrrd")
    assert match(tmp_path, ["$p/CT.nrrd@nrrd"], "p") == ({"A": [("A/CT.nrrd", "nrrd")]}, [])


def test_slashes_and_colons_inside_an_expression(tmp_path):
    grow(tmp_path, "A@1/x.nrrd")
    pattern = "re:([^/]+)@1::$p@instance/re:[^/:]+\\.nrrd::@nrrd:mod=ct"
    assert match(tmp_path, [pattern], "p") == ({"A": [("A@1/x.nrrd", "nrrd")]}, [])


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("a..b", r"re:a(.*)b::$p@nrrd"),
        ("a.b", r"re:a(.*)b::$p@nrrd"),
        ("ab", r"re:a(.*)b::$p@nrrd"),
        ("ab", r"re:ab(c)?::$p@nrrd"),
    ],
)
def test_ids_that_are_no_names(tmp_path, name, pattern):
    assert match(grow(tmp_path, name), [pattern], "p") == ({}, [name])


# --- the file system ----------------------------------------------------------------------


def test_links(tmp_path):
    grow(tmp_path, "store/CT.nrrd", "in/B/CT.nrrd")
    folder = tmp_path / "in"
    (folder / "A").symlink_to(tmp_path / "store")
    (folder / "B/loop").symlink_to(folder)
    (folder / "B/up").symlink_to(folder / "B")
    (folder / "C").mkdir()
    (folder / "C/CT.nrrd").symlink_to(tmp_path / "gone")
    (folder / "D").symlink_to(folder / "D")
    files, unmatched = match(folder, ["$p/CT.nrrd@nrrd"], "p")
    assert files == {name: [(f"{name}/CT.nrrd", "nrrd")] for name in "ABC"}
    assert unmatched == ["B/loop", "B/up", "D"]

    found = match_structure(folder, ["$p/$q/$r/CT.nrrd@nrrd"], "p")
    assert folder / "B/up" in found.unmatched
    assert [(notice.code, notice.message) for notice in found.notices] == [
        (
            "folder_loop",
            f"Folder {folder}/B/{name} leads back to a folder above it and was not entered.",
        )
        for name in ("loop", "up")
    ]


def test_pipes_are_not_opened(tmp_path):
    grow(tmp_path, "A/")
    os.mkfifo(tmp_path / "A/CT.nrrd")
    assert match(tmp_path, ["$p/CT.nrrd@nrrd"], "p") == ({"A": []}, ["A/CT.nrrd"])


def close(monkeypatch, *closed):
    """Make folders unreadable, also for a superuser."""
    listdir = os.listdir

    def refuse(path):
        if path in closed:
            raise PermissionError(13, "Permission denied")
        return listdir(path)

    monkeypatch.setattr(structure.os, "listdir", refuse)


def test_unreadable_folders(tmp_path, monkeypatch):
    grow(tmp_path, "A/CT.nrrd", "A/more/x", "B/CT.nrrd")
    close(monkeypatch, tmp_path / "A/more", tmp_path / "B")
    assert match(tmp_path, CENTROIDS) == (
        {"A": [("A/CT.nrrd", "nrrd")], "B": []},
        ["A/more", "B"],
    )
    found = match_structure(tmp_path, CENTROIDS, "patientID")
    assert [(notice.code, notice.message) for notice in found.notices] == [
        (
            "unreadable_folder",
            f"Folder {tmp_path / name} cannot be read (Permission denied); mend its permissions.",
        )
        for name in ("A/more", "B")
    ]


def test_unreadable_input(tmp_path, monkeypatch):
    close(monkeypatch, tmp_path)
    with pytest.raises(InputNotFoundError, match=r"cannot be read \(Permission denied\); mend its"):
        match_structure(tmp_path, CENTROIDS, "patientID")


def test_absent_input(tmp_path):
    for folder in (tmp_path / "none", grow(tmp_path, "file") / "file"):
        with pytest.raises(InputNotFoundError, match=f"input folder {folder} does not exist"):
            match_structure(folder, CENTROIDS, "patientID")
    with pytest.raises(InputNotFoundError, match=r"cannot be read \(File name too long\); mend"):
        match_structure(tmp_path / ("x" * 300), CENTROIDS, "patientID")


def test_paths_longer_than_the_system_takes(tmp_path):
    here, name = Path.cwd(), "x" * 200
    try:
        os.chdir(tmp_path)
        for _ in range(25):
            Path(name).mkdir()
            os.chdir(name)
    finally:
        os.chdir(here)
    found = match_structure(tmp_path, CENTROIDS, "patientID")
    assert [instance.instance_id for instance in found.instances] == [name]
    (last,) = found.unmatched
    assert set(last.relative_to(tmp_path).parts) == {name}


# --- patterns that cannot be used ---------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "its segment '' is neither a name nor $ and a word"),
        ("/$p/x@nrrd", "its segment '' is neither a name nor $ and a word"),
        ("$p//x@nrrd", "its segment '' is neither a name nor $ and a word"),
        ("$p/@nrrd", "its segment '@nrrd' is neither a name nor $ and a word"),
        ("$/x@nrrd", "its segment '$' is neither a name nor $ and a word"),
        ("$p q/x@nrrd", "its segment '$p q' is neither a name nor $ and a word"),
        ("$p/a$b$c@nrrd", "its segment 'a$b$c@nrrd' is neither a name nor $ and a word"),
        ("$p/../x@nrrd", "it names '..', but hidden entries are never looked at"),
        ("$p/.x@nrrd", "it names '.x', but hidden entries are never looked at"),
        ("__MACOSX/$p@nrrd", "it names '__MACOSX', but hidden entries are never looked at"),
        ("$p/x.nrrd", "it declares nothing; end it with @<file type>:<key>=<value>"),
        ("$p/re:x@nrrd", "a regular expression in it is not closed by ::"),
        ("re:(x)/re:y::@nrrd", "a regular expression in it is not closed by ::"),
        ("$p/re:(::@nrrd", "its regular expression is none (missing ), unterminated subpattern"),
        ("re:x::$p@nrrd", "its regular expression has no group 1"),
        ("re:(x)::a b$c d@nrrd", "its part 'a b$c d' is not $ and a word"),
        ("$p/x@nrdd:mod=ct", "@nrdd is neither @instance nor one of csv, dicom, dicomseg, json,"),
        ("$p@bundle/x@nrrd", "it makes a bundle, which is not supported; leave that out"),
        ("$p@/x@nrrd", "it makes a bundle, which is not supported; leave that out"),
        ("$p/x@nrrd:mod", "'mod' is not <key>=<value>"),
        ("$p/x@nrrd:=ct", "'=ct' is not <key>=<value>"),
        ("$p@instance:q=../x@nrrd", "'q=..' is not <key>=<value>"),
        ("x@nrrd", "its data have no p, which import_id asks for; capture it as $p in a folder"),
        ("x@dicom/$p/y@nrrd", "its data have no p, which import_id asks for; capture it as $p in"),
        ("$p@instance:p=x/y@nrrd", "it gives p a value, though a pattern takes it from names"),
    ],
)
def test_unusable_patterns(tmp_path, pattern, problem):
    with pytest.raises(StructurePatternError) as caught:
        match_structure(tmp_path, [pattern], "p")
    assert caught.value.code == "structure_pattern"
    assert str(caught.value).startswith(f"Structure pattern {pattern!r} cannot be used: {problem}")


@pytest.mark.parametrize("import_id", ["", "a/", "../a", "$p"])
def test_unusable_import_id(tmp_path, import_id):
    with pytest.raises(StructurePatternError, match="is no attribute name; write patientID, or"):
        match_structure(tmp_path, CENTROIDS, import_id)


def test_no_patterns(tmp_path):
    with pytest.raises(StructurePatternError, match="There is no structure pattern; give"):
        match_structure(tmp_path, [], "p")


def test_patterns_that_contradict_each_other(tmp_path):
    grow(tmp_path, "A/x.nrrd")
    patterns = ["$p@instance:cohort=x/x.nrrd@nrrd", "$p@instance:cohort=y/x.json@json"]
    with pytest.raises(StructurePatternError, match="give the attribute cohort two values at"):
        match_structure(tmp_path, patterns, "p")


def test_segments_of_a_pattern():
    folder, file = parse_pattern(r"$p@instance/re:^a/(b)::c$d::@nrrd:mod=ct")
    assert (folder.key, folder.marks_instance, folder.rank) == ("p", True, 2)
    assert file.regex is not None
    assert file.regex.pattern == "^a/(b)"
    assert (file.group_texts, file.group_keys, file.rank) == (("c", ""), ("d", ""), 0)
