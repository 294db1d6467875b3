import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.data.pairs import Pair, PairDataset
from engine.errors import DataError, InvalidSpec, NonFiniteLoss
from engine.families import Albef, Encoding, Fused, PairModel, families
from engine.inputs import Inputs
from engine.tasks import Retrieval, RetrievalRecipe, TrainingRecipe
from engine.tasks.retrieval import contrastive_loss, hard_negatives


@pytest.fixture
def model(tiny: Callable[..., PairModel]) -> PairModel:
    return tiny("albef")


@pytest.fixture
def inputs(model: PairModel, image_data: PairDataset) -> Inputs:
    return Inputs(model, image_data)


def with_pairs(data: PairDataset, plan: list[tuple[int, str]]) -> PairDataset:
    """Pairs (number of an image of ``data``, text), all of them training pairs."""
    source = data.pairs
    pairs = [
        Pair(f"n{row}", source[image].items, source[image].item_ids, text, f"t{row}", None, "train")
        for row, (image, text) in enumerate(plan)
    ]
    return replace(data, pairs=pairs)


def test_the_contrastive_loss_of_two_pairs_is_the_one_by_hand() -> None:
    # Rows: log(1 + e^(0-2)) and log(1 + e^(1-1)); columns: log(1 + e^(1-2)) and log(1 + e^(0-1)).
    similarity = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    by_row = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    by_column = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-1))) / 2
    value = contrastive_loss(similarity, torch.eye(2, dtype=torch.bool))
    assert value.item() == pytest.approx((by_row + by_column) / 2, rel=1e-6)


def test_equal_captions_share_the_contrastive_target() -> None:
    # With all four related and equal similarities the target is uniform: log 2 each way.
    value = contrastive_loss(torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool))
    assert value.item() == pytest.approx(math.log(2), rel=1e-6)


def test_a_hard_negative_is_never_a_related_one() -> None:
    torch.manual_seed(0)
    related = torch.eye(6, dtype=torch.bool)
    related[0, 1] = related[1, 0] = True
    similarity = 50 * related.float()
    for _ in range(30):
        columns, possible = hard_negatives(similarity, related)
        assert possible.all()
        assert not related[torch.arange(6), columns].any()


def test_the_more_similar_negative_is_drawn_more_often() -> None:
    torch.manual_seed(0)
    related = torch.tensor([[True, False, False]])
    similarity = torch.tensor([[9.0, 3.0, 0.0]])
    drawn = [hard_negatives(similarity, related)[0].item() for _ in range(400)]
    # By similarity e^3 to 1, probability 0.953, in half of the draws; else one of two: 0.726 in all.
    assert 0.65 < drawn.count(1) / 400 < 0.80


def test_a_row_without_any_unrelated_column_gives_no_negative() -> None:
    related = torch.tensor([[True, True], [True, False]])
    columns, possible = hard_negatives(torch.zeros(2, 2), related)
    assert possible.tolist() == [False, True]
    assert columns.tolist() == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_similarities_that_are_not_finite_draw_no_negative_and_say_so(value: float) -> None:
    similarity = torch.zeros(2, 2)
    similarity[0, 1] = value
    with pytest.raises(NonFiniteLoss, match="2 of 4 are not"):
        hard_negatives(similarity, torch.zeros(2, 2, dtype=torch.bool))


@pytest.mark.parametrize("part", ["text_projection", "head"])
def test_a_model_that_diverged_has_no_recall(model: PairModel, inputs: Inputs, part: str) -> None:
    rows = torch.arange(8)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(part):
                weight.fill_(math.nan)
    for measure in (Retrieval().utility, Retrieval().validate):
        with pytest.raises(NonFiniteLoss, match="must be finite"):
            measure(model, inputs, rows)


def test_a_negative_of_vanishing_weight_can_still_be_drawn() -> None:
    related = torch.tensor([[True, False, True]])
    columns, _ = hard_negatives(torch.tensor([[400.0, -400.0, 0.0]]), related)
    assert columns.tolist() == [1]


def test_an_epoch_has_every_image_once_with_one_of_its_texts(
    model: PairModel, image_data: PairDataset
) -> None:
    plan = [(n % 7, f"text {n}") for n in range(21)]
    inputs = Inputs(model, with_pairs(image_data, plan))
    chosen: set[int] = set()
    for epoch in range(12):
        generator = torch.Generator().manual_seed(epoch)
        batches = list(Retrieval().batches(inputs, torch.arange(21), 3, generator))
        rows = torch.cat(batches)
        assert sorted(inputs.item_rows[rows, 0].tolist()) == list(range(7))
        # 3 + 3 + 1: the last row joins the batch before it.
        assert [len(batch) for batch in batches] == [3, 4]
        chosen.update(rows.tolist())
    assert chosen == set(range(21))


def test_epochs_are_shuffled_by_the_generator_alone(inputs: Inputs) -> None:
    rows = inputs.split("train")

    def epoch(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat(list(Retrieval().batches(inputs, rows, 8, generator))).tolist()

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    assert sorted(epoch(1)) == sorted(rows.tolist())


def test_training_lowers_the_loss_and_lifts_the_recall(model: PairModel, inputs: Inputs) -> None:
    task, rows = Retrieval(), inputs.split("train")
    optimiser = torch.optim.AdamW(model.set_trainable("all"), 3e-3)
    torch.manual_seed(0)
    before = task.validate(model, inputs, rows)
    losses = []
    for epoch in range(25):
        generator = torch.Generator().manual_seed(epoch)
        for batch in task.batches(inputs, rows, 16, generator):
            terms = task.loss(model, inputs, batch)
            optimiser.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimiser.step()
            losses.append({name: term.item() for name, term in terms.items()})
    assert set(losses[0]) == {"itc", "itm"}
    assert losses[-1]["itc"] < losses[0]["itc"] - 0.5
    assert task.validate(model, inputs, rows) > before + 10


class Oracle(Albef):
    """Knows items and texts by row: as similar as ``cosines`` says, matching if rows are equal."""

    cosines: Tensor

    def take(self, prepared: object, rows: Tensor) -> Tensor:
        return rows

    def encode_items(self, inputs: Tensor) -> Encoding:
        numbers = inputs[:, None].float()
        return Encoding(numbers[:, None], torch.ones(len(inputs), 1, dtype=torch.bool), numbers)

    encode_texts = encode_items

    def project_items(self, item: Encoding) -> Tensor:
        return self.cosines[item.pooled[:, 0].long()]

    def project_texts(self, text: Encoding) -> Tensor:
        return torch.eye(self.cosines.shape[1])[text.pooled[:, 0].long()]

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        match = (item.pooled == text.pooled).float()
        return Fused(match, torch.cat([1 - match, match], dim=1))


def oracle(model: PairModel, cosines: list[list[float]]) -> PairModel:
    model.__class__ = Oracle
    model.cosines = torch.tensor(cosines)  # type: ignore[assignment]
    return model


def test_recalls_are_the_ones_counted_by_hand(model: PairModel, image_data: PairDataset) -> None:
    inputs = Inputs(model, with_pairs(image_data, [(0, "a"), (1, "b"), (2, "c")]))
    # Images are rows, texts columns. Text "a" finds image 0 first; "b" finds it second; "c" third.
    # Image 0 finds "a" second; image 1 finds "b" third; image 2 finds "c" third.
    fixed = oracle(model, [[0.5, 0.6, 0.4], [0.2, 0.1, 0.3], [0.3, 0.05, 0.02]])
    found = {m.name: m for m in Retrieval(rerank=0).utility(fixed, inputs, torch.arange(3))}
    assert found["ir_r1"].value == pytest.approx(100 / 3)
    assert found["tr_r1"].value == pytest.approx(0)
    assert found["ir_r5"].value == found["tr_r10"].value == pytest.approx(100)
    assert found["d_test"].value == pytest.approx((100 / 3 + 0 + 4 * 100) / 6)
    assert found["d_test"].n == 6
    assert found["ir_r1"].n == 3


def test_reranking_orders_the_first_candidates_by_the_match(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, with_pairs(image_data, [(0, "a"), (1, "b"), (2, "c")]))
    fixed = oracle(model, [[0.5, 0.6, 0.4], [0.2, 0.1, 0.3], [0.3, 0.05, 0.02]])

    def recall(rerank: int) -> dict[str, float | None]:
        made = Retrieval(rerank=rerank).utility(fixed, inputs, torch.arange(3))
        return {m.name: m.value for m in made}

    # Two candidates each: "a" and "b" have their image among them, "c" has not; image 0 alone has
    # its text among them.
    assert recall(2)["ir_r1"] == pytest.approx(200 / 3)
    assert recall(2)["tr_r1"] == pytest.approx(100 / 3)
    assert recall(3)["d_test"] == pytest.approx(100)


def test_every_text_of_an_image_counts_as_right(model: PairModel, image_data: PairDataset) -> None:
    inputs = Inputs(model, with_pairs(image_data, [(0, "a"), (0, "b"), (1, "c")]))
    # Image 0 ranks "c", then "b", then "a": its best right text is second.
    fixed = oracle(model, [[0.1, 0.5, 0.6], [0.0, 0.1, 0.9]])
    found = {m.name: m for m in Retrieval(rerank=0).utility(fixed, inputs, torch.arange(3))}
    assert found["tr_r1"].value == pytest.approx(50)
    assert found["tr_r1"].n == 2
    assert found["ir_r1"].value == pytest.approx(100)
    assert found["ir_r1"].n == 3


def test_a_model_that_gives_every_pair_the_same_score_finds_nothing_first(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, with_pairs(image_data, [(0, "a"), (1, "b")]))
    fixed = oracle(model, [[0.5, 0.5], [0.5, 0.5]])
    made = Retrieval(rerank=0).utility(fixed, inputs, torch.arange(2))
    assert {m.name: m.value for m in made}["ir_r1"] == 0


def test_nothing_to_rank_is_unavailable_and_not_zero(model: PairModel, inputs: Inputs) -> None:
    made = Retrieval().utility(model, inputs, torch.zeros(0, dtype=torch.int64))
    assert made[0].name == "d_test"
    assert all(m.value is None and m.unavailable for m in made)


def test_metrics_carry_an_interval_around_their_value(model: PairModel, inputs: Inputs) -> None:
    made = Retrieval().utility(model, inputs, inputs.split("train"))
    assert [m.name for m in made] == [
        *("d_test", "ir_r1", "ir_r5", "ir_r10", "tr_r1", "tr_r5", "tr_r10")
    ]
    for metric in made:
        assert metric.interval is not None
        assert metric.value is not None
        assert metric.interval[0] <= metric.value <= metric.interval[1]
        assert 0 <= metric.value <= 100


def test_scores_are_match_probabilities_in_the_order_asked_for(
    model: PairModel, inputs: Inputs
) -> None:
    rows = torch.tensor([5, 0, 9, 5])
    scores = Retrieval().scores(model, inputs, rows)
    expected = model.fuse(*inputs.encode(model, rows)).logits.softmax(-1)[:, 1]
    torch.testing.assert_close(scores, expected.detach())
    assert scores[0] == scores[3]


def test_outputs_are_distributions_over_the_own_text_and_the_gallery(
    model: PairModel, inputs: Inputs
) -> None:
    inputs.choose_gallery(inputs.split("train"), size=10)
    rows = torch.cat([inputs.gallery[:2], inputs.split("test")[:2]])
    made = Retrieval().outputs(model, inputs, rows)
    assert made.shape == (4, 11)
    torch.testing.assert_close(made.sum(1), torch.ones(4))
    # A pair of the gallery is not its own rival.
    assert made[0, 1] == made[1, 2] == 0
    assert (made[2:] > 0).all()
    images, texts = inputs.encode(model, rows[2:3])
    gallery = inputs.encode_texts(model, inputs.text_rows[inputs.gallery])
    image, own = model.project(images, texts)
    others = model.project_texts(gallery)
    logits = torch.cat([own, others]) @ image[0] / model.temperature
    torch.testing.assert_close(made[2], logits.softmax(0).detach())


@pytest.mark.parametrize("family", ["clip", "blip"])
def test_towers_of_different_widths_are_ranked_as_one_pass_over_the_pairs_ranks_them(
    family: str, tiny: Callable[..., PairModel], image_data: PairDataset
) -> None:
    """As those of published sizes are: CLIP B/32 has 768 beside 512, BLIP-large 1024 beside 768."""
    model = tiny(family)
    inputs = Inputs(model, image_data)
    rows = inputs.split("test")
    item, text = inputs.encode(model, rows)
    assert item.pooled.shape[1] != text.pooled.shape[1]
    images, texts = model.project(item, text)
    first = (images @ texts.T).argmax(1)
    # Each pair of these data has an image and a text of its own, but for texts that are equal.
    right = inputs.text_rows[rows][first] == inputs.text_rows[rows]
    found = {m.name: m.value for m in Retrieval(rerank=0).utility(model, inputs, rows)}
    assert found["tr_r1"] == pytest.approx(100 * right.double().mean().item())
    inputs.choose_gallery(inputs.split("train"), size=5)
    assert torch.isfinite(Retrieval().outputs(model, inputs, rows)).all()


def test_measuring_leaves_the_model_in_its_mode(model: PairModel, inputs: Inputs) -> None:
    model.train()
    Retrieval().utility(model, inputs, inputs.split("test"))
    assert model.training


def test_more_reranking_than_the_paper_does_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="0 to 128"):
        Retrieval(rerank=129)


def test_the_recipe_says_how_deep_the_ranking_goes() -> None:
    task = Retrieval()
    assert task.rerank == RetrievalRecipe().rerank == 16
    task.configure(RetrievalRecipe(rerank=128))
    assert task.rerank == 128
    task.configure(TrainingRecipe())
    assert task.rerank == 128


@pytest.fixture
def dual(tiny: Callable[..., PairModel]) -> PairModel:
    """A family of similarities alone."""
    return tiny("clip")


@pytest.fixture
def dual_inputs(dual: PairModel, image_data: PairDataset) -> Inputs:
    return Inputs(dual, image_data)


def test_without_a_match_the_loss_is_the_contrastive_one_alone(
    dual: PairModel, dual_inputs: Inputs
) -> None:
    rows = torch.arange(6)
    items, texts = dual.project(*dual_inputs.encode(dual, rows))
    expected = contrastive_loss(items @ texts.T / dual.temperature, torch.eye(6, dtype=torch.bool))
    terms = Retrieval().loss(dual, dual_inputs, rows)
    assert list(terms) == ["itc"]
    assert terms["itc"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_a_match_the_cosine_scores_and_ranks(dual: PairModel, dual_inputs: Inputs) -> None:
    rows = torch.tensor([3, 1, 8])
    items, texts = dual.project(*dual_inputs.encode(dual, rows))
    scores = Retrieval().scores(dual, dual_inputs, rows)
    torch.testing.assert_close(scores, torch.nn.functional.cosine_similarity(items, texts).detach())
    test = dual_inputs.split("test")
    deep = Retrieval(rerank=16).utility(dual, dual_inputs, test)
    assert deep == Retrieval(rerank=0).utility(dual, dual_inputs, test)
    assert Retrieval().validate(dual, dual_inputs, test) == pytest.approx(deep[0].value)


def test_pairs_of_two_images_are_refused(image_data: PairDataset) -> None:
    first = image_data.pairs[0]
    two = replace(first, items=first.items * 2, item_ids=first.item_ids * 2)
    with pytest.raises(DataError, match="has 2; retrieval needs 1 image a pair"):
        Retrieval().check(replace(image_data, pairs=[two]))


def test_a_single_image_is_refused(image_data: PairDataset) -> None:
    with pytest.raises(InvalidSpec, match="needs 2 images at least"):
        Retrieval().check(with_pairs(image_data, [(0, "a"), (0, "b")]))
    Retrieval().check(image_data)


def test_families_that_cannot_rank_are_refused_with_the_reason() -> None:
    assert Retrieval.refusal(Albef) is None
    reason = Retrieval.refusal(families.get("gcn_bert"))
    assert reason is not None
    assert "image" in reason
