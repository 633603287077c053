"""Regenerated tables against committed ones, in a small git checkout."""

import json
import subprocess

import pandas as pd
import pytest

from miewid_core.__main__ import main
from miewid_core.files import ABOUT
from miewid_core.runs import manifest, verify

COMMITTED = pd.DataFrame(
    {
        "species": ["ant", "bee", "mean"],
        "queries": [10, 20, 30],
        "multi": [50.0, 60.0, 55.0],
        "multi_low": [40.0, 50.0, 45.0],
        "multi_high": [60.0, 70.0, 65.0],
        "multi_p": [0.1, 0.2, 0.3],
    }
)
CURVE = pd.DataFrame({"k": [1, 5], "top_k": [0.5, 0.75], "low": [0.4, 0.7], "high": [0.6, 0.8]})


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A committed folder of figures, as one notebook saved them."""
    about = {"notebook": "04_a.ipynb", "code": "c0de", "parameters": {}}
    monkeypatch.setenv(ABOUT, json.dumps(about))
    folder = tmp_path / "figures" / "demo"
    for name, table in {"table": COMMITTED, "curve": CURVE, "performance_now": CURVE}.items():
        manifest.save(folder, name, table)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "figures")
    return folder


def changed(folder, name="table", table=COMMITTED, **columns):
    manifest.save(folder, name, table.assign(**columns))
    return verify.verify(folder)


def test_unchanged_tables_are_equal(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(folder)])
    told = capsys.readouterr().out
    assert not stopped.value.code
    assert told.endswith("2 files equal, 0 within their intervals, 0 differ.\n")
    assert "1 of 1 notebooks have the committed entry" in told
    versions = manifest.read(folder)["04_a.ipynb"]["versions"]
    assert f"Now: commit {versions['commit'][:7]}, {versions['device']}" in told


def test_rounding_is_no_difference(folder):
    agrees, told = changed(folder, multi=[50.00000001, 60, 55])
    assert agrees
    assert told.endswith("2 files equal, 0 within their intervals, 0 differ.")


def test_numbers_inside_the_committed_interval_are_within(folder):
    moved = {"multi_low": [47.0, 57, 52], "multi_high": [67.0, 77, 72], "multi_p": [0.0, 0, 0]}
    agrees, told = changed(folder, multi=[57.0, 67.0, 62.0], **moved)
    assert agrees
    assert "table.csv: 3 numbers moved within their intervals, 0 differ" in told
    assert told.endswith("1 files equal, 1 within their intervals, 0 differ.")


def test_plain_ends_belong_to_the_column_on_their_left(folder):
    assert changed(folder, "curve", CURVE, top_k=[0.6, 0.7])[0]
    agrees, told = changed(folder, "curve", CURVE, top_k=[0.61, 0.75])
    assert not agrees
    assert "  row 1: 1, top_k: committed 0.5, now 0.61" in told


@pytest.mark.parametrize("end", [39.9, 60.1, float("nan")])
def test_a_number_outside_is_named(folder, capsys, end):
    changed(folder, multi=[end, 60, 55])
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(folder)])
    told = capsys.readouterr().out
    assert stopped.value.code == 1
    assert f"  row 1: ant, multi: committed 50, now {end:g}\n" in told
    assert told.endswith("1 files equal, 0 within their intervals, 1 differ.\n")


def test_a_number_without_an_interval_differs(folder):
    agrees, told = changed(folder, queries=[11, 20, 30])
    assert not agrees
    assert "row 1: ant, queries: committed 10, now 11" in told


def test_in_how_many_trainings_a_gain_has_its_sign_follows_the_gain():
    columns = b"species,gain,gain_low,gain_high,gain_same_sign\n"
    assert list(verify.compared(columns + b"a,2,1,4,3\n", columns + b"a,2,1,4,2\n")) == []


def test_rows_are_matched_by_their_texts(folder):
    assert changed(folder, table=COMMITTED.iloc[::-1])[0]
    agrees, told = changed(folder, species=["ant", "wasp", "mean"])
    assert not agrees
    assert "row 2: bee: committed a row, now missing" in told
    assert "row 2: wasp: committed missing, now a row" in told
    assert "multi" not in told


def test_an_empty_text_is_a_text_like_others():
    before, after = (f"who,why,n\na,,1\nb,x,{n}\n,,3\n".encode() for n in (2, 4))
    assert list(verify.compared(before, before)) == []
    assert [row[0] for row in verify.compared(before, after)] == ["2: b"]


def test_columns_of_one_alone_are_named(folder):
    agrees, told = changed(folder, table=COMMITTED.rename(columns={"queries": "photos"}))
    assert not agrees
    assert "  queries: committed a column, now missing" in told
    assert "  photos: committed missing, now a column" in told


def test_missing_and_new_files_are_named(folder):
    (folder / "curve.csv").unlink()
    agrees, told = changed(folder, "added")
    assert not agrees
    assert "curve.csv: 0 numbers moved within their intervals, 1 differ\n  file: committed" in told
    assert "  file: committed missing, now a file" in told
    assert told.endswith("1 files equal, 0 within their intervals, 2 differ.")


def test_measured_times_are_left_out(folder):
    agrees, told = changed(folder, "performance_now", CURVE, top_k=[9, 9])
    assert agrees
    assert "left out: performance_*.csv, and in other tables the columns fastest, photos" in told
    rates = [b"network,photos_per_second\na,%d\n" % rate for rate in (1, 2)]
    assert list(verify.compared(*rates)) == []


def test_many_differences_are_counted(folder):
    long = pd.DataFrame({"x": range(20)})
    before, after = (long.add(i).to_csv(index=False).encode() for i in (0, 1))
    assert len(list(verify.compared(before, after))) == 20
    changed(folder, "long", long)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "more")
    told = changed(folder, "long", long + 1)[1]
    assert told.count("  row ") == verify.SHOWN
    assert "  and 15 more" in told


def test_a_split_with_its_digest_and_a_list_of_many_encodings():
    before = b"# sha256=0\nannotation_id,part\na,train\nb,test\n"
    after = before.replace(b"b,test", b"b,train").replace(b"=0", b"=1")
    assert [row[0] for row in verify.compared(before, after)] == ["2: b", "2: b"]
    assert list(verify.compared("\ufeffid,n\né,1\n".encode(), "\ufeffid,n\né,1.0\n".encode())) == []


def test_a_file_saved_by_hand_is_told(folder, monkeypatch):
    monkeypatch.delenv(ABOUT)
    told = changed(folder, multi=[51.0, 60, 55])[1]
    assert "Changed since the command line ran their notebooks: table.csv, table.md." in told


def refused(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(folder)])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_without_git_or_a_checkout_it_says_so(folder, tmp_path, monkeypatch, capsys):
    assert "there is no folder" in refused(folder / "none", capsys)
    outside = tmp_path / "outside"
    outside.mkdir()
    assert "git has no committed MANIFEST.json in" in refused(outside, capsys)
    monkeypatch.setenv("PATH", str(outside))
    assert "git is not installed" in refused(folder, capsys)
