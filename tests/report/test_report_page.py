from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from report_samples import failed, point, report_data, trial
from strict_html import parsed, stands_alone

from automc.candidate import Candidate, Step
from automc.report.data import effects
from automc.report.page import render_report
from automc.report.svg import Scale, _stair, front_svg, kernels_svg, scatter_svg, shown
from automc.report.terminal import front_table
from automc.search.fidelity import predicted_ms
from automc.trial import Failure, Figure, Trial

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(report_data())


def test_the_page_is_well_formed_and_stands_alone(page: str) -> None:
    found = stands_alone(page)
    assert {value for name, value in found.attributes if name == "xmlns"} == {"http://www.w3.org/2000/svg"}


def test_every_chart_is_xml_with_a_title_and_a_description(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) > 5
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.findtext(f"{SVG}title")
        assert root.findtext(f"{SVG}desc")


@pytest.mark.parametrize(
    "said",
    [
        "3.25 times as fast, at an accuracy that ties with the reference",
        "anchor: int8_depth",
        "outputs differ from torch by 0.31 of their range, 0.001 allowed",
        "every rank is full at 0.9: nothing to factorise",
        "latency_ms 2.6 to 3.1 exceeds 2.0",
        "download only: neither faster nor less memory",
        "energy per MAC and per byte, no counter is readable here",
        "resnet, mobilenet, vgg",
        "1.00 over 7",  # rank correlation of rung 0 with rung 1
        "at most 1 points worse than the reference",
        "nothing is said of them: fine_tune, tucker",
        "+3.0\u00a0%",  # the sample predicts 3 % too much
        "Conv int8 32×16×16",
        "71\u00a0%92\u00a0%96\u00a0%4.2\u00a0%0.99192\u00a0%",  # held-out shares, mean error, ranks
    ],
)
def test_the_page_says(said: str, page: str) -> None:
    assert said in parsed(page).text


def test_a_prediction_that_missed_is_marked_outside() -> None:
    wrong = Figure(0.9, 0.85, 0.95, "ms", "predicted", rung=2, coverage=1.0)
    item = point("pruned_int8", chosen=True)
    item = replace(item, figures={**item.figures, "predicted_latency_ms": wrong})
    text = parsed(render_report(report_data(points=[item, point("reference", anchor="reference")]))).text
    assert "outside" in text
    assert "+60.7\u00a0%" in text  # 0.9 / 0.56 = 1.607


def test_an_unknown_figure_is_never_a_number() -> None:
    item = point("pruned_int8", chosen=True)
    figures = {key: figure for key, figure in item.figures.items() if key not in ("speedup", "predicted_latency_ms")}
    text = parsed(render_report(report_data(points=[replace(item, figures=figures)]))).text
    assert "unknown" in text


def test_a_run_in_which_nothing_worked_still_has_a_page() -> None:
    rungs = report_data().rungs
    broken = [[item for item in rungs[0] if not item.ok], [], []]
    text = parsed(render_report(report_data(points=[], rungs=broken, kernels=[]))).text
    assert "No candidate reached the last rung" in text
    assert "parity" in text


def test_failures_alike_but_for_numbers_are_one_row_and_long_reasons_fold() -> None:
    long = "low_rank replaces no layer (" + "; ".join(f"conv{i}: predicted 0.{i} ms" for i in range(40)) + ")"
    trials = [failed("infeasible", long, Step.of("low_rank", rank=0.5)), trial("int8", 0)]
    screened = [
        (Candidate((Step.of("cp", rank=rank),)), Failure("screened", f"latency_ms {2 + rank} exceeds 2.0"))
        for rank in (0.25, 0.5, 0.75)
    ]
    page = render_report(report_data(rungs=[trials], rung_steps=[0], screened=screened))
    rows = re.findall(r"<tr><td><b>(\w+)</b>.*?<td class=\"n\">(\d+)</td>", page, flags=re.DOTALL)
    assert [row for row in rows if row[0] in ("screened", "infeasible")] == [("screened", "3"), ("infeasible", "1")]
    assert "latency_ms 2.25 exceeds 2.0" in page
    assert long in parsed(page).text
    assert page.count("<details>") == 1


def test_text_from_outside_cannot_become_markup() -> None:
    evil = Candidate((Step.of("x", note="<script>alert(1)</script>"),))
    rungs = [[replace(trial("int8", 0), candidate=evil)]]
    page = render_report(report_data(title="<b>&", rungs=rungs, rung_steps=[0], anchors={evil.id: "<i>"}))
    assert "script" not in parsed(page).tags
    assert "<b>&" in parsed(page).text


def test_five_hundred_candidates_stay_under_a_megabyte() -> None:
    def numbered(index: int) -> Trial:
        steps = (Step.of("channel_pruning", ratio=index / 1000), Step.of("int8_ptq"))
        accuracy = Figure(index / 500, 0.0, 1.0, "fraction", "measured", n=360, split="validation")
        figures = {**(trial("int8").figures or {}), "accuracy": accuracy}
        return replace(trial("int8"), candidate=Candidate(steps), figures=figures)

    many = [numbered(index) for index in range(500)]
    assert len(render_report(report_data(rungs=[many, many, many])).encode()) < 1_000_000


def test_negative_numbers_carry_a_true_minus_and_markup_stays_whole(page: str) -> None:
    assert not re.search(r"(?<![\w-])-\d", parsed(page).text)
    assert 'viewBox="0 0 880 470"' in page


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0.3, 1.9, 0, 100).ticks(6) == pytest.approx([0.5, 1.0, 1.5])  # 1.6 / 6 = 0.27, rounded up to 0.5
    assert Scale(0.0, 10.0, 0, 100).ticks(5) == pytest.approx([0, 2, 4, 6, 8, 10])
    assert Scale(0.0, 10.0, 0, 100)(2.5) == 25.0
    assert shown(-0.0) == "0"
    assert Scale.around([2.0, 2.0], 0, 100).low < 2.0 < Scale.around([2.0, 2.0], 0, 100).high


def test_the_front_names_anchors_and_chosen_and_every_point_once() -> None:
    root = ElementTree.fromstring(front_svg(report_data().points, standalone=True))
    texts = [element.text for element in root.iter(f"{SVG}text") if element.get("class") == "halo strong"]
    assert texts == ["1", "2 int8_depth", "3 chosen", "4", "5 int8", "6", "7 reference"]
    assert root.find(f"{SVG}style") is not None  # a file of its own carries its colours, dark ones too
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


def test_labels_of_close_points_do_not_lie_on_each_other() -> None:
    crowd = [
        replace(
            point("int8"),
            figures={
                "accuracy": Figure(0.95 + index / 10_000, 0.94, 0.96, "fraction", "measured", n=99, split="validation"),
                "latency_ms": Figure(0.5 + index / 1000, 0.4, 0.6, "ms", "measured", n=99),
            },
        )
        for index in range(8)
    ]
    root = ElementTree.fromstring(front_svg(crowd))
    labels = [e for e in root.iter(f"{SVG}text") if e.get("class") == "halo strong"]
    spots = [(float(e.get("x", "nan")), float(e.get("y", "nan"))) for e in labels]
    for index, (x, y) in enumerate(spots):
        for other_x, other_y in spots[:index]:
            assert abs(x - other_x) >= 7 or abs(y - other_y) >= 13


def test_the_stair_of_errors_goes_down_to_the_smallest() -> None:
    # x to the right, y downwards: the second spot is lower, so better, the third is further right and no lower
    spots = [(10.0, 50.0), (20.0, 80.0), (30.0, 60.0)]
    assert 'd="M10.0 50.0H20.0V80.0"' in _stair(spots, down=True)
    assert _stair(spots, down=False) == ""  # higher is better: the first beats both
    assert 'd="M10.0 80.0H20.0V50.0"' in _stair([(10.0, 80.0), (20.0, 50.0), (30.0, 60.0)], down=False)


def test_charts_of_nothing_are_empty_frames() -> None:
    for chart in (front_svg([]), scatter_svg([]), kernels_svg([], [], 0.0, "none")):
        assert ElementTree.fromstring(chart).tag == f"{SVG}svg"


def test_the_terminal_shows_the_front_with_unknown_as_unknown() -> None:
    from io import StringIO

    from rich.console import Console

    bare = replace(point("pruned"), figures={k: v for k, v in point("pruned").figures.items() if k != "speedup"})
    console = Console(file=StringIO(), width=160, color_system=None)
    console.print(front_table([point("half_int8", chosen=True), bare, point("int8", anchor="int8", on_front=False)]))
    rows = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert rows[1].split()[-7:] == ["int8_ptq", "0.330", "5.52", "+3.06", "101.7", "0.9432", "chosen"]
    assert "unknown" in rows[2]
    assert rows[3].rstrip().endswith("anchor int8, beaten")


def test_neither_report_nor_bundle_imports_torch_ray_or_onnxruntime() -> None:
    code = (
        "import sys, automc.report.page, automc.report.terminal, automc.bundle.write, automc.bundle.verify;"
        "print(sorted({'torch', 'ray', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def without_latency(trial: Trial) -> Trial:
    return replace(trial, figures={name: f for name, f in (trial.figures or {}).items() if name != "latency_ms"})


def test_a_trial_of_unknown_latency_comes_last_in_the_report_and_changes_no_effect() -> None:
    data = report_data()
    known = [trial for trial in data.rungs[-1] if trial.ok]
    mixed = [without_latency(known[0]), *known[1:]]
    assert sorted(mixed, key=predicted_ms)[-1] is mixed[0]
    assert render_report(replace(data, rungs=[*data.rungs[:-1], mixed]))
    blind = [without_latency(trial) for trial in known]
    page = render_report(replace(data, rungs=[blind], rung_steps=[0]))
    assert f"{len(blind)} of unknown latency are not drawn" in page
    assert {effect.latency for effect in effects([blind])} == {None}
