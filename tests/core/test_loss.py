"""Sub-center ArcFace against double loops over the papers' formulas, and at its limits."""

import functools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from miewid_core import loss
from miewid_core.loss import SubCenterArcFace, dynamic_margins


def head(weight, margins, scale=51.5, k=3):
    """A head with these sub-centers (C * K, D), of their dtype."""
    made = SubCenterArcFace(weight.shape[1], len(margins), torch.as_tensor(margins), scale, k)
    made.to(weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
    return made


def cosine(a, b):
    along = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = math.sqrt(sum(x * x for x in a)), math.sqrt(sum(y * y for y in b))
    return along / (lengths[0] * lengths[1])


def slow_loss(embeddings, labels, weight, margins, scale, k):
    """Deng et al. 2019 and 2020 in angles, one number at a time."""
    total = 0.0
    for embedding, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        logits = []
        for c, margin in enumerate(margins):
            centers = weight[c * k : c * k + k].tolist()
            angle = min(math.acos(max(-1, min(1, cosine(embedding, one)))) for one in centers)
            value = math.cos(angle)
            if c == label:
                if angle + margin <= math.pi:
                    value = math.cos(angle + margin)
                else:
                    value = math.cos(angle) - margin * math.sin(margin)
            logits.append(scale * value)
        highest = max(logits)
        total += highest + math.log(sum(math.exp(x - highest) for x in logits)) - logits[label]
    return total / len(labels)


@st.composite
def cases(draw):
    classes, k, size = (draw(st.integers(*r)) for r in ((1, 6), (1, 4), (2, 7)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    batch = draw(st.integers(1, 5))
    embeddings = torch.randn(batch, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(classes * k, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    margins = draw(st.lists(st.floats(0, 1.5), min_size=classes, max_size=classes))
    return embeddings, labels, weight, margins, draw(st.sampled_from([1.0, 8.0, 51.5])), k


@settings(max_examples=80, deadline=None)
@given(cases())
def test_loss_is_that_of_the_papers(case):
    embeddings, labels, weight, margins, scale, k = case
    expected = slow_loss(*case)
    doubles = head(weight, torch.tensor(margins, dtype=torch.float64), scale, k)
    # the slope is kept finite near a cosine of +-1, which costs some digits there
    assert doubles(embeddings, labels).item() == pytest.approx(expected, rel=1e-5, abs=2e-4)
    floats = head(weight.float(), margins, scale, k)
    found = floats(embeddings.float(), labels)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def plain(margin_of, seed=0, k=1):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    weight = torch.randn(4 * k, 9, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (6,), generator=generator)
    margins = torch.full((4,), margin_of, dtype=torch.float64)
    return embeddings, labels, weight, head(weight, margins, 20.0, k)


def test_one_center_and_equal_margins_are_arcface():
    embeddings, labels, weight, made = plain(0.5)
    angles = (functional.normalize(embeddings) @ functional.normalize(weight).T).arccos()
    assert (angles + 0.5 < math.pi).all()
    widened = angles + 0.5 * functional.one_hot(labels, 4)
    expected = functional.cross_entropy(20 * widened.cos(), labels)
    assert made(embeddings, labels).item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3])
def test_no_margin_is_cross_entropy_of_scaled_cosines(k):
    embeddings, labels, weight, made = plain(0.0, k=k)
    cosines = functional.normalize(embeddings) @ functional.normalize(weight).T
    best = torch.stack([cosines[:, c * k : c * k + k].amax(1) for c in range(4)], dim=1)
    expected = functional.cross_entropy(20 * best, labels)
    assert made(embeddings, labels).item() == pytest.approx(expected.item(), rel=1e-9)


def test_equal_sub_centers_are_one_center():
    embeddings, labels, weight, made = plain(0.3)
    threefold = head(weight.repeat_interleave(3, 0), made.margins, 20.0, 3)
    assert threefold(embeddings, labels).item() == pytest.approx(made(embeddings, labels).item())


@pytest.mark.parametrize("k", [1, 3])
def test_gradients_are_those_of_finite_differences(k):
    embeddings, labels, _, made = plain(0.4, seed=3, k=k)
    embeddings.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda e, w: torch.func.functional_call(made, {"weight": w}, (e, labels)),
        (embeddings, made.weight),
        fast_mode=True,
    )


def on_and_opposite(dtype=torch.float32):
    """Embeddings exactly on a target's only center, opposite it, on another's, and zero."""
    weight = torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0.6, 0.8, 0, 0]], dtype=dtype)
    embeddings = torch.stack([weight[0], -weight[0], weight[1], 3 * weight[2], 0 * weight[0]])
    return embeddings, torch.tensor([0, 0, 0, 2, 1]), weight


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_finite_on_and_opposite_a_center(dtype, autocast):
    embeddings, labels, weight = on_and_opposite()
    made = head(weight, [0.2, 0.5, 0.35], k=1)
    given_ = embeddings.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = made(given_, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert given_.grad.isfinite().all()
    assert made.weight.grad.isfinite().all()
    # near a cosine of 1 the sine is kept at 3e-4, not 0
    expected = slow_loss(
        embeddings[:4].double(), labels[:4], weight.double(), [0.2, 0.5, 0.35], 51.5, 1
    )
    found = made(embeddings.to(dtype)[:4], labels[:4]).item()
    assert found == pytest.approx(expected, rel=5e-3 if dtype == torch.bfloat16 else 1e-3)


def test_only_the_target_gets_the_margin():
    embeddings, labels, _, made = plain(0.5)
    for c in range(4):
        made.margins[c] = 1.0
        changed = (made(embeddings, labels) - plain(0.5)[3](embeddings, labels)).item()
        assert (changed > 0) == (c in labels.tolist())
        made.margins[c] = 0.5


def test_loss_grows_with_the_angle_up_to_the_far_side():
    """Also beyond pi - margin, where the cosine of the widened angle alone would fall again."""
    weight = torch.tensor([[1.0, 0], [0, 1.0]], dtype=torch.float64)
    made = head(weight, torch.tensor([0.5, 0.5], dtype=torch.float64), 4.0, 1)
    angles = torch.linspace(0.01, math.pi - 0.01, 200, dtype=torch.float64)
    points = torch.stack([angles.cos(), -angles.sin()], dim=1)
    losses = [made(point[None], torch.tensor([0])).item() for point in points]
    targets = [
        4 * (math.cos(a + 0.5) if a + 0.5 <= math.pi else math.cos(a) - 0.5 * math.sin(0.5))
        for a in angles.tolist()
    ]
    others = (-4 * angles.sin()).tolist()
    expected = [math.log1p(math.exp(o - t)) for o, t in zip(others, targets, strict=True)]
    assert losses == pytest.approx(expected, rel=1e-6)
    assert all(a > b for a, b in pairwise(targets))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_margins_fall_with_the_count_and_fill_the_range(counts):
    margins = dynamic_margins(np.array(counts)).tolist()
    assert all(math.isfinite(margin) for margin in margins)
    rarest, commonest = min(counts), max(counts)
    for count, margin in zip(counts, margins, strict=True):
        if rarest == commonest:
            expected = 0.35
        else:
            ends = rarest**-0.25, commonest**-0.25
            expected = 0.2 + 0.3 * (count**-0.25 - ends[1]) / (ends[0] - ends[1])
        assert margin == pytest.approx(expected, abs=1e-6)
    ordered = sorted(zip(counts, margins, strict=True))
    for (fewer, wide), (more, narrow) in pairwise(ordered):
        assert wide >= narrow
        assert (fewer == more) == (wide == narrow) or more > 1000


def test_margins_by_hand():
    assert dynamic_margins(np.array([16, 81, 1]), 0.1, 0.5).tolist() == pytest.approx(
        [0.1 + 0.4 * (1 / 2 - 1 / 3) / (1 - 1 / 3), 0.1, 0.5]
    )
    assert dynamic_margins(np.array([7, 7, 7])).tolist() == pytest.approx([0.35] * 3)
    assert dynamic_margins(np.array([3])).dtype == torch.float32


@pytest.mark.parametrize("counts", [[3, 0], [-1], [[1, 2]], [1.0, math.nan]])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match="at least 1"):
        dynamic_margins(np.array(counts))


def test_margins_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\), not \(4,\)"):
        SubCenterArcFace(5, 4, torch.zeros(3))


def test_initial_sub_centers_follow_the_generator():
    drawn = [
        SubCenterArcFace(8, 4, torch.zeros(4), generator=torch.Generator().manual_seed(s)).weight
        for s in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == (12, 8)


@pytest.mark.parametrize("classes", [2, 50, 12_000])
def test_initial_sub_centers_are_as_long_for_any_number_of_classes(classes):
    """1 / sqrt(3), so that heads of few and of many classes turn at one speed (Xavier's do not)."""
    generator = torch.Generator().manual_seed(classes)
    made = SubCenterArcFace(256, classes, torch.zeros(classes), generator=generator)
    assert made.weight.abs().max() <= 1 / 16
    assert made.weight.norm(dim=1).mean().item() == pytest.approx(3**-0.5, abs=0.02)
    assert made.weight.mean().item() == pytest.approx(0, abs=0.003)


def test_margins_travel_with_the_weights_but_are_not_learned():
    made = SubCenterArcFace(8, 4, torch.arange(4.0))
    assert dict(made.named_parameters()).keys() == {"weight"}
    assert made.state_dict().keys() == {"weight", "margins"}


def usual_loss(made, embeddings, labels):
    """As autograd differentiates it: all sub-centers normalised, all products, their highest."""
    unit = functional.normalize(embeddings)
    products = (made.scale * unit) @ functional.normalize(made.weight).T
    logits = products.unflatten(1, (-1, made.k)).max(2).values
    target = torch.arange(len(labels)), labels
    near, margin = logits[target] / made.scale, made.margins[labels]
    far = (1 - near.square()).clamp(min=1e-7).sqrt()
    moved = near * margin.cos() - far * margin.sin()
    widened = torch.where(near > -margin.cos(), moved, near - margin * margin.sin())
    logits[target] = made.scale * widened
    return functional.cross_entropy(logits, labels)


def gradients(computed, made, embeddings, labels):
    value = computed(embeddings, labels)
    return value.detach(), *torch.autograd.grad(value, [embeddings, made.weight])


@pytest.mark.parametrize(("classes", "size"), [(3, 16), (97, 256), (301, 1280)])
def test_gradients_are_those_of_autograd_alone(classes, size):
    """But for rounding, of single precision; a center of no length has no gradient."""
    generator = torch.Generator().manual_seed(classes)
    embeddings = torch.randn(31, size, generator=generator, requires_grad=True)
    labels = torch.randint(classes, (31,), generator=generator)
    margins = 0.5 * torch.rand(classes, generator=generator)
    made = SubCenterArcFace(size, classes, margins, generator=generator)
    with torch.no_grad():
        made.weight *= 9 * torch.rand(3 * classes, 1, generator=generator)
        made.weight[0] = 0
    ours = gradients(made, made, embeddings, labels)
    usual = gradients(functools.partial(usual_loss, made), made, embeddings, labels)
    for mine, theirs in zip(ours, usual, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize("part", [1, 100, 3 * 3 * 16, 7 * 3 * 16, 2**22])
def test_in_parts_of_any_size_the_gradients_are_the_same(part, monkeypatch):
    monkeypatch.setattr(loss, "PART", part)
    generator = torch.Generator().manual_seed(part)
    embeddings = torch.randn(9, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(20, (9,), generator=generator)
    made = SubCenterArcFace(16, 20, torch.full((20,), 0.3), generator=generator).double()
    ours = gradients(made, made, embeddings, labels)
    usual = gradients(functools.partial(usual_loss, made), made, embeddings, labels)
    for mine, theirs in zip(ours, usual, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
