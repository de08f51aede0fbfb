"""Plans replay: on real tensors they slice weights, on meta tensors shapes alone, and never touch their input."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from automc.errors import CompressionError
from automc.techniques.edits import apply_edits
from automc.techniques.plan import LayerSpec, QuantiseEdit, RemoveEdit, ReplaceEdit, SliceEdit


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1))


def test_a_slice_keeps_the_named_channels_of_weights_biases_and_statistics() -> None:
    model = chain()
    nn.init.normal_(model[1].running_mean)
    keep = (1, 3)
    sliced = apply_edits(
        model,
        [
            SliceEdit(module="0", axis="out", keep=keep),
            SliceEdit(module="1", axis="out", keep=keep),
            SliceEdit(module="2", axis="out", keep=keep),
            SliceEdit(module="3", axis="in", keep=keep),
        ],
    )
    assert torch.equal(sliced[0].weight, model[0].weight[[1, 3]])
    assert torch.equal(sliced[0].bias, model[0].bias[[1, 3]])
    assert torch.equal(sliced[1].running_mean, model[1].running_mean[[1, 3]])
    assert (sliced[2].groups, sliced[2].in_channels, tuple(sliced[2].weight.shape)) == (2, 2, (2, 1, 3, 3))
    assert torch.equal(sliced[3].weight, model[3].weight[:, [1, 3]])
    assert sliced(torch.zeros(1, 3, 8, 8)).shape == (1, 2, 4, 4)
    assert model[0].out_channels == 4


def test_inputs_of_a_grouped_convolution_are_sliced_per_group() -> None:
    # 2 groups of 3 inputs each; keeping 0 and 2 of each group leaves 4 inputs
    model = nn.Sequential(nn.Conv2d(6, 4, 1, groups=2))
    sliced = apply_edits(model, [SliceEdit(module="0", axis="in", keep=(0, 2))])
    assert sliced[0].in_channels == 4
    assert torch.equal(sliced[0].weight, model[0].weight[:, [0, 2]])


def test_groups_that_would_keep_unequal_numbers_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(CompressionError, match=r"unequal numbers of channels \[2, 1\]"):
        apply_edits(model, [SliceEdit(module="0", axis="out", keep=(0, 1, 2))])


def test_a_transposed_convolution_is_sliced_along_its_own_axes() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 2))
    sliced = apply_edits(model, [SliceEdit(module="0", axis="out", keep=(0, 3))])
    assert torch.equal(sliced[0].weight, model[0].weight[:, [0, 3]])
    assert sliced(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 5, 5)


def test_a_frozen_parameter_stays_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 3).requires_grad_(False))
    sliced = apply_edits(model, [SliceEdit(module="0", axis="out", keep=(0,))])
    assert not sliced[0].weight.requires_grad


def test_replaced_layers_are_built_with_their_shapes_and_a_removed_module_is_the_identity() -> None:
    first = LayerSpec(type="conv2d", in_channels=3, out_channels=2, kernel=(3, 1), padding=(1, 0))
    second = LayerSpec(type="conv2d", in_channels=2, out_channels=4, kernel=(1, 3), padding=(0, 1), bias=True)
    edited = apply_edits(chain(), [ReplaceEdit(module="0", layers=(first, second)), RemoveEdit(module="1")])
    assert [tuple(layer.weight.shape) for layer in edited[0]] == [(2, 3, 3, 1), (4, 2, 1, 3)]
    assert (edited[0][0].bias is None, edited[0][1].bias is None) == (True, False)
    assert isinstance(edited[1], nn.Identity)
    assert all(not parameter.any() for parameter in edited[0].parameters())


def test_on_meta_tensors_shapes_are_those_of_real_ones() -> None:
    edits = [
        SliceEdit(module="0", axis="out", keep=(0, 2)),
        SliceEdit(module="1", axis="out", keep=(0, 2)),
        SliceEdit(module="2", axis="out", keep=(0, 2)),
        ReplaceEdit(module="3", layers=(LayerSpec(type="conv2d", in_channels=2, out_channels=2, kernel=(1, 1)),)),
    ]
    real = apply_edits(chain(), edits)
    meta = apply_edits(chain().to("meta"), edits)
    shapes = {name: tensor.shape for name, tensor in real.state_dict().items()}
    assert {name: tensor.shape for name, tensor in meta.state_dict().items()} == shapes
    assert all(tensor.is_meta for tensor in meta.state_dict().values())


def test_the_input_is_left_as_it_was() -> None:
    model = chain()
    before = copy.deepcopy(model.state_dict())
    apply_edits(model, [SliceEdit(module="0", axis="out", keep=(0,)), RemoveEdit(module="1")])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert isinstance(model[1], nn.BatchNorm2d)


class Nested(nn.Module):
    """The same linear layer under two names, and another one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        self.again = self.body[0]
        self.other = nn.Sequential(nn.Linear(2, 2))


def test_shapes_alone_are_shared_but_for_what_is_edited_and_what_holds_it() -> None:
    model = Nested().to("meta")
    edited = apply_edits(model, [SliceEdit(module="body.0", axis="in", keep=(0, 1))])
    assert (edited.body[0].in_features, model.body[0].in_features) == (2, 4)
    assert tuple(model.body[0].weight.shape) == (4, 4)
    assert edited.again is edited.body[0]
    assert edited.other is model.other  # nothing in it is edited
    assert edited.body[1] is model.body[1]
    assert edited.body is not model.body
    removed = apply_edits(model, [RemoveEdit(module="other.0")])
    assert isinstance(removed.other[0], nn.Identity)
    assert isinstance(model.other[0], nn.Linear)
    assert apply_edits(model, []) is not model


class Listed(nn.Module):
    """Calls its layers through a list that is no part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.order = [self.first, self.second]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.order:
            x = layer(x)
        return x


def test_modules_that_are_kept_in_a_list_as_well_are_copied_whole() -> None:
    model = Listed().to("meta")
    edits = [SliceEdit(module="first", axis="out", keep=(0, 3)), SliceEdit(module="second", axis="in", keep=(0, 3))]
    edited = apply_edits(model, edits)
    assert edited.order[0] is edited.first
    assert tuple(edited(torch.empty(1, 4, device="meta")).shape) == (1, 2)
    assert model.order[0].out_features == 4


def test_real_weights_are_never_shared() -> None:
    model = chain()
    edited = apply_edits(model, [RemoveEdit(module="1")])
    assert edited[0] is not model[0]
    assert edited[0].weight.data_ptr() != model[0].weight.data_ptr()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (SliceEdit(module="nowhere", axis="out", keep=(0,)), "no module called 'nowhere'"),
        (SliceEdit(module="0", axis="out", keep=(0, 4)), r"cannot keep channels \(0, 4\) of 4"),
        (SliceEdit(module="2", axis="in", keep=(0,)), "depthwise"),
        (QuantiseEdit(tensor="w", dtype="int8", scale=(1.0,), zero_point=(0,)), "exported graph"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit: SliceEdit | QuantiseEdit, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        apply_edits(chain(), [edit])


@pytest.mark.parametrize("keep", [(), (1, 0), (1, 1), (-1, 0)])
def test_a_slice_that_is_not_sorted_and_unique_is_no_edit(keep: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="sorted, unique"):
        SliceEdit(module="0", axis="out", keep=keep)


def test_live_state_must_come_off_before_a_slice() -> None:
    model = chain()
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Identity())
    with pytest.raises(CompressionError, match="live state"):
        apply_edits(model, [SliceEdit(module="0", axis="out", keep=(0,))])
