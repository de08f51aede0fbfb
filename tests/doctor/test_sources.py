"""Errors and calls are traced to the module and the line of the user's, not to torch's or ours."""

from __future__ import annotations

import pytest
import torch
from odd_networks import Branching, Complains, Complaint, Plain, line_of
from torch import nn

from automc.cost.trace import traced
from automc.errors import ExportError, UnseenOperatorError
from automc.export import export_onnx
from automc.sources import Site, call_sites, forward_site, site_of_error

INPUTS = (torch.zeros(1, 3, 8, 8),)


def test_control_flow_on_values_is_found_in_a_trace_and_behind_an_export() -> None:
    model = Branching().eval()
    with pytest.raises(UnseenOperatorError) as in_trace:
        traced(model, INPUTS)
    with pytest.raises(ExportError) as in_export:
        export_onnx(model, INPUTS)
    for error in (in_trace.value, in_export.value):
        site = site_of_error(error, model)
        assert site.module == "blocks.0"
        assert site.code == "if y.mean() > 0:"
        assert site.where.endswith(line_of("if y.mean() > 0:"))


def test_a_layer_that_does_not_fit_is_named_with_the_line_that_calls_it() -> None:
    model = Plain().eval()
    model.head = nn.Linear(5, 4)
    with pytest.raises(RuntimeError) as caught:
        model(*INPUTS)
    site = site_of_error(caught.value, model)
    assert site.module == "head"
    assert site.code.startswith("return self.head(F.adaptive_avg_pool2d(")


def test_an_error_of_nobodys_network_has_no_place() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int("no number")
    assert site_of_error(caught.value, Plain()) == Site()


def test_every_module_is_found_with_the_line_that_calls_it_first_and_the_mode_is_kept() -> None:
    model = Branching().train()
    found = call_sites(model, INPUTS)
    assert found["stem"].where.endswith(line_of("x = self.blocks(F.relu(self.stem(x)))"))
    assert found["blocks.1.conv"].where.endswith(line_of("y = self.conv(x)"))
    assert all(module.training for module in model.modules())


def test_torchs_own_classes_have_no_line_of_the_users() -> None:
    assert forward_site("layer", nn.Linear(2, 2)) == Site("layer")
    assert forward_site("", Plain()).line > 0
    assert str(Site("layer")) == "layer"
    assert str(Site("")) == "the network itself"


def test_what_a_network_raises_on_shapes_alone_is_an_unseen_operator_and_what_we_raise_is_not_turned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Reads(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.from_numpy(x.numpy()))

    with pytest.raises(UnseenOperatorError, match="Reads does not run on shapes alone"):
        traced(Reads().eval(), INPUTS)

    with pytest.raises(Complaint):
        traced(Complains().eval(), INPUTS, batch=2)
    monkeypatch.setattr("automc.cost.recorder.Recorder.node", None)
    with pytest.raises(TypeError, match="not callable"):
        traced(Plain().eval(), INPUTS)
