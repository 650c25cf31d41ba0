"""gfocal audit: with a tiny detector, and with detections made up where their content matters."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from gfocal.cli import audit, folding
from tests.cli.test_predict import CONFIG, ROOT
from tests.helpers.onnx_files import write_onnx
from tests.helpers.tiny import make_gfl
from tests.inspect.audit.test_auditing import BINS, DETECTIONS, DOCUMENT

OUTPUTS = ["audit.html", "audit.json", "cleaned.json", "predictions.json"]


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """A folder with config.py, weights.pth, instances.json and its two images."""
    monkeypatch.syspath_prepend(str(ROOT))
    torch.manual_seed(0)
    state = make_gfl(num_classes=2).state_dict()
    state["head.cls_logits.bias"] += 3  # some scores of 0.1
    torch.save({"model": state}, tmp_path / "weights.pth")
    text = CONFIG.replace("make_gfl)(", "make_gfl)(num_classes=2, ")
    text = text.replace("test_score_thresh=0.0", "test_score_thresh=0.5")
    (tmp_path / "config.py").write_text(text)
    (tmp_path / "instances.json").write_text(json.dumps(DOCUMENT, indent=3))
    rng = np.random.default_rng(0)
    for image in DOCUMENT["images"]:
        pixels = rng.integers(0, 255, (80, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / image["file_name"])
    return tmp_path


def command(files: Path, *more: str, output: str = "audit") -> list[str]:
    words = ["--config-file", f"{files}/config.py", "--weights", f"{files}/weights.pth"]
    return [*words, *data(files, output), "--workers", "0", "--num-gpus", "0", *more]


def data(files: Path, output: str = "audit") -> list[str]:
    words = ["--annotations", f"{files}/instances.json", "--images", f"{files}"]
    return [*words, "--output", f"{files}/{output}"]


@pytest.fixture
def made_up(monkeypatch):
    """The detections of the test of findings, in place of the detector's."""
    real = audit.predict_files

    def predict_files(predictor, images, output, settings, *, each, **options):
        def other(image, record):
            each(image, {"detections": DETECTIONS[image.id], "bins": BINS})

        return real(predictor, images, output, settings, each=other, **options)

    monkeypatch.setattr(audit, "predict_files", predict_files)


def read(path: Path):
    return json.loads(path.read_text())


def test_an_audit(files, capsys):
    before = (files / "instances.json").read_bytes()
    assert audit.main(command(files)) == 0
    assert sorted(os.listdir(files / "audit")) == OUTPUTS
    assert (files / "instances.json").read_bytes() == before
    rows = read(files / "audit/predictions.json")
    # Scores below the config's threshold count too. Category ids are the json's.
    assert rows and min(row["score"] for row in rows) < 0.5
    assert {row["category_id"] for row in rows} <= {3, 7}
    assert all("sides" not in row and "bbox_std" in row for row in rows)
    report = read(files / "audit/audit.json")
    settings = report["settings"]
    assert settings["annotations"] == f"{files}/instances.json"
    assert settings["weights"] == [f"{files}/weights.pth"] and settings["num_images"] == 2
    out = capsys.readouterr().out
    assert f"{len(report['findings'])} findings in 2 images" in out
    assert f"{files}/audit/audit.html" in out


def test_findings_of_made_up_detections(files, made_up):
    """The cleaned copy has the findings above the threshold; the page has the surest."""
    words = ["--threshold", "0.9", "--max-findings", "2"]
    assert audit.main(command(files, *words)) == 0
    report = read(files / "audit/audit.json")
    assert sum(report["counts"].values()) == len(report["findings"]) == 5
    sure = [x for x in report["findings"] if x["score"] >= 0.9]
    assert {x["kind"] for x in sure} == {"duplicate", "spurious"}
    ids = [x["id"] for x in read(files / "audit/cleaned.json")["annotations"]]
    assert ids == [10, 12, 13, 20, 21]
    page = (files / "audit/audit.html").read_text()
    assert page.count('class="item"') == 2 and "The surest 2 of 5 findings" in page
    assert "distributions" in page or '"p"' in page


def test_decisions(files, made_up, capsys):
    assert audit.main(command(files)) == 0
    findings = read(files / "audit/audit.json")["findings"]
    number = {x["kind"]: x["id"] for x in findings}
    chosen = {"wrong_class": "accept", "duplicate": "reject", "spurious": "skip"}
    rows = [{"id": number[kind], "decision": word} for kind, word in chosen.items()]
    (files / "d.json").write_text(json.dumps({"page": "x", "decisions": rows}))
    words = ["--annotations", f"{files}/instances.json", "--output", f"{files}/audit"]
    words += ["--decisions", f"{files}/d.json"]
    assert audit.main(words) == 0
    assert "cleaned.json: 1 findings applied" in capsys.readouterr().out
    expected = json.loads(json.dumps(DOCUMENT))
    expected["annotations"][2]["category_id"] = 7
    assert read(files / "audit/cleaned.json") == expected

    (files / "d.json").write_text('{"decisions": [{"id": 77, "decision": "accept"}]}')
    with pytest.raises(SystemExit, match=r"d\.json: audit\.json has no finding 77"):
        audit.main(words)
    (files / "broken.json").write_text("{")
    with pytest.raises(SystemExit, match=r"broken\.json is no json"):
        audit.main([*words[:-1], f"{files}/broken.json"])
    (files / "instances.json").write_text(json.dumps({**DOCUMENT, "extra": 0}))
    with pytest.raises(SystemExit, match="is not what was audited .* or it has changed since"):
        audit.main(words)
    (files / "audit/audit.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"is no audit\.json of gfocal audit"):
        audit.main(words)


def test_an_image_that_cannot_be_read(files, made_up, capsys):
    """It is told, the other is audited; the same command audits both when it is there."""
    pixels = (files / "1.png").read_bytes()
    (files / "1.png").write_bytes(b"no image")
    with pytest.raises(SystemExit) as end:
        audit.main(command(files))
    assert end.value.code == 1 and "1.png" in capsys.readouterr().err
    assert read(files / "audit/audit.json")["settings"]["num_images"] == 1
    (files / "1.png").write_bytes(pixels)
    assert audit.main(command(files)) == 0
    assert read(files / "audit/audit.json")["settings"]["num_images"] == 2
    with pytest.raises(SystemExit, match="which has an audit; --overwrite replaces it"):
        audit.main(command(files))
    assert audit.main(command(files, "--overwrite")) == 0


def test_an_onnx_file(files):
    """Without distributions and standard deviations."""
    write_onnx(files / "model.onnx")
    categories = [*DOCUMENT["categories"], {"id": 5, "name": "owl"}]
    (files / "instances.json").write_text(json.dumps({**DOCUMENT, "categories": categories}))
    words = ["--weights", f"{files}/model.onnx", *data(files), "--workers", "0"]
    assert audit.main(words) == 0
    settings = read(files / "audit/audit.json")["settings"]
    assert settings["bad_side_measured_in"] == "shares of the box's width and height"
    assert read(files / "audit/predictions.json")
    (files / "instances.json").write_text(json.dumps(DOCUMENT))
    with pytest.raises(
        SystemExit, match="has the categories cat, dog; the detector finds cat, dog, owl"
    ):
        audit.main([*words, "--overwrite"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, 'no list "annotations"'),
        ({"categories": DOCUMENT["categories"] + [{"id": 9, "name": "x"}]}, "has the categories"),
        ({"images": [{"id": n, "file_name": "no.png"} for n in (1, 2)]}, r"folder \(--images\)"),
    ],
)
def test_a_wrong_json(files, change, message):
    (files / "instances.json").write_text(json.dumps({**DOCUMENT, **change}))
    with pytest.raises(SystemExit, match=message):
        audit.main(command(files))
    assert not (files / "audit/audit.json").exists()


def test_an_output_that_is_a_file(files):
    (files / "audit").write_text("")
    with pytest.raises(SystemExit, match="a file; expected a folder"):
        audit.main(command(files))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--annotations", "a", "--output", "o", "--weights", "w"], "expected --images"),
        (["--images", "i"], "expected --weights, or --folds K with --config-file"),
        (["--images", "i", "--folds", "2"], "--folds trains: expected --config-file, and no"),
        (["--images", "i", "--folds", "1"], "--folds is 1; expected at least 2"),
        (["--decisions", "d", "--weights", "w"], "--decisions takes no --weights"),
        (["--weights", "w", "--images", "i", "--threshold", "2"], "--threshold is 2.0; expected"),
        (["--weights", "w", "--images", "i", "--max-findings", "-1"], "--max-findings is -1"),
        (["--weights", "w.ts", "--images", "i"], "expected .pth or .onnx"),
    ],
)
def test_options_that_contradict(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        audit.main(["--annotations", "a", "--output", "o", *words])
    assert end.value.code == 2 and message in capsys.readouterr().err


def fold_words(files: Path, *more: str) -> list[str]:
    words = ["--folds", "2", "--config-file", f"{files}/config.py", *data(files)]
    return [*words, "--workers", "0", "--num-gpus", "0", "--trust", "tests", *more]


def test_how_far_a_training_is(tmp_path, monkeypatch, capsys):
    """A line when it has got on since the last look. What an interrupted run left is not told."""
    log = tmp_path / "output.txt"
    log.write_text(" eta: 0:00:00  iter: 5999  total_loss: 9.9\n")
    written = iter(
        [
            "Model: ...\n",
            "[x] eta: 0:24:18  iter: 79  total_loss: 1.507  loss_cls: 0.4202  time: 1.5919\n",
            "no iteration\n",
            "eta: 1 day, 0:24:18  iter: 99  total_loss: 1.4\n iter: 119  total_loss: nan  lr: 1\n",
        ]
    )

    class Process(SimpleNamespace):
        def __init__(self, words, stdout, stderr):
            super().__init__(words=words, log=stdout, killed=False)
            processes.append(self)

        def wait(self, seconds=None):
            assert seconds or self.killed
            if (text := next(written, None)) is None:
                return self.words[0]
            self.log.write(text.encode())
            self.log.flush()
            raise subprocess.TimeoutExpired(self.words, seconds)

        def kill(self):
            self.killed = True

    processes: list[Process] = []
    monkeypatch.setattr(subprocess, "Popen", Process)
    assert folding._run([3], str(log), "fold 1 of 2") == 3
    assert capsys.readouterr().out.splitlines() == [
        "fold 1 of 2: iteration 79, total_loss 1.507, 0:24:18 left",
        "fold 1 of 2: iteration 119, total_loss nan",
    ]
    assert not processes[0].killed

    def interrupted(log, start):
        raise KeyboardInterrupt

    written = iter(["once more\n"])
    monkeypatch.setattr(folding, "_progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folding._run([0], str(log), "fold 1 of 2")
    assert processes[1].killed  # Ctrl+C ends the training too


def test_folds(files, made_up, monkeypatch, capsys):
    """Each image is predicted with the weights that did not see it; a fold that is trained is not
    trained again."""
    calls: list[list[str]] = []
    fails = True

    def train(words, log, name):
        calls.append(words)
        folder = Path(next(x for x in words if "output_dir" in x).partition("=")[2])
        if fails and folder.name == "fold1":
            Path(log).write_text("it began\nno memory\n\n")
            return 3
        state = torch.load(files / "weights.pth")
        from gfocal import load_config
        from gfocal.weights.description import KEY, describe

        state[KEY] = describe(load_config(files / "config.py")).plain()
        torch.save(state, folder / "model_final.pth")
        return 0

    monkeypatch.setattr(folding, "_run", train)
    words = fold_words(files, "train.max_iter=3")
    with pytest.raises(
        SystemExit, match="fold 1 of 2: the training ended with status 3: no memory"
    ):
        audit.main(words)
    assert len(calls) == 2 and not (files / "audit/audit.json").exists()
    fails = False
    assert audit.main(words) == 0
    assert "fold 0 is trained" in capsys.readouterr().out
    assert [x[x.index("--resume") :][0] for x in calls] == ["--resume"] * 3
    seen = [{x.partition("=")[0]: x.partition("=")[2] for x in call if "=" in x} for call in calls]
    assert seen[0]["train.max_iter"] == "3" and seen[0]["data.train_images"] == str(files)
    held = read(Path(seen[0]["data.val_json"]))["images"]
    trained = read(Path(seen[0]["data.train_json"]))["images"]
    assert len(held) == len(trained) == 1 and held != trained
    report = read(files / "audit/audit.json")
    assert report["settings"]["num_images"] == 2 and len(report["findings"]) == 5
    weights = [f"{files}/audit/fold{n}/model_final.pth" for n in (0, 1)]
    assert report["settings"]["weights"] == weights
    joined = read(files / "audit/predictions.json")
    parts = [read(files / f"audit/fold{n}/predictions.json") for n in (0, 1)]
    assert joined == parts[0] + parts[1]
    assert {x["image_id"] for x in parts[0]} == {held[0]["id"]}
    with pytest.raises(SystemExit, match=r"folds of other overrides \(folds.json\)"):
        audit.main(fold_words(files, "--overwrite"))


@pytest.mark.slow
def test_folds_for_real(files):
    """Two trainings of a small network."""
    config = ROOT / "configs/quick_start/small_coco.py"
    words = ["--folds", "2", "--config-file", str(config), *data(files), "--num-gpus", "0"]
    words += ["--workers", "0", "train.max_iter=2", "data.batch_size=1", "data.num_workers=0"]
    words += ["data.min_size=64", "train.eval_period=0"]
    assert audit.main(words) == 0
    assert read(files / "audit/audit.json")["settings"]["num_images"] == 2
    assert sorted(os.listdir(files / "audit")) == sorted([*OUTPUTS, "fold0", "fold1", "folds.json"])
    log = files / "audit/fold1/output.txt"
    assert folding._progress(str(log), 0).startswith("iteration 1, total_loss ")
    assert folding._progress(str(log), log.stat().st_size) == ""
